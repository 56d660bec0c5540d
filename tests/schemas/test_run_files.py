"""A run folder is read as far as it can be read, and what cannot is named."""

import json
import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from schemas.run_files import curve, read_run
from tests.runs import answers, healthy_run, record_rows

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
NAMES = ("step", "loss", "val_loss", "lr", "grad_norm", "loss_by_source", "val_loss_by_source", "records", "answer")


def test_a_whole_folder_has_no_problems(tmp_path: Path) -> None:
    run = read_run(healthy_run(tmp_path / "run", samples=answers({0: ["a"], 200: ["b"]})))
    assert run.problems == ()
    assert run.ended
    assert len(run.curve("loss")) == 200
    assert list(run.evaluations.step[:2]) == [0, 20]
    assert set(run.val_by_source) == set(run.train_by_source) == {"alpaca", "dolly"}
    assert run.records is not None
    assert run.records.height == 460
    assert [sample.answer for sample in run.samples] == ["a", "b"]


@given(st.lists(st.dictionaries(st.sampled_from(NAMES), JSON, max_size=5), max_size=8), st.binary(max_size=40))
def test_whatever_the_files_hold_nothing_is_raised(
    tmp_path_factory: object, lines: list[dict[str, object]], rest: bytes
) -> None:
    folder: Path = tmp_path_factory.mktemp("run")  # pyright: ignore[reportAttributeAccessIssue] # a factory, typed as object
    held = "".join(json.dumps(line) + "\n" for line in lines).encode() + rest
    for name in ("metrics.jsonl", "samples.jsonl", "spikes.jsonl", "rejected.jsonl"):
        (folder / name).write_bytes(held)
    for name in ("run.json", "config.json", "general.json", "preflight.json", "records.arrow"):
        (folder / name).write_bytes(rest)
    run = read_run(folder)
    assert all(math.isfinite(value) for value in run.curve("loss").value)


def test_a_separator_of_lines_within_a_text_ends_no_line(tmp_path: Path) -> None:
    said = "one\u2028two\x85three"
    folder = healthy_run(tmp_path / "run")
    line = {"step": 0, "id": "x", "source": "s", "prompt": said, "reference": said, "answer": said, "whole": True}
    (folder / "samples.jsonl").write_text(json.dumps(line, ensure_ascii=False) + "\n", encoding="utf-8")
    run = read_run(folder)
    assert [sample.answer for sample in run.samples] == [said]
    assert run.problems == ()


def test_columns_that_older_files_lack_are_null(tmp_path: Path) -> None:
    old = record_rows(30, 10).drop("seen")
    run = read_run(healthy_run(tmp_path / "run", records=old))
    assert run.records is not None
    assert run.records["seen"].null_count() == 40


def test_a_step_that_was_made_again_counts_once() -> None:
    made = curve([(2, 5.0), (1, 1.0), (2, 3.0), (3, math.nan)])
    assert made.step.tolist() == [1, 2]
    assert made.value.tolist() == [1.0, 3.0]
    assert made.at(1.5) == 2.0
