"""`sft verify`, of a version or of a whole store, and `sft gc`: what they say, and their exit codes."""

import json
import os
from pathlib import Path

import polars as pl
import pytest

from curate.store import Store
from tests.cli.conftest import Sft
from tests.rows import dataset_of, question


@pytest.fixture
def root(tmp_path: Path) -> Path:
    dataset_of(tmp_path / "sft-data", {"s": [question("a", "b")]})
    dataset_of(tmp_path / "sft-data", {"t": [question("c", "d")]})
    dataset_of(tmp_path / "sft-data", {"s": [question("a", "b")]}, name="other")
    return tmp_path / "sft-data"


def test_all_that_is_in_a_store_is_verified(sft: Sft, root: Path) -> None:
    assert sft("verify", "--all").out == "2 datasets, 3 versions, tags and runs: whole\n"
    told = sft("verify", "--all", "--deep", "--json", "--store", str(root)).json
    assert told == {"ok": True, "deep": True, "versions": 3, "problems": []}


def test_each_problem_names_its_version_and_the_exit_code_is_one(sft: Sft, root: Path) -> None:
    path = root / "datasets/d/versions/000001.json"
    path.write_text(path.read_text().replace('"license": null', '"license": "MIT"', 1))
    (root / "datasets/other/tags.json").write_text('{"golden": 4}')
    said = sft("verify", "--all", code=1)
    text = " ".join(said.out.split())
    assert text.startswith("d@1: manifest ")
    assert "its content does not give its id" in text
    assert "dataset other: tag 'golden' names version 4, which is not there" in text
    assert text.endswith("2 datasets, 3 versions, tags and runs: 2 problems")
    told = sft("verify", "--all", "--json", code=1).json
    assert [(one["name"], one["seq"]) for one in told["problems"]] == [("d", 1), ("other", None)]
    assert sft("verify", "d").out.startswith("d@2: whole; ")


@pytest.mark.parametrize("given", [(), ("d", "--all")])
def test_a_version_or_all_of_them_not_neither_nor_both(sft: Sft, root: Path, given: tuple[str, ...]) -> None:
    assert root.is_dir()
    said = sft("verify", *given, code=2)
    assert "one of REF and --all" in said.err
    assert said.err.count("\n") == 1


def test_gc_that_cannot_read_a_version_removes_nothing(sft: Sft, root: Path) -> None:
    stray = root / Store(root).put(pl.DataFrame({"a": [1]}), role="index", stage="dedup").path
    os.utime(stray, (1, 1))
    manifest = root / "datasets/d/versions/000001.json"
    whole = manifest.read_text()
    manifest.write_text(whole[: len(whole) // 2])
    for options in ((), ("--dry-run",), ("--grace-hours", "0")):
        said = sft("gc", *options, code=1)
        assert "000001.json" in said.err
        assert "nothing was removed" in said.err
        assert stray.exists()
    manifest.write_text(whole)
    assert json.loads(sft("gc", "--dry-run", "--json").out)["files"] == [str(stray.relative_to(root))]
    assert stray.exists()
    size = stray.stat().st_size
    assert sft("gc").out == f"1 file, {size:,} bytes removed\n"
    assert not stray.exists()
