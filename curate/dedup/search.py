"""The search: of all rows of a dataset, which say the same, which contradict each other, which answer alike.

Rows are numbered from 0 through the shards of the dataset, then on through those of the other one (`--against`). They
are ranked by preference: the other dataset's rows, then source priority, fewer flags, longer answer, smaller id.
All of it is known before dedup runs, and none of it depends on the order of files or sources.
"""

from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
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

_EXCHANGE, _ASKED, _ANSWER = range(3)
_ROW_BYTES = 160
"""What a row costs besides the scratch: its place, rank, hashes and standing, and copies while they are sorted."""
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


def standing(shard: Shard, index: Index, config: DedupConfig, stage: str | None) -> Standing:
    """Read how the rows of a shard stand before a stage; after all of them, for the other dataset's: above all others.

    Reads: flags, kept.
    """
    order = {source: i for i, source in enumerate(config.source_priority)}
    priority = 0 if stage is None else 1 + order.get(shard.source, len(order))
    frame = (
        shard.view(["flags", "kept"], before_stage=stage)
        .select("kept", flags=pl.col("flags").list.len().fill_null(0).clip(upper_bound=0xFFFF))
        .collect()
    )
    flags = frame["flags"].to_numpy().astype(np.uint64)
    shorter = _LARGEST - index.column("answer_chars").astype(np.uint64)
    preference = (np.uint64(priority) << np.uint64(48)) | (flags << np.uint64(32)) | shorter
    return Standing(frame["kept"].to_numpy(), preference)


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

    def __post_init__(self) -> None:
        """Rank the judged rows."""
        judged = np.concatenate([s.judged for s in self.standings])
        rows = np.flatnonzero(judged)
        keys = [column_of(self.indexes, name)[rows] for name in ("id_lo", "id_hi")]
        keys.append(np.concatenate([s.preference for s in self.standings])[rows])
        self.row_of = rows[np.lexsort(keys)].astype(np.uint32)
        """By rank."""
        self.rows = Rows(self.texts, *(column_of(self.indexes, name) for name in ("key_hi", "key_lo", "tools")))
        self.own_rows = sum(len(s.judged) for s in self.standings[: self.own])
        self.fixed = int(judged[self.own_rows :].sum())
        self._room = max(1 << 26, int(self.config.memory * 1e9) - _ROW_BYTES * len(judged))

    @property
    def judged(self) -> list[int]:
        """How many rows of each of the dataset's own shards are judged."""
        return [int(s.judged.sum()) for s in self.standings[: self.own]]

    def run(self) -> Found:
        """Find duplicates; among the rows that stay, conflicts and equal answers."""
        how = RECORD if self.config.compare == "record" else FIELDS
        stars, buckets = self._stars(how, _EXCHANGE, self.row_of, self.fixed)
        members = self.row_of[buckets.ranks]
        duplicates = self._links(members, stars.star, stars.similarity)
        misses = self._links(members, np.where(stars.star == NONE, stars.missed, NONE), stars.miss)
        capped = stars.capped
        kept = np.ones(len(self.texts.segment), bool)
        kept[duplicates["row"].to_numpy()] = False
        kept[self.own_rows :] = False
        staying = self.row_of[kept[self.row_of]]
        found: list[pl.DataFrame] = []
        for how, part in ((PROMPT, _ASKED), (ANSWER, _ANSWER)):
            stars, buckets = self._stars(how, part, staying)
            found.append(self._links(staying[buckets.ranks], stars.star, stars.similarity))
            capped += stars.capped
        return Found(duplicates, *found, misses, capped)

    def _stars(self, how: int, part: int, row_of: NDArray[np.uint32], fixed: int = 0) -> tuple[Stars, Buckets]:
        columns = [partial(self._column, band_name(part, band), row_of) for band in range(self.bands)]
        if how in (FIELDS, RECORD):
            columns.append(partial(self._whole, row_of))
        scratch = Scratch(self._room, self.folder)
        buckets = find_buckets(columns, len(row_of), scratch, self.workers)
        stars = find_stars(
            how,
            self.config.threshold,
            self.config.ngram,
            self.rows,
            row_of[buckets.ranks],
            buckets,
            scratch,
            fixed=int(np.searchsorted(buckets.ranks, fixed)),
            progress=self._half(len(buckets.ranks)) if how in (FIELDS, RECORD) else no_progress,
        )
        return stars, buckets

    def _half(self, members: int) -> Progress:
        """Report half of the rows, bit by bit, while so many members are decided."""
        half = self.own_rows - sum(len(s.judged) // 2 for s in self.standings[: self.own])
        done = 0

        def decided(count: int) -> None:
            nonlocal done
            before, done = done, done + count
            self.progress(half * done // members - half * before // members)

        if not members:
            self.progress(half)
        return decided

    def _column(self, name: str, row_of: NDArray[np.uint32]) -> NDArray[np.uint32]:
        column = column_of(self.indexes, name)
        for index in self.indexes:
            index.let_go()
        return column[row_of]

    def _whole(self, row_of: NDArray[np.uint32]) -> NDArray[np.uint32]:
        return np.maximum(self.rows.key_hi[row_of] >> np.uint64(32), np.uint64(1)).astype(np.uint32)

    def _links(self, members: NDArray[np.uint32], star: NDArray[np.int32], level: NDArray[Any]) -> pl.DataFrame:
        went = np.flatnonzero(star != NONE)
        row, of = members[went], members[star[went]]
        exact = (self.rows.key_hi[row] == self.rows.key_hi[of]) & (self.rows.key_lo[row] == self.rows.key_lo[of])
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

    While it runs, it reports half of the dataset's rows as done; sketching them was the other half.
    """
    sides = [(shard, "dedup") for shard in dataset.shards]
    sides += [(shard, None) for shard in other.shards] if other else []
    standings = [standing(shard, index, config, stage) for (shard, stage), index in zip(sides, indexes, strict=True)]
    folder = dataset.root / "tmp"
    return Search(texts_of(sides), indexes, standings, len(dataset.shards), bands, config, folder, workers, progress)
