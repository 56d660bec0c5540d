"""The loss of each record before and after a run: what it learnt, row by row.

`loss_before.arrow` is written before step 0, so that a resumed run need not measure it again; `records.arrow` when the
run ends, and goes to the store. A record that was split is one row: its parts are summed up.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from schemas.errors import InputError
from train.evaluation.losses import Losses
from train.run.folder import RunFolder, whole_file
from train.text.tokens import PART, Tokens

BEFORE, AFTER = "loss_before.arrow", "records.arrow"
SPLITS = ("train", "val")
SECONDS = b"seconds"


@dataclass(frozen=True, slots=True, eq=False)
class Before:
    """The losses before step 0, None where a split was not measured, and the seconds that measuring took."""

    train: Losses | None
    val: Losses | None
    seconds: float


def write_before(folder: RunFolder, before: Before) -> None:
    """Write the sums of all examples in their order."""
    parts = [
        pa.table({"split": pa.array([split] * len(found), pa.string()), "nll_sum": pa.array(found.nll_sums)})
        for split, found in zip(SPLITS, (before.train, before.val), strict=True)
        if found is not None
    ]
    schema = pa.schema([("split", pa.string()), ("nll_sum", pa.float64())])
    table = pa.concat_tables([schema.empty_table(), *parts])
    _write(folder.path / BEFORE, table.replace_schema_metadata({SECONDS: str(before.seconds).encode()}))


def read_before(folder: RunFolder, train: Tokens, val: Tokens) -> Before | None:
    """Read what was written before step 0; None where nothing was. Raises InputError for another run's numbers."""
    path = folder.path / BEFORE
    if not path.is_file():
        return None
    try:
        with pa.memory_map(str(path)) as source:
            table = pyarrow.ipc.open_file(source).read_all()
        found: list[Losses | None] = []
        for split, examples in zip(SPLITS, (train, val), strict=True):
            sums = table.filter(pc.equal(table["split"], split))["nll_sum"].to_numpy()
            if len(sums) not in (0, len(examples)):
                raise ValueError(f"{len(sums)} records of split {split}, and the run has {len(examples)}")
            found.append(Losses.of(examples, sums.copy()) if len(sums) else None)
        seconds = float((table.schema.metadata or {})[SECONDS])
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        remedy = "remove it: the losses before training are then those of the run as it stands"
        raise InputError(str(path), f"cannot be read ({error})", "the file that a run writes", remedy) from error
    return Before(*found, seconds)


def write_records(
    folder: RunFolder,
    *,
    train: Tokens,
    val: Tokens,
    before: Before,
    after: tuple[Losses | None, Losses | None],
    seen: npt.NDArray[np.int64],
) -> None:
    """Write records.arrow: one row per record, of train with how often the run read it, then of val."""
    unseen = np.zeros(len(val), np.int64)
    table = pa.concat_tables(
        [
            _rows("train", train, before.train, after[0], seen),
            _rows("val", val, before.val, after[1], unseen),
        ]
    )
    _write(folder.path / AFTER, table)


def _rows(
    split: str, examples: Tokens, before: Losses | None, after: Losses | None, seen: npt.NDArray[np.int64]
) -> pa.Table:
    """Give the rows of a split in the order of their first parts."""
    names = pc.list_element(pc.split_pattern(examples.ids, PART), 0) if len(examples) else examples.ids
    coded = pc.dictionary_encode(names)
    row_of, ids = coded.indices.to_numpy(), coded.dictionary
    targets = np.bincount(row_of, examples.targets, len(ids)).astype(np.int64)
    times = np.zeros(len(ids), np.int64)
    np.maximum.at(times, row_of, seen)
    sources = np.zeros(len(ids), np.int32)
    sources[row_of] = examples.source_of

    def means(losses: Losses | None) -> pa.Array:
        if losses is None:
            return pa.nulls(len(ids), pa.float64())
        return pa.array(np.bincount(row_of, losses.nll_sums, len(ids)) / targets)

    return pa.table(
        {
            "id": pc.cast(ids, pa.string()),
            "source": pa.array(examples.sources, pa.string()).take(pa.array(sources)),
            "split": pa.array([split] * len(ids), pa.string()),
            "n_target_tokens": pa.array(targets),
            "loss_before": means(before),
            "loss": means(after),
            "seen": pa.array(times),
        }
    )


def _write(path: Path, table: pa.Table) -> None:
    with whole_file(path) as place, pyarrow.ipc.new_file(str(place), table.schema) as writer:
        writer.write_table(table)
