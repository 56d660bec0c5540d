"""`sft report`: the verdict first, one JSON object, a page of any run that there is."""

import json
import os
import shutil
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from cli import render
from cli.report import tell_verdict
from schemas.dataset import open_dataset
from schemas.run_files import read_run
from tests.cli.conftest import Sft
from tests.runs import answers, falling, healthy_run, record_rows
from train.verdict.verdict import judge

RISEN = dict(zip(range(0, 201, 20), [2.6, 2.0, 1.8, 1.7, 1.75, 1.8, 1.85, 1.9, 1.95, 2.0, 2.05], strict=True))


def over_fitted(folder: Path) -> Path:
    return healthy_run(folder, val=RISEN, train=falling(200, 2.5, 0.3, rate=3))


def test_the_example_says_the_verdict_first_and_writes_the_page(sft: Sft, tmp_path: Path) -> None:
    over_fitted(tmp_path / "runs" / "first")
    said = sft("report", "runs/first")
    assert said.out.startswith("over-fitting (warning): The validation loss was lowest at step 60")
    assert "200 steps, 400,000 tokens, 5,000 tokens/s, 80 s of training" in said.out
    assert "val perplexity" in said.out
    assert "wrote runs/first/report.html" in said.err
    page = (tmp_path / "runs/first/report.html").read_text(encoding="utf-8")
    assert "is-warning" in page
    written = json.loads((tmp_path / "runs/first/verdict.json").read_text())
    assert written["findings"][0]["kind"] == "over-fitting"


def test_the_lines_of_a_verdict_hang_below_their_first_one_and_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = judge(read_run(over_fitted(tmp_path / "run")))
    for width in (80, 50, 20):
        plain = Console(width=width, highlight=False)
        monkeypatch.setattr(render, "console", lambda plain=plain: plain)
        tell_verdict(found)
        lines = capsys.readouterr().out.splitlines()
        assert all(len(line) <= width for line in lines)
        assert [line[:4].isspace() for line in lines].count(False) == 2
        assert [line for line in lines if not line.startswith("    ")][1].startswith("  Stop at")


def test_json_is_the_verdict_and_the_summary(sft: Sft, tmp_path: Path) -> None:
    over_fitted(tmp_path / "run")
    found = sft("report", "run", "--json").json
    assert found["verdict"] == ["over-fitting"]
    assert set(found["findings"][0]) == {"kind", "level", "found", "evidence", "advice"}
    assert found["summary"]["steps"] == 200
    assert found["by_source"]["dolly"]["records"] == 30
    assert found["problems"] == []


def test_a_page_elsewhere_leaves_the_run_folder_as_it_is(sft: Sft, tmp_path: Path) -> None:
    folder = over_fitted(tmp_path / "run")
    before = sorted(folder.iterdir())
    sft("report", "run", "--html", "page.html")
    assert sorted(folder.iterdir()) == before
    assert (tmp_path / "page.html").is_file()


def test_a_run_that_was_killed_is_reported_as_far_as_it_came(sft: Sft, tmp_path: Path) -> None:
    folder = healthy_run(tmp_path / "run", ended=False, records=None)
    (folder / "config.json").unlink()
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 201, "loss": 1.')
    said = sft("report", "run")
    assert said.out.startswith("inconclusive (note): The run has not ended: its last step is 200.")
    assert "200 steps, not ended" in said.out
    assert "warning: config.json is missing" in said.err


