"""Clusters: near-duplicates that are born, gone, merged, split, grown or shrunk, and clusters that leak.

A cluster is named by the row of it that stays, and so may change its name without changing otherwise; it is followed by
its rows. Clusters of two versions are related where they share a row:

    born, gone      related to none            merged, split   related to several before, to several after
    grown, shrunk   related to one, which is smaller, or larger; changed: as large, with other rows
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Literal, get_args

import polars as pl

from curate.diff.account import ClusterChange, Leak
from schemas.dataset import Dataset

SHOWN = 50
"""Clusters of each kind that are told row by row."""
SHOWN_ROWS = 20
"""Rows of a cluster that are named."""

Kind = Literal["merged", "split", "born", "gone", "grown", "shrunk", "changed"]
_KINDS: tuple[Kind, ...] = get_args(Kind)
_MEMBERS = pl.Schema(
    {"id": pl.String, "place": pl.String, "cluster": pl.String, "kept": pl.Boolean, "split": pl.String}
)


def cluster_changes(before: Dataset, after: Dataset) -> tuple[dict[str, int], tuple[ClusterChange, ...]]:
    """Count the clusters that are not what they were, by kind, and tell some of each (`SHOWN`), the largest first.

    Nothing where one of the versions has not been searched for duplicates. Reads: cluster_id, id, source, source_row.
    """
    if not all(dataset.manifest.stage("dedup") for dataset in (before, after)):
        return dict.fromkeys(_KINDS, 0), ()
    old, new = (members(dataset, "cluster_id").select("id", "place", "cluster") for dataset in (before, after))
    found = relate(old, new)
    counts = Counter(change.kind for change in found)
    chosen = [change for _, same in groupby(found, key=lambda c: c.kind) for change in islice(same, SHOWN)]
    rows_of = (
        _rows(old, {c for change in chosen for c in change.old}),
        _rows(new, {c for change in chosen for c in change.new}),
    )
    examples: list[ClusterChange] = []
    for c in chosen:
        rows = {
            row for part, names in zip(rows_of, (c.old, c.new), strict=True) for name in names for row in part[name]
        }
        examples.append(ClusterChange(c.kind, c.before, c.after, tuple(sorted(rows)[:SHOWN_ROWS])))
    return {kind: counts[kind] for kind in _KINDS}, tuple(examples)


@dataclass(frozen=True)
class Change:
    """A change of clusters: rows before and after, and the clusters' names before and after."""

    kind: Kind
    before: int
    after: int
    old: tuple[str, ...]
    new: tuple[str, ...]


def relate(old: pl.DataFrame, new: pl.DataFrame) -> list[Change]:
    """Relate the clusters of two versions by the rows that they share; those that are alike are left out.

    By kind, the largest first. Reads: id, cluster.
    """
    links = old.join(new, on="id", suffix="_after").group_by("cluster", "cluster_after").len("shared")
    sizes = [dict(side.group_by("cluster").len().iter_rows()) for side in (old, new)]
    order = sorted(_related(links, *sizes), key=lambda c: (c.old, c.new))
    return sorted(order, key=lambda c: (_KINDS.index(c.kind), -max(c.before, c.after)))


def _related(links: pl.DataFrame, old: Mapping[str, int], new: Mapping[str, int]) -> Iterator[Change]:
    """Name the changes. Reads: cluster, cluster_after, shared (rows that both have)."""
    forward: dict[str, list[str]] = {}
    back: dict[str, list[str]] = {}
    shared: dict[tuple[str, str], int] = {}
    for a, b, n in links.sort("cluster", "cluster_after").iter_rows():
        forward.setdefault(a, []).append(b)
        back.setdefault(b, []).append(a)
        shared[a, b] = n
    yield from (Change("gone", n, 0, (a,), ()) for a, n in old.items() if a not in forward)
    yield from (Change("born", 0, n, (), (b,)) for b, n in new.items() if b not in back)
    for b, those in back.items():
        if len(those) > 1:
            yield Change("merged", sum(old[a] for a in those), new[b], tuple(those), (b,))
    for a, those in forward.items():
        if len(those) > 1:
            yield Change("split", old[a], sum(new[b] for b in those), (a,), tuple(those))
        elif len(back[those[0]]) == 1 and not old[a] == new[those[0]] == shared[a, those[0]]:
            sizes = old[a], new[those[0]]
            kind = "grown" if sizes[0] < sizes[1] else "shrunk" if sizes[0] > sizes[1] else "changed"
            yield Change(kind, *sizes, (a,), tuple(those))


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
