"""records.arrow: one row per record, with what it lost before and after, and how often it was read."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pytest

from schemas.errors import InputError
from train.evaluation.losses import Losses, evaluation
from train.run.folder import RunFolder
from train.run.records import AFTER, BEFORE, Before, read_before, write_before, write_records
from train.text.tokens import Example, Tokens


def tokens_of(*named: tuple[str, str, int]) -> Tokens:
    """Examples of (id, source, targets)."""
    made = [
        Example(name, source, 1.0, np.arange(n + 1, dtype=np.int32), np.arange(n + 1) > 0) for name, source, n in named
    ]
    return Tokens.of(made)


TRAIN = tokens_of(("aa", "x", 2), ("bb#1", "y", 3), ("bb#2", "y", 5), ("cc", "x", 4))
VAL = tokens_of(("dd", "y", 2))
NONE = tokens_of()


def rows_of(folder: Path) -> list[dict[str, Any]]:
    with pa.memory_map(str(folder / AFTER)) as source:
        return pyarrow.ipc.open_file(source).read_all().to_pylist()


def test_parts_of_a_record_are_one_row_and_what_was_not_measured_is_null(tmp_path: Path) -> None:
    before = Before(Losses.of(TRAIN, np.asarray([4.0, 9.0, 7.0, 8.0])), Losses.of(VAL, np.asarray([6.0])), 1.0)
    after = (Losses.of(TRAIN, np.asarray([2.0, 3.0, 5.0, 4.0])), None)
    seen = np.asarray([1, 2, 1, 0])
    write_records(RunFolder(tmp_path), train=TRAIN, val=VAL, before=before, after=after, seen=seen, replayed=NONE)
    columns = ("id", "source", "split", "n_target_tokens", "loss_before", "loss", "seen")
    assert [tuple(row[name] for name in columns) for row in rows_of(tmp_path)] == [
        ("aa", "x", "train", 2, 2.0, 1.0, 1),
        ("bb", "y", "train", 8, 2.0, 1.0, 2),
        ("cc", "x", "train", 4, 2.0, 1.0, 0),
        ("dd", "y", "val", 2, 3.0, None, 0),
    ]


def test_what_was_measured_before_is_read_back_exactly(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert read_before(folder, TRAIN, VAL) is None
    sums = np.random.default_rng(1).random(4)
    write_before(folder, Before(Losses.of(TRAIN, sums), None, 12.5))
    found = read_before(folder, TRAIN, VAL)
    assert found is not None
    assert found.train is not None
    assert (found.train.nll_sums.tolist(), found.val, found.seconds) == (sums.tolist(), None, 12.5)


@pytest.mark.parametrize("harm", ["truncated", "another run"])
def test_losses_that_are_not_of_this_run_are_refused_by_name(tmp_path: Path, harm: str) -> None:
    write_before(RunFolder(tmp_path), Before(Losses.of(TRAIN, np.ones(4)), None, 1.0))
    if harm == "truncated":
        held = (tmp_path / BEFORE).read_bytes()
        (tmp_path / BEFORE).write_bytes(held[: len(held) // 2])
    with pytest.raises(InputError, match=BEFORE):
        read_before(RunFolder(tmp_path), VAL if harm == "another run" else TRAIN, VAL)


def test_a_source_is_the_mean_over_its_targets() -> None:
    found = evaluation(3, Losses.of(TRAIN, np.asarray([4.0, 9.0, 7.0, 8.0])))
    assert (found.overall.records, found.overall.targets, found.overall.loss) == (4, 14, 2.0)
    assert {name: (s.records, s.loss) for name, s in found.by_source.items()} == {"x": (2, 2.0), "y": (2, 2.0)}