def test_a_run_that_never_began_is_started_again_and_not_resumed(sft: Sft, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("metrics.jsonl", "training.log"):
        (tmp_path / "run" / name).touch()
    said = sft("report", "run")
    assert "training.log say why" in " ".join(said.out.split())
    assert "--resume" not in said.out + (tmp_path / "run" / "report.html").read_text()


def test_a_name_that_no_folder_can_have_is_one_line(sft: Sft) -> None:
    assert sft("report", "x" * 300, code=2).err.endswith("File name too long; expected a folder that can be read\n")


@pytest.mark.parametrize("name", ["nowhere", "empty", "rows.jsonl"])
def test_no_run_is_one_line(sft: Sft, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "rows.jsonl").touch()
    said = sft("report", name, code=2)
    assert said.err.startswith(f"error: run {name}: no run in this folder")
    assert said.out == ""


def test_a_page_that_cannot_be_written_is_one_line(sft: Sft, tmp_path: Path) -> None:
    over_fitted(tmp_path / "run")
    assert "error: --html no/page.html" in sft("report", "run", "--html", "no/page.html", code=2).err
    (tmp_path / "run" / "report.html").mkdir()
    assert "error: --html run/report.html" in sft("report", "run", code=2).err


@pytest.fixture
def trained(sft: Sft, tmp_path: Path) -> Path:
    """A run on the first version of a dataset, one of whose rows names a mailbox."""
    rows = [{"instruction": f"Who has lamp {i}?", "response": f"Lamp {i} is with house {i}."} for i in range(40)]
    rows[3]["response"] = "Write to anna.berg@lampen.se about lamp 3, she has it."
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sft("curate", "ingest", "dolly", "rows.jsonl", "--name", "lamps")
    sft("curate", "split", "lamps")
    dataset = open_dataset("lamps", tmp_path / "sft-data")
    told = dataset.scan(["id", "source_row"]).collect().sort("source_row")
    ids = told["id"].to_list()
    held = record_rows(30, 10).with_columns(id=pl.Series(ids))
    held = held.with_columns(loss=pl.when(pl.col("id") == ids[3]).then(9.0).otherwise(pl.col("loss")))
    samples = answers({0: ["a lamp"], 200: ["anna.berg@lampen.se has it"]})
    folder = healthy_run(
        tmp_path / "run",
        records=held,
        samples=[{**line, "id": ids[3], "prompt": "Who has lamp 3?"} for line in samples],
        facts={"manifest": dataset.manifest.id, "dataset": "lamps", "seq": dataset.manifest.seq},
    )
    (folder / "config.json").write_text(
        json.dumps({"train": {"samples": 1}, "dataset": f"lamps@{dataset.manifest.seq}",
                    "store": str(tmp_path / "sft-data")})
    )  # fmt: skip
    return folder


def test_records_stand_with_their_texts_from_the_store_of_the_run(sft: Sft, trained: Path) -> None:
    sft("report", "run")
    page = (trained / "report.html").read_text(encoding="utf-8")
    assert "Who has lamp 3?" in page
    assert "anna.berg@lampen.se" in page
    assert "dolly:" in page


def test_what_pii_redacted_in_a_later_version_is_not_shown(sft: Sft, trained: Path) -> None:
    sft("curate", "pii", "lamps", "--action", "redact")
    sft("report", "run")
    page = (trained / "report.html").read_text(encoding="utf-8")
    assert "anna.berg" not in page
    assert "[redacted]" in page
    assert "is with house" in page


def test_without_the_store_the_page_has_no_texts_and_says_so(sft: Sft, trained: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "sft-data")
    said = sft("report", "run")
    assert "the texts of the records are not at hand" in said.err
    assert "is with house" not in (trained / "report.html").read_text(encoding="utf-8")


def test_a_store_with_another_dataset_of_that_name_gives_no_texts(sft: Sft, trained: Path) -> None:
    facts = json.loads((trained / "run.json").read_text())
    (trained / "run.json").write_text(json.dumps({**facts, "manifest": "0" * 64}))
    said = " ".join(sft("report", "run").err.split())  # lines break where the folder's name makes them long
    assert "is another version than the one that" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_run_folder_that_cannot_be_written_to_is_one_line(sft: Sft, tmp_path: Path) -> None:
    folder = over_fitted(tmp_path / "run")
    folder.chmod(0o500)
    assert "error: run run:" in sft("report", "run", code=2).err


def test_every_run_ends_with_its_verdict_and_its_page(sft: Sft, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "runs", tmp_path / "runs")
    folder, said = tmp_path / "runs" / "first", json.loads((finished / "said.json").read_text())
    kinds = json.loads((folder / "run.json").read_text())["verdict"]
    assert kinds
    assert f"{kinds[0]} (" in said["out"]
    assert "wrote runs/first/report.html" in said["err"]
    assert "sft eval runs/first" in said["out"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Say number" in page
    assert "tiny" in page
    again = sft("report", "runs/first", "--json").json
    assert again["verdict"] == kinds
    assert again["problems"] == []
    assert (folder / "report.html").read_text(encoding="utf-8") == page
