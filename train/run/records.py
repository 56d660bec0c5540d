"""The loss of each record before and after a run: what it learnt, row by row.

`loss_before.arrow` is written before step 0, so that a resumed run need not measure it again; `records.arrow` when the
run ends, and goes to the store. A record that was split is one row: its parts are summed up.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc

from schemas.errors import InputError
from train.evaluation.losses import Losses
from train.run.folder import RunFolder, whole_file
from train.text.tokens import PART, Tokens

BEFORE, AFTER = "loss_before.arrow", "records.arrow"
SPLITS = ("train", "val")


@dataclass(frozen=True, slots=True, eq=False)
class Before:
    """The losses before step 0, None where a split was not measured, and the seconds that measuring took."""

    train: Losses | None
    val: Losses | None
    seconds: float


def write_before(folder: RunFolder, before: Before) -> None:
    """Write the sums of the examples in their order: those of train, then those of val."""
    sums = [[] if found is None else found.nll_sums for found in (before.train, before.val)]
    facts = {"seconds": str(before.seconds), **{s: str(len(of)) for s, of in zip(SPLITS, sums, strict=True)}}
    _write(folder, BEFORE, pa.table({"nll_sum": pa.array(np.concatenate(sums))}, metadata=facts))


def read_before(folder: RunFolder, train: Tokens, val: Tokens) -> Before | None:
    """Read what was written before step 0; None where nothing was. Raises InputError for another run's numbers."""
    path = folder.path / BEFORE
    if not path.is_file():
        return None
    try:
        with pa.memory_map(str(path)) as source:
            table = pyarrow.ipc.open_file(source).read_all()
        facts = {name.decode(): value.decode() for name, value in (table.schema.metadata or {}).items()}
        counts, seconds = [int(facts[split]) for split in SPLITS], float(facts["seconds"])
        sums = np.array(table["nll_sum"].to_numpy(), np.float64)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise _unreadable(path, str(error)) from error
    if any(n not in (0, len(of)) for n, of in zip(counts, (train, val), strict=True)) or sum(counts) != len(sums):
        raise _unreadable(path, f"losses of {counts} records, and the run has {[len(train), len(val)]}")
    of_train, of_val = sums[: counts[0]], sums[counts[0] :]
    return Before(
        Losses.of(train, of_train) if len(of_train) else None, Losses.of(val, of_val) if len(of_val) else None, seconds
    )


def _unreadable(path: Path, found: str) -> InputError:
    remedy = "remove it: the losses before training are then those of the base model, measured again"
    return InputError(str(path), f"cannot be read ({found})", "the file that a run writes", remedy)


def write_records(
    folder: RunFolder,
    *,
    train: Tokens,
    val: Tokens,
    before: Before,
    after: tuple[Losses | None, Losses | None],
    seen: npt.NDArray[np.int64],
    replayed: Tokens,
) -> None:
    """Write records.arrow: one row per record, of train with how often the run read it, then of val.

    The replayed records that were read follow, without losses: `seen` is of train's records and then of `replayed`.
    """
    unseen = np.zeros(len(val), np.int64)
    again = seen[len(train) :]
    table = pa.concat_tables(
        [
            _rows("train", train, before.train, after[0], seen[: len(train)]),
            _rows("val", val, before.val, after[1], unseen),
            _rows("replay", replayed.chosen(again > 0), None, None, again[again > 0]),
        ]
    )
    _write(folder, AFTER, table)


def _rows(
    split: str, examples: Tokens, before: Losses | None, after: Losses | None, seen: npt.NDArray[np.int64]
) -> Any:
    """Give the rows of a split in the order of their first parts."""
    rows: dict[str, int] = {}
    names = (str(name).partition(PART)[0] for name in examples.ids.to_pylist())
    row_of = np.fromiter((rows.setdefault(name, len(rows)) for name in names), np.int64, len(examples))
    ids = list(rows)
    targets = np.bincount(row_of, examples.targets, len(ids)).astype(np.int64)
    times = np.zeros(len(ids), np.int64)
    np.maximum.at(times, row_of, seen)
    sources = np.zeros(len(ids), np.int32)
    sources[row_of] = examples.source_of

    def means(losses: Losses | None) -> Any:
        if losses is None:
            return pa.nulls(len(ids), pa.float64())
        return pa.array(np.bincount(row_of, losses.nll_sums, len(ids)) / targets)

    return pa.table(
        {
            "id": pa.array(ids, pa.string()),
            "source": pa.array(examples.sources, pa.string()).take(pa.array(sources)),
            "split": pa.array([split] * len(ids), pa.string()),
            "n_target_tokens": pa.array(targets),
            "loss_before": means(before),
            "loss": means(after),
            "seen": pa.array(times),
        }
    )


def _write(folder: RunFolder, name: str, table: Any) -> None:
    if not folder.writes:
        return
    with whole_file(folder.path / name) as place, pyarrow.ipc.new_file(str(place), table.schema) as writer:
        writer.write_table(table)
