"""The page of a training run: whole, safe, small, and made of what is there."""

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curate.diff.redaction import MASK
from curate.report.run import named_records, run_page
from curate.report.run_figures import perplexity, source_lines, summary
from curate.samples import SampleRow
from schemas.run_files import read_run
from tests.curate.report.accounts import IMAGE, SCRIPT
from tests.curate.report.runs import FINDINGS, hostile_run, long_run
from tests.runs import answers, healthy_run, record_rows

MOST_BYTES = 2_000_000


def page_of(folder: Path, **given: Any) -> str:
    return run_page(read_run(folder), FINDINGS, **given)


def test_hostile_text_is_text_wherever_it_stands(run_html: str) -> None:
    main = run_html[run_html.index("<main") :]
    body, script = main.split("<script>", 1)
    assert "<script" not in body
    assert "<img" not in body
    assert SCRIPT.replace("<", "&lt;").replace(">", "&gt;") in body
    assert "\u202e" not in run_html
    assert "\x00" not in run_html
    assert "onerror" not in re.sub(r">[^<]*<", "><", body), "no attribute holds it unescaped"
    assert "owned" not in script


def test_the_same_run_gives_the_same_bytes(tmp_path: Path, run_html: str) -> None:
    folder = hostile_run(tmp_path / "run")
    assert page_of(folder) == page_of(folder)
    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?(https?:|//)", re.sub(r">[^<]*<", "><", run_html))


def test_the_verdict_is_at_the_top_with_level_evidence_and_advice(tmp_path: Path) -> None:
    page = page_of(healthy_run(tmp_path / "run"))
    top = page[page.index('id="verdict"') : page.index('id="what"')]
    for words in ("is-problem", "is-warning", "is-note", "is-ok", "Stop at step 60.", "0.5123", "What to change"):
        assert words in top
    assert top.index("instability") < top.index("over-fitting") < top.index("forgetting")


def test_a_long_run_of_many_records_has_a_small_page(tmp_path: Path) -> None:
    page = page_of(long_run(tmp_path / "run", steps=4_000, records=10_000))
    assert len(page.encode()) < MOST_BYTES
    assert "8 smaller sources are left out" not in page, "the records have two sources, the curves 20"
    assert "source-11" in page or "smaller sources" in page


@pytest.mark.parametrize("gone", ["run.json", "config.json", "metrics.jsonl", "records.arrow", "samples.jsonl"])
@pytest.mark.parametrize("how", ["missing", "broken", "foreign"])
def test_without_a_file_the_page_is_made_of_the_others_and_names_it(tmp_path: Path, gone: str, how: str) -> None:
    folder = healthy_run(tmp_path / "run", samples=answers({0: ["a b"], 200: ["c d"]}))
    if how == "missing":
        (folder / gone).unlink()
    else:
        (folder / gone).write_bytes(b"\xff{not this\n" if how == "broken" else b'["another", {"thing": 1}]\n')
    run = read_run(folder)
    assert any(gone in problem for problem in run.problems)
    page = run_page(run, FINDINGS)
    assert f"{gone} " in page
    assert page.rstrip().endswith("</html>")


def test_a_line_that_is_being_written_is_no_problem(tmp_path: Path) -> None:
    folder = healthy_run(tmp_path / "run")
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 201, "lo')
    assert read_run(folder).problems == ()


def test_an_empty_folder_has_a_page(tmp_path: Path) -> None:
    page = run_page(read_run(tmp_path), [])
    assert "There is no verdict." in page
    assert "metrics.jsonl is missing" in page


def test_values_of_the_wrong_kind_are_left_out(tmp_path: Path) -> None:
    folder = healthy_run(tmp_path / "run")
    odd = [None, "x", [1], {"a": 1}, True, 1e400, -1]
    lines = [
        {"step": 300 + i, "loss": v, "lr": v, "tokens": v, "epoch": v, "loss_by_source": v} for i, v in enumerate(odd)
    ]
    lines += [{"step": v, "val_loss": v, "val_loss_by_source": {"a": v}} for v in odd]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "run.json").write_text(json.dumps(dict.fromkeys(("model", "dataset", "versions", "device", "seq"), odd)))
    (folder / "config.json").write_text(json.dumps({"train": {"lr": odd, "clip": "x"}, "dataset": odd}))
    (folder / "spikes.jsonl").write_text(json.dumps({"step": "x", "records": [1, None, {"id": 3}]}) + "\n")
    (folder / "samples.jsonl").write_text(json.dumps({"step": None, "answer": 5, "prompt": None}) + "\n")
    assert page_of(folder).rstrip().endswith("</html>")


