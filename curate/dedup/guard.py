"""The guard: stops dedup before it takes more of a dataset than anybody would expect."""

from collections.abc import Sequence

import polars as pl

from schemas.config import DedupConfig
from schemas.dataset import Shard
from schemas.errors import CheckFailedError


class BlastRadiusError(CheckFailedError):
    """A cluster or a source would lose more than its share. `clusters`: the largest, as (kept row, rows that go)."""

    clusters: tuple[tuple[int, int], ...] = ()


def guard(shards: Sequence[Shard], judged: Sequence[int], duplicates: pl.DataFrame, config: DedupConfig) -> None:
    """Raise BlastRadiusError where a source or a cluster loses more than the configuration allows.

    `judged`: how many rows of each shard were judged. Losses below `guard_rows` never stop.
    """
    ends = pl.Series([s.rows for s in shards], dtype=pl.Int64).cum_sum()
    shard_of = ends.search_sorted(duplicates["row"].cast(pl.Int64), side="right")
    lost_of = shard_of.value_counts().rows() if len(shard_of) else []
    by_number: dict[int, int] = dict(lost_of)
    rows: dict[str, int] = {}
    lost: dict[str, int] = {}
    for number, shard in enumerate(shards):
        rows[shard.source] = rows.get(shard.source, 0) + judged[number]
        lost[shard.source] = lost.get(shard.source, 0) + by_number.get(number, 0)
    found = [
        f"source {name} would lose {lost[name]:,} of {rows[name]:,} rows"
        for name in rows
        if lost[name] >= config.guard_rows and lost[name] > config.max_source_loss * rows[name]
    ]
    clusters = duplicates.group_by("of").len("lost").sort("lost", "of", descending=[True, False]).head(5)
    total = sum(judged)
    most = int(clusters["lost"][0]) if clusters.height else 0
    if most >= config.guard_rows and most > config.max_cluster_loss * total:
        found.append(f"one cluster would lose {most:,} of {total:,} rows")
    if not found:
        return
    source, cluster = f"{config.max_source_loss:.0%}", f"{config.max_cluster_loss:.0%}"
    error = BlastRadiusError(
        "dedup",
        "; ".join(found),
        f"at most {source} of a source and {cluster} of all rows by one cluster",
        "look at the clusters with --preview; to allow it, raise --max-source-loss or --max-cluster-loss",
    )
    error.clusters = tuple((int(of), int(n)) for of, n in clusters.iter_rows())
    raise error
