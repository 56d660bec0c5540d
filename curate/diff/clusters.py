"""Clusters: near-duplicates that are born, gone, merged, split, grown or shrunk, and clusters that leak.

A cluster is named by the row of it that stays, and so may change its name without changing otherwise; it is followed by
its rows. Clusters of two versions are related where they share a row:

    born, gone      related to none            merged, split   related to several before, to several after
    grown, shrunk   related to one, which is smaller, or larger; changed: as large, with other rows
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import polars as pl

from curate.diff.account import ClusterChange, Leak
from schemas.dataset import Dataset

SHOWN = 50
"""Clusters of each kind that are told row by row."""
SHOWN_ROWS = 20
"""Rows of a cluster that are named."""

_KINDS = ("merged", "split", "born", "gone", "grown", "shrunk", "changed")
_MEMBERS = pl.Schema({"id": pl.String, "place": pl.String, "cluster": pl.String, "kept": pl.Boolean, "split": pl.String})


def cluster_changes(before: Dataset, after: Dataset) -> tuple[dict[str, int], tuple[ClusterChange, ...]]:
    """Count the clusters that are not what they were, by kind, and tell some of each (`SHOWN`), the largest first.

    Nothing where one of the versions has not been searched for duplicates. Reads: cluster_id, id, source, source_row.
    """
    if not all(dataset.manifest.stage("dedup") for dataset in (before, after)):
        return dict.fromkeys(_KINDS, 0), ()
    old, new = (members(dataset, "cluster_id").select("id", "place", "cluster") for dataset in (before, after))
    links = old.join(new, on="id", suffix="_after").group_by("cluster", "cluster_after").len("shared")
    sizes = [dict(side.group_by("cluster").len().iter_rows()) for side in (old, new)]
    told = sorted(_related(links, *sizes), key=lambda c: (_KINDS.index(c[0]), -max(c[1], c[2]), c[3], c[4]))
    counts = Counter(kind for kind, *_ in told)
    shown: Counter[str] = Counter()
    chosen: list[tuple[str, int, int, list[str], list[str]]] = []
    for change in told:
        shown[change[0]] += 1
        if shown[change[0]] <= SHOWN:
            chosen.append(change)
    named = [_rows(side, {c for change in chosen for c in change[i]}) for i, side in ((3, old), (4, new))]
    examples: list[ClusterChange] = []
    for kind, before_rows, after_rows, mine, other in chosen:
        rows = sorted({row for i, side in enumerate((mine, other)) for c in side for row in named[i].get(c, ())})
        examples.append(ClusterChange(kind, before_rows, after_rows, tuple(rows[:SHOWN_ROWS])))  # pyright: ignore[reportArgumentType] # one of _KINDS
    return {kind: counts[kind] for kind in _KINDS}, tuple(examples)


def _related(
    links: pl.DataFrame, old: Mapping[str, int], new: Mapping[str, int]
) -> Iterator[tuple[str, int, int, list[str], list[str]]]:
    """Give each change: its kind, rows before and after, the clusters before and after."""
    forward: dict[str, list[str]] = {}
    back: dict[str, list[str]] = {}
    shared: dict[tuple[str, str], int] = {}
    for a, b, n in links.sort("cluster", "cluster_after").iter_rows():
        forward.setdefault(a, []).append(b)
        back.setdefault(b, []).append(a)
        shared[a, b] = n
    yield from (("gone", n, 0, [a], []) for a, n in old.items() if a not in forward)
    yield from (("born", 0, n, [], [b]) for b, n in new.items() if b not in back)
    for b, those in back.items():
        if len(those) > 1:
            yield "merged", sum(old[a] for a in those), new[b], those, [b]
    for a, those in forward.items():
        if len(those) > 1:
            yield "split", old[a], sum(new[b] for b in those), [a], those
        elif len(back[those[0]]) == 1 and not old[a] == new[those[0]] == shared[a, those[0]]:
            sizes = old[a], new[those[0]]
            kind = "grown" if sizes[0] < sizes[1] else "shrunk" if sizes[0] > sizes[1] else "changed"
            yield kind, *sizes, [a], those


def _rows(side: pl.DataFrame, clusters: set[str]) -> dict[str, list[tuple[str, str]]]:
    chosen = side.filter(pl.col("cluster").is_in(list(clusters))).sort("id")
    found: dict[str, list[tuple[str, str]]] = {}
    for row, place, cluster in chosen.select("id", "place", "cluster").iter_rows():
        found.setdefault(cluster, []).append((row, place))
    return found


def members(dataset: Dataset, column: str, *, kept: bool = False) -> pl.DataFrame:
    """Give the rows that have a cluster; with `kept`, of the kept ones alone. Adds: id, place, cluster, kept, split."""
    reads = ["id", "source", "source_row", column, "kept", "split"]
    parts: Iterable[pl.LazyFrame] = (
        shard.view(reads)
        .filter(pl.col(column).is_not_null() & (pl.col("kept") if kept else pl.lit(value=True)))
        .select(
            "id",
            pl.format("{}:{}", "source", "source_row").alias("place"),
            pl.col(column).alias("cluster"),
            "kept",
            "split",
        )
        for shard in dataset.shards
        if "dedup" in shard.annotations
    )
    return pl.concat([pl.DataFrame(schema=_MEMBERS), *pl.collect_all(parts)])


def leaks(dataset: Dataset) -> tuple[Leak, ...]:
    """Find what stands on both sides: kept rows in train and in val or test that are near-duplicates, or that ask the
    same (`conflict_id`). There must be none.

    Reads: cluster_id, conflict_id, id, source, source_row, kept, split.
    """
    found: dict[tuple[tuple[str, str, str], ...], str] = {}
    for column in ("cluster_id", "conflict_id"):
        rows = members(dataset, column, kept=True).drop_nulls("split")
        train = pl.col("split") == "train"
        torn = rows.filter(train.any().over("cluster") & (~train).any().over("cluster")).sort("cluster", "split", "id")
        for (cluster,), own in torn.group_by("cluster", maintain_order=True):
            found.setdefault(tuple(own.select("id", "place", "split").iter_rows()), str(cluster))
    return tuple(Leak(cluster, rows) for rows, cluster in found.items())
