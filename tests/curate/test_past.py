"""The past of a row: the versions in which something became of it, and no others."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curate.lineage import why
from curate.naming import find_row
from curate.past import past_of
from curate.pipeline import apply_stage
from curate.restore import restore
from curate.store import Store
from curate.version import Draft, commit_version
from schemas.config import SplitConfig
from schemas.dataset import Dataset
from schemas.manifest import Source
from tests.rows import dataset_of, put_source, question, staged

ROWS = [question("Hi?", "N/A"), question("What is it?\r\n", "It is that."), question("And what is this?", "This.")]


def told(dataset: Dataset, row: str) -> list[tuple[int, tuple[str, ...]]]:
    return [(step.seq, step.what) for step in past_of(dataset, find_row(dataset, row))]


def replaced(dataset: Dataset, rows: Sequence[Mapping[str, Any]]) -> Dataset:
    store = Store(dataset.root)
    draft = Draft.of(dataset.manifest).with_source(Source(name="s", format="test"), put_source(store, rows, "s"))
    return Dataset(commit_version(store, draft, dataset.manifest, "another release").manifest, dataset.root)


@pytest.fixture
def mix(tmp_path: Path) -> Dataset:
    dataset_of(tmp_path, {"s": ROWS})
    other = dataset_of(tmp_path, {"t": ROWS[2:]})  # nothing becomes of the rows of s
    return staged(staged(other, "normalize"), "rules")


def test_a_row_comes_is_edited_rejected_and_restored(mix: Dataset) -> None:
    after = restore(Store(mix.root), mix, ["s:1"], by="anna").commit.manifest
    _, split = apply_stage(Store(mix.root), Dataset(after, mix.root), "split", SplitConfig())
    dataset = Dataset(split.manifest, mix.root)
    assert told(dataset, "s:1") == [
        (1, ("came, kept",)),
        (4, ("rejected as rule:placeholder_response",)),
        (5, ("restored: it had been rejected as rule:placeholder_response",)),
        (6, (f"dealt to {why(dataset, Store(mix.root), 's:1').split}",)),
    ]
    assert told(dataset, "s:2")[:2] == [(1, ("came, kept",)), (3, ("edited",))]
    assert [seq for seq, _ in told(dataset, "s:3")] == [1, 6]
    assert [seq for seq, _ in told(dataset, "t:1")] == [2, 6]


def test_the_past_ends_at_the_version_at_hand(mix: Dataset) -> None:
    first = Dataset(mix.manifest, mix.root)
    restore(Store(mix.root), mix, ["s:1"], by="anna")
    assert told(first, "s:1")[-1][0] == 4


def test_a_row_that_moves_to_another_split_is_told(tmp_path: Path) -> None:
    rows = [question(f"What is {n}?", f"It is {n}.") for n in range(40)]
    one = staged(dataset_of(tmp_path, {"s": rows}), "split")
    two = staged(one, "split", salt="another")
    splits = [d.scan(["split"]).collect()["split"].to_list() for d in (one, two)]
    row = next(i for i, (a, b) in enumerate(zip(*splits, strict=True)) if a != b)
    assert told(two, f"s:{row + 1}")[-1] == (3, (f"moved from {splits[0][row]} to {splits[1][row]}",))


def test_a_row_that_was_taken_out_and_came_again_is_found_where_it_stands_now(mix: Dataset) -> None:
    """Another release of a source has other objects, and the row another place in them."""
    gone = replaced(mix, [{**ROWS[1], "key": "k1"}])
    back = replaced(gone, [{**ROWS[1], "key": "k1"}, {**ROWS[2], "key": "k2"}, {**ROWS[0], "key": "k0"}])
    steps = told(back, "s:3")
    assert steps[-2:] == [(5, ("taken out: the version does not have it",)), (6, ("came, kept",))]


def test_a_version_that_is_damaged_is_told_and_hides_nothing_else(mix: Dataset) -> None:
    later = replaced(mix, [{**row, "key": f"k{i}"} for i, row in enumerate(ROWS)] + [question("New?", "Yes.")])
    lost = next(f for f in mix.manifest.files if f.role == "annotation" and f.stage == "rules" and f.source == "s")
    (mix.root / lost.path).unlink()
    steps = told(later, "s:1")
    assert steps[0] == (1, ("came, kept",))
    assert any("cannot be read: object" in what for _, (what, *_) in steps)
    assert steps[-1][0] <= later.manifest.seq


def test_why_holds_the_past_as_plain_values(mix: Dataset) -> None:
    life = why(mix, Store(mix.root), "s:1").to_json()
    assert [step["seq"] for step in life["versions"]] == [1, 4]
    assert life["versions"][1]["state"]["reject_reason"] == "rule:placeholder_response"


def test_why_tells_which_runs_trained_on_a_row_with_its_loss_and_split(mix: Dataset, tmp_path: Path) -> None:
    store = Store(mix.root)
    row = find_row(mix, "s:3").id
    losses = {"id": [row], "split": ["val"], "loss": [0.5], "loss_before": [2.0], "n_target_tokens": [3]}
    pl.DataFrame(losses).write_ipc(tmp_path / "records.arrow")
    store.register_run("r1", {"dataset": "d", "seq": 4}, tmp_path / "records.arrow")
    [event] = [e for e in why(mix, store, "s:3").history if e.stage == "train"]
    assert event.what == "run r1, version 4, was measured on it, as val: loss 2.000 -> 0.500"
    assert (event.facts["loss"], event.facts["split"]) == (0.5, "val")
