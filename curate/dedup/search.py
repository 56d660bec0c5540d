"""The search: of all rows of a dataset, which say the same, which contradict each other, which answer alike.

Rows are numbered from 0 through the shards of the dataset, then on through those of the other one (`--against`). They
are ranked by preference: the other dataset's rows, then source priority, fewer flags, longer answer, smaller id.
All of it is known before dedup runs, and none of it depends on the order of files or sources.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.dedup.bucket import NONE, Buckets, find_buckets
from curate.dedup.cluster import Rows, Stars, find_stars
from curate.dedup.compare import ANSWER, FIELDS, PROMPT, RECORD
from curate.dedup.index import Index, band_name, column_of
from curate.dedup.scratch import Scratch
from curate.dedup.texts import Texts, texts_of
from curate.stage import Progress, no_progress
from schemas.config import DedupConfig
from schemas.dataset import Dataset, Shard

LINKS = pl.Schema({"row": pl.UInt32, "of": pl.UInt32, "jaccard": pl.Float64, "exact": pl.Boolean})
"""`row` goes with `of`, a row that is kept: how alike they are, and whether they say the same word for word."""

PARTS_OF = {FIELDS: 0, RECORD: 0, PROMPT: 1, ANSWER: 2}
"""Which sketch finds the candidates of each comparison: `curate.dedup.sketch.PARTS`."""

_ROW_BYTES = 160
"""What a row costs besides the scratch: its place, rank, hashes and standing, and copies while they are sorted."""
_LEAST_ROOM = 1 << 26
_LARGEST = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True)
class Found:
    """What the search found, as links between rows.

    `misses` are pairs of kept rows whose records come near the threshold, or reach it while another part does not.
    `capped`: rows that had more look-alikes than are compared.
    """

    duplicates: pl.DataFrame
    conflicts: pl.DataFrame
    answers: pl.DataFrame
    misses: pl.DataFrame
    capped: int

    def named(self) -> pl.Series:
        """Give the rows that the opinions name."""
        return pl.concat([links["of"] for links in (self.duplicates, self.conflicts, self.answers)])


@dataclass(frozen=True)
class Standing:
    """How a row stands before dedup, by row: whether it is judged, and its preference (the smaller, the better).

    `preference` is a number made of source priority, number of flags and length of the answer; the id decides ties.
    """

    judged: NDArray[np.bool_]
    preference: NDArray[np.uint64]


def workers_of(limit: int | None = None) -> Executor:
    """Give as many threads as polars uses; compiled code and sorting run side by side in them."""
    return ThreadPoolExecutor(limit or pl.thread_pool_size())


def standings(
    sides: Sequence[tuple[Shard, str | None]], indexes: Sequence[Index], config: DedupConfig
) -> list[Standing]:
    """Read how the rows of shards stand, each before a stage; the other dataset's, after all stages, above all others.

    Reads: flags, kept.
    """
    order = {source: i for i, source in enumerate(config.source_priority)}
    flags = pl.col("flags").list.len().fill_null(0).clip(upper_bound=0xFFFF)
    frames = pl.collect_all(
        shard.view(["flags", "kept"], before_stage=stage).select("kept", flags=flags) for shard, stage in sides
    )
    found: list[Standing] = []
    for (shard, stage), index, frame in zip(sides, indexes, frames, strict=True):
        priority = 0 if stage is None else 1 + order.get(shard.source, len(order))
        shorter = _LARGEST - index.column("answer_chars").astype(np.uint64)
        flagged = frame["flags"].to_numpy().astype(np.uint64) << np.uint64(32)
        found.append(Standing(frame["kept"].to_numpy(), (np.uint64(priority) << np.uint64(48)) | flagged | shorter))
    return found


@dataclass
class Search:
    """The rows of a dataset, and of the other one after them, ready to be searched."""

    texts: Texts
    indexes: Sequence[Index]
    standings: Sequence[Standing]
    own: int
    """How many of the indexes and standings, the first ones, are the dataset's own."""
    bands: int
    config: DedupConfig
    folder: Path
    """Where working space goes that memory has no room for."""
    workers: Executor
    progress: Progress
    rest: int
    """Rows that are not reported as done yet."""

    @cached_property
    def judged_rows(self) -> NDArray[np.bool_]:
        """Whether each row is judged."""
        return np.concatenate([s.judged for s in self.standings])

    @cached_property
    def own_rows(self) -> int:
        """How many rows the dataset itself has."""
        return sum(len(s.judged) for s in self.standings[: self.own])

    @cached_property
    def _preference(self) -> NDArray[np.uint64]:
        return np.concatenate([s.preference for s in self.standings])

    @cached_property
    def _rows(self) -> Rows:
        columns = [column_of(self.indexes, name) for name in ("words", "key_hi", "key_lo", "tools")]
        return Rows(self.texts, columns[0], columns[1], columns[2], columns[3])

    @property
    def judged(self) -> list[int]:
        """How many rows of each of the dataset's own shards are judged."""
        return [int(s.judged.sum()) for s in self.standings[: self.own]]

    def run(self) -> Found:
        """Find duplicates; among the rows that stay, conflicts and equal answers."""
        judged = np.flatnonzero(self.judged_rows)
        row_of = judged[self.order(judged)].astype(np.uint32)
        fixed = int(self.judged_rows[self.own_rows :].sum())
        how = RECORD if self.config.compare == "record" else FIELDS
        stars, buckets = self._stars(how, row_of, fixed)
        members = row_of[buckets.ranks]
        duplicates = self._links(members, stars.star, stars.similarity)
        misses = self._links(members, np.where(stars.star == NONE, stars.missed, NONE), stars.miss)
        capped = stars.capped
        kept = np.ones(len(self.texts.segment), bool)
        kept[duplicates["row"].to_numpy()] = False
        kept[self.own_rows :] = False
        staying = row_of[kept[row_of]]
        found: list[pl.DataFrame] = []
        for how in (PROMPT, ANSWER):
            stars, buckets = self._stars(how, staying)
            found.append(self._links(staying[buckets.ranks], stars.star, stars.similarity))
            capped = max(capped, stars.capped)
        return Found(duplicates, found[0], found[1], misses, capped)

    def order(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give the places of rows in the order of preference."""
        keys = [self.take(name, rows) for name in ("id_lo", "id_hi")]
        return np.lexsort([*keys, self._preference[rows]])

    def take(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Give a column of the indexes for some rows."""
        order = np.argsort(rows, kind="stable")
        ends = np.searchsorted(rows[order], np.cumsum([index.rows for index in self.indexes]))
        parts = [
            index.column(name)[rows[order[start:end]] - first]
            for (first, index), start, end in zip(self.numbered(), [0, *ends[:-1]], ends, strict=True)
            if start < end or not first
        ]
        taken = np.concatenate(parts)
        given = np.empty_like(taken)
        given[order] = taken
        return given

    def numbered(self) -> Iterator[tuple[int, Index]]:
        """Give every index, and the number of its first row."""
        first = 0
        for index in self.indexes:
            yield first, index
            first += index.rows

    def _stars(self, how: int, row_of: NDArray[np.uint32], fixed: int = 0) -> tuple[Stars, Buckets]:
        columns = [partial(self._column, band_name(PARTS_OF[how], band), row_of) for band in range(self.bands)]
        if how in (FIELDS, RECORD):
            columns.append(partial(self._whole, row_of))
        room = int(self.config.memory * 1e9) - _ROW_BYTES * len(self.judged_rows)
        scratch = Scratch(max(_LEAST_ROOM, room), self.folder)
        buckets = find_buckets(columns, len(row_of), scratch, self.workers)
        stars = find_stars(
            how,
            self.config,
            self._rows,
            row_of[buckets.ranks],
            buckets,
            scratch,
            self.workers,
            fixed=int(np.searchsorted(buckets.ranks, fixed)),
            progress=self._half(len(buckets.ranks)) if how in (FIELDS, RECORD) else no_progress,
        )
        return stars, buckets

    def _half(self, members: int) -> Progress:
        """Report the rows that are left, bit by bit, while so many members are decided."""
        half = self.rest
        done = 0

        def decided(count: int) -> None:
            nonlocal done
            before, done = done, done + count
            share = half * done // members - half * before // members
            self.rest -= share
            self.progress(share)

        return decided

    def _column(self, name: str, row_of: NDArray[np.uint32]) -> NDArray[np.uint32]:
        return column_of(self.indexes, name)[row_of]

    def _whole(self, row_of: NDArray[np.uint32]) -> NDArray[np.uint32]:
        return np.maximum(self._rows.key_hi[row_of] >> np.uint64(32), np.uint64(1)).astype(np.uint32)

    def _links(self, members: NDArray[np.uint32], star: NDArray[np.int32], level: NDArray[Any]) -> pl.DataFrame:
        went = np.flatnonzero(star != NONE)
        row, of = members[went], members[star[went]]
        exact = (self._rows.key_hi[row] == self._rows.key_hi[of]) & (self._rows.key_lo[row] == self._rows.key_lo[of])
        columns = {"row": row, "of": of, "jaccard": level[went].astype(np.float64), "exact": exact}
        return pl.DataFrame(columns, schema=LINKS).sort("row")


def prepared(
    dataset: Dataset,
    other: Dataset | None,
    indexes: Sequence[Index],
    config: DedupConfig,
    *,
    bands: int,
    workers: Executor,
    progress: Progress = no_progress,
) -> Search:
    """Make a search ready. `indexes`: of the dataset's shards, then of the other one's.

    While it runs, it reports half of the dataset's rows as done; sketching them was the other half. `rest` is what it
    has not reported yet.
    """
    sides = [(shard, "dedup") for shard in dataset.shards]
    sides += [(shard, None) for shard in other.shards] if other else []
    folder = dataset.root / "tmp"
    rest = dataset.rows - sum(shard.rows // 2 for shard in dataset.shards)
    own = len(dataset.shards)
    stood = standings(sides, indexes, config)
    return Search(texts_of(sides), indexes, stood, own, bands, config, folder, workers, progress, rest)
