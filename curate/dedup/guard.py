"""The guard: stops dedup before it takes more of a dataset than anybody would expect."""

import math
from collections.abc import Sequence

import polars as pl

from schemas.config import DedupConfig
from schemas.dataset import Dataset, Shard
from schemas.errors import CheckFailedError, InputError

MOST_CLUSTERS = 5
"""Clusters that the error holds, the largest ones."""


class BlastRadiusError(CheckFailedError):
    """A cluster or a source would lose more than its share.

    `clusters`: the largest of them, as (kept row, rows that go); rows are numbered through the shards, then on through
    those of the other dataset. `duplicates`: the links of these clusters (`curate.dedup.search.LINKS`). `going`: rows
    that would go in all. `config` names the other dataset exactly. `curate.dedup.preview.stopped_by` reads the texts.
    """

    clusters: tuple[tuple[int, int], ...]
    duplicates: pl.DataFrame
    going: int
    shards: tuple[Shard, ...]
    config: DedupConfig


def guard(shards: Sequence[Shard], judged: Sequence[int], duplicates: pl.DataFrame, config: DedupConfig) -> None:
    """Raise BlastRadiusError where a source or a cluster loses more than the configuration allows.

    `judged`: how many rows of each shard were judged. Losses below `guard_rows` never stop.
    """
    links = duplicates.with_columns(source=sources_of(shards, duplicates["row"]))
    lost: dict[str, int] = dict(links.group_by("source").len().iter_rows())
    rows: dict[str, int] = {}
    for shard, count in zip(shards, judged, strict=True):
        rows[shard.source] = rows.get(shard.source, 0) + count

    def too_many(going: int, of: int, limit: float) -> bool:
        return going >= config.guard_rows and going / of > limit  # a product would turn 29 of 100 into more than 0.29

    found: list[str] = []
    ways: list[str] = []
    there = pl.lit(value=True)
    if sources := sorted(name for name in lost if too_many(lost[name], rows[name], config.max_source_loss)):
        found += [f"source {name} would lose {lost[name]:,} of {rows[name]:,} rows" for name in sources]
        ways.append(_way("max_source_loss", max(lost[name] / rows[name] for name in sources)))
        there = pl.col("source").is_in(sources)
    clusters = links.group_by("of").agg(size=pl.len(), there=there.sum())
    most, total = max(clusters["size"].to_list(), default=0), sum(judged)
    if too_many(most, total, config.max_cluster_loss):
        found.append(f"one cluster would lose {most:,} of {total:,} rows")
        ways.append(_way("max_cluster_loss", most / total))
        clusters = clusters.with_columns(there="size")
    if not found:
        return
    error = BlastRadiusError(
        "dedup",
        "; ".join(found),
        f"at most {_percent(config.max_source_loss)} of a source and {_percent(config.max_cluster_loss)} of all rows "
        "by one cluster",
        f"if they may go, give {' and '.join(ways)}",
    )
    clusters = clusters.sort("there", "size", "of", descending=[True, True, False]).head(MOST_CLUSTERS)
    error.clusters = tuple(clusters.select("of", "size").iter_rows())
    error.duplicates = duplicates.filter(pl.col("of").is_in(clusters["of"].implode()))
    error.going, error.shards, error.config = duplicates.height, tuple(shards), config
    raise error


def check_rows(dataset: Dataset) -> None:
    """Raise InputError where dedup has nothing to compare. A recipe runs its stages over no rows; a person asks why."""
    kept = dataset.scan(["kept"], before_stage="dedup").select(pl.col("kept").cast(pl.Boolean).sum())
    if not kept.collect().item():
        name = f"{dataset.manifest.name}@{dataset.manifest.seq}"
        found = f"no row to compare: all {dataset.rows:,} are rejected" if dataset.rows else "no rows"
        raise InputError(f"dedup, {name}", found, "at least one row that is kept", f"see why with `sft show {name}`")


def sources_of(shards: Sequence[Shard], rows: pl.Series) -> pl.Series:
    """Give the source of each row, by its number through the shards."""
    ends = pl.Series([shard.rows for shard in shards], dtype=pl.Int64).cum_sum()
    names = pl.Series([shard.source for shard in shards], dtype=pl.String)
    return names.gather(ends.search_sorted(rows.cast(pl.Int64), side="right"))


def _percent(share: float) -> str:
    return f"{100 * share:g}%"


def _way(field: str, share: float) -> str:
    """Name the way to allow a loss: on the command line, and in a recipe."""
    enough = math.ceil(share * 1000) / 1000
    return f"--{field.replace('_', '-')} {enough:g} (in a recipe: {field} = {enough:g} under [dedup])"
