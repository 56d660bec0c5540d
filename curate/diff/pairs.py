"""Pairs: the rows that two versions both have, side by side, so that what is said of them can be compared.

Shards with the same text stand row by row. The other shards of a source (another ingest) are brought together by id; of
them, positions are held, and the columns that are asked for, one stage at a time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schemas.dataset import Dataset, Shard

Positions = NDArray[np.uint32]


@dataclass(frozen=True)
class Pair:
    """Shards before and after, and the rows that both have. `at` gives their positions; None: every row, in order."""

    before: tuple[Shard, ...]
    after: tuple[Shard, ...]
    at: tuple[Positions, Positions] | None = None

    def columns(
        self, columns: Sequence[str | pl.Expr], *, reads: Sequence[str] | None = None, before_stage: str | None = None
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Give columns of the rows that both have, before and after, in the same order (see `Shard.view`).

        `reads` names the columns of the view that expressions are made of.
        """
        names = list(reads) if reads is not None else [c for c in columns if isinstance(c, str)]
        frames: list[pl.DataFrame] = []
        for i, shards in enumerate((self.before, self.after)):
            parts = [s.view(names, before_stage=before_stage).select(columns).collect() for s in shards]
            frame = pl.concat(parts)
            frames.append(frame if self.at is None else frame.select(pl.all().gather(self.at[i])))
        return frames[0], frames[1]

    def both_ran(self, stage: str) -> bool:
        """Whether a stage has said something in both versions."""
        return all(stage in shard.annotations for shard in (*self.before, *self.after))

    def alike(self, stage: str) -> bool:
        """Whether both hold the very same object of a stage, so that nothing need be read."""
        if self.at is not None:
            return False
        mine, other = self.before[0].annotations, self.after[0].annotations
        return mine.get(stage) == other.get(stage)


def pairs(before: Dataset, after: Dataset) -> tuple[Pair, ...]:
    """Pair the shards of two versions. Reads: id, of shards whose text objects only one version has."""
    old, new = ({shard.text.stem: shard for shard in dataset.shards} for dataset in (before, after))
    shared = [Pair((old.pop(text),), (new.pop(text),)) for text in [*old] if text in new]
    left = [_by_source(shards.values()) for shards in (old, new)]
    matched = (_matched(left[0][source], left[1][source]) for source in left[0] if source in left[1])
    return (*shared, *(pair for pair in matched if pair))


def _by_source(shards: Iterable[Shard]) -> dict[str, tuple[Shard, ...]]:
    found: dict[str, tuple[Shard, ...]] = {}
    for shard in shards:
        found[shard.source] = (*found.get(shard.source, ()), shard)
    return found


def _matched(before: tuple[Shard, ...], after: tuple[Shard, ...]) -> Pair | None:
    """Match the shards of a source by id, which its name is a part of; None where no row is in both."""
    keys = [_keys(shards) for shards in (before, after)]
    found = keys[0].join(keys[1], on=["high", "low"], how="inner", suffix="_after", maintain_order="left")
    return Pair(before, after, (found["row"].to_numpy(), found["row_after"].to_numpy())) if found.height else None


def _keys(shards: Sequence[Shard]) -> pl.DataFrame:
    """Give the ids of rows as two halves of 64 bits, a quarter of their text. Adds: row (in all shards)."""
    half = [pl.col("id").str.slice(n, 16).str.to_integer(base=16, dtype=pl.UInt64) for n in (0, 16)]
    ids = [shard.view(["id"]).select(high=half[0], low=half[1]).collect() for shard in shards]
    return pl.concat(ids).with_row_index("row")
