"""`sft export --format hf` and `sft push-to-hub` as a person types them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Sft
from tests.hub import Hub, serve

ABOUT = """
title = "Lamps: lit and unlit"
url = "https://lamps.example"
[[creators]]
name = "Mara"
kind = "person"
"""


@pytest.fixture
def lamps(sft: Sft, alpaca: Path) -> Sft:
    sft("curate", "ingest", "alpaca", str(alpaca), "--name", "lamps", "--license", "MIT")
    return sft


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serve() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_TOKEN", "hf_only_for_this_test")
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        yield running


def test_export_writes_a_dataset_and_says_what_nobody_stated(lamps: Sft, tmp_path: Path) -> None:
    said = lamps("export", "lamps", "--format", "hf", "--to", "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md",
        "croissant.json",
        "data-card.json",
        "ai-act-summary.md",
        "ai-act-summary.json",
        "data",
    }
    assert "40 rows exported as hf" in said.out
    assert "croissant.json lacks what its specification requires: url, creator" in " ".join(said.err.split())


def test_export_takes_what_the_publisher_says(lamps: Sft, tmp_path: Path) -> None:
    (tmp_path / "about.toml").write_text(ABOUT)
    said = lamps("export", "lamps", "--format", "hf", "--to", "out", "--about", "about.toml", "--json")
    assert said.json["rows"] == 40
    assert not [notice for notice in said.json["notices"] if "croissant.json" in notice]
    assert json.loads((tmp_path / "out/croissant.json").read_text())["name"] == "Lamps: lit and unlit"


def test_about_is_for_hf_alone(lamps: Sft, tmp_path: Path) -> None:
    (tmp_path / "about.toml").write_text(ABOUT)
    said = lamps("export", "lamps", "--format", "jsonl", "--to", "out", "--about", "about.toml", code=2)
    assert "--about with jsonl: no place for what it says; expected --format hf" in said.err


def test_rejected_rows_are_not_for_the_hub(lamps: Sft) -> None:
    said = lamps("export", "lamps", "--format", "hf", "--to", "out", "--include-rejected", code=2)
    assert "rejected rows as hf" in said.err


def test_a_dry_run_says_all_and_asks_nobody(lamps: Sft, hub: Hub) -> None:
    said = lamps("push-to-hub", "lamps", "acme/lamps", "--dry-run")
    assert "lamps@1" in said.out
    assert "-> acme/lamps, branch main, public if new" in said.out
    assert "data/train-00000-of-00001.parquet" in said.out
    assert "40 rows; licence MIT" in said.out
    assert "nothing was pushed" in said.out
    assert hub.asked == []


def test_a_version_is_pushed_once(lamps: Sft, hub: Hub) -> None:
    said = lamps("push-to-hub", "lamps", "acme/lamps")
    commit = hub.repos["acme/lamps"].commits[-1]
    assert f"pushed to {hub.url}/datasets/acme/lamps, commit {commit[:12]}" in " ".join(said.out.split())
    assert "hf_only_for_this_test" not in said.out + said.err
    again = lamps("push-to-hub", "lamps", "acme/lamps", "--json")
    assert (again.json["changed"], again.json["commit"]) == (False, commit)


def test_a_refusal_is_one_line_and_exit_code_2(lamps: Sft, hub: Hub) -> None:
    hub.refuse["repos/create"] = (403, "")
    said = lamps("push-to-hub", "lamps", "acme/lamps", "--json", code=2)
    assert said.err.startswith("error: hub acme/lamps: 403, the token may not write there")
    assert said.err.count("\n") == 1


def test_rows_without_a_licence_stay_here(sft: Sft, alpaca: Path, hub: Hub) -> None:
    sft("curate", "ingest", "alpaca", str(alpaca), "--name", "lamps")
    said = sft("push-to-hub", "lamps", "acme/lamps", code=2)
    assert "no licence is stated for alpaca" in said.err
    assert hub.asked == []
    assert sft("push-to-hub", "lamps", "acme/lamps", "--private", "--json").json["pushed"]