def test_the_page_shows_the_records_that_the_caller_has_texts_of(tmp_path: Path) -> None:
    folder = healthy_run(tmp_path / "run")
    run = read_run(folder)
    ids = named_records(run)
    assert len(ids) == len(set(ids)) >= 20
    rows = {name: SampleRow(name, f"s:{i}", True, None, None, (("user", f"text {i}"),)) for i, name in enumerate(ids)}
    page = run_page(run, FINDINGS, rows)
    assert all(f"text {i}<" in page for i in range(len(ids)))
    assert "lie in the store" not in page
    assert "lie in the store" in run_page(run, FINDINGS)


def test_what_pii_redacted_since_is_masked_in_samples(tmp_path: Path) -> None:
    folder = healthy_run(tmp_path / "run", samples=answers({0: ["call 555-1234"], 200: ["write to <EMAIL_1> now"]}))
    page = run_page(read_run(folder), FINDINGS, redacted=[f"{0:032x}"])
    for words in ("555-1234", "write to", "How many lamps", "two lamps"):
        assert words not in page
    assert MASK in page
    assert "&lt;EMAIL_1&gt;" in page


def test_hardest_worse_and_never_learned_records_are_told_apart(tmp_path: Path) -> None:
    rows = record_rows(400, 60)
    changed = rows.with_row_index("i").with_columns(
        loss=pl.when(pl.col("i") == 7).then(pl.col("loss_before")).when(pl.col("i") == 410).then(9.0).otherwise("loss")
    )
    run = read_run(healthy_run(tmp_path / "run", records=changed.drop("i")))
    from curate.report.record_losses import listings

    found = {listing.name: [line.id for line in listing.records] for listing in listings(run.records)}
    assert found["hardest"][0] == found["worse"][0] == f"{410:032x}"
    assert found["never"] == [f"{7:032x}"]
    assert len(found["improved"]) == 10


def test_the_summary_gives_first_last_and_lowest(tmp_path: Path) -> None:
    told = summary(read_run(healthy_run(tmp_path / "run")))
    assert told["steps"] == 200
    assert told["val_loss"][0] == 2.6
    assert told["lowest"]["step"] == 200
    assert told["train_records"] == 400
    assert told["tokens"] == 400_000
    assert told["tokens_per_s"] == 5000.0


def test_sources_stand_with_their_perplexities(tmp_path: Path) -> None:
    found = source_lines(read_run(healthy_run(tmp_path / "run")))
    assert [line.source for line in found] == ["alpaca", "dolly"]
    assert [line.records for line in found] == [30, 30]
    assert all(line.before == 2.6 and line.after and line.after < 1.7 for line in found)


def test_a_run_that_has_not_ended_says_how_to_go_on(tmp_path: Path) -> None:
    folder = healthy_run(tmp_path / "run", ended=False, records=None)
    page = page_of(folder)
    assert "has not ended" in page
    assert f"sft train --resume --out {folder}" in page
    assert IMAGE not in page


def test_a_source_without_a_curve_has_no_empty_chart(tmp_path: Path) -> None:
    rows = record_rows(400, 60).with_columns(
        source=pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("scored only"))
    )
    page = page_of(healthy_run(tmp_path / "run", records=rows))
    assert "Loss of dolly by step" in page
    assert "Loss of scored only by step" not in page


def test_losses_that_are_no_number_are_told_where_a_line_goes_past_them(tmp_path: Path) -> None:
    train: list[float | None] = [2.0] * 60
    train[30] = None
    spike = {"step": 31, "loss": None, "expected": 2.0, "records": [{"id": "a" * 32, "source": "dolly", "loss": None}]}
    page = page_of(healthy_run(tmp_path / "run", train=train, val={0: 2.5, 60: 2.0}, spikes=[spike]))
    assert "1 measurement was no finite number, first at step 31" in page
    assert "loss <strong>no number</strong>" in page
    assert "Orange dots" not in page, "there is none to be drawn"


def test_a_perplexity_beyond_reading_is_short() -> None:
    assert [perplexity(loss) for loss in (1.0, 5.0, 8.0, 60.0, 900.0)] == [
        "2.72",
        "148.4",
        "2,981",
        "1.1e26",
        "1.0e304",
    ]


def test_a_long_answer_alone_is_not_called_the_same(tmp_path: Path) -> None:
    page = page_of(healthy_run(tmp_path / "run", samples=answers({0: ["word " * 900]})))
    assert "more characters" in page
    assert "characters the same" not in page
