"""Reviews: what became of people's decisions from one version to the other."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, get_args

import polars as pl

from curate.diff.account import ReviewChange
from schemas.dataset import Dataset

Kind = Literal["carried", "new", "changed", "gone", "stale"]
STALE = "stale"
"""The status of a review of a text that the row does not have any more."""

_KINDS: tuple[Kind, ...] = get_args(Kind)
_READS = ("id", "source", "source_row", "override", "review_status", "corrected_by", "reviewers")


def review_changes(before: Dataset, after: Dataset) -> tuple[dict[str, int], tuple[ReviewChange, ...]]:
    """Count decisions by what became of them, and tell all but those that were carried over.

    carried: the same decision; new, changed, gone; stale: the row's text is another one than people saw, so that what
    they said is kept, and decides nothing.

    Reads: override, review_status, corrected_by, reviewers.
    """
    old, new = (_decisions(dataset) for dataset in (before, after))
    counts: Counter[str] = Counter()
    told: list[ReviewChange] = []
    for row in sorted({*old, *new}, key=lambda r: (new.get(r) or old[r])["place"]):
        mine, other = old.get(row), new.get(row)
        kind = _kind(mine, other)
        counts[kind] += 1
        if kind == "carried":
            continue
        latest = other or mine or {}
        words = [one["decision"] if one else None for one in (mine, other)]
        told.append(ReviewChange(row, latest["place"], kind, words[0], words[1], tuple(latest["reviewers"] or ())))
    told.sort(key=lambda change: _KINDS.index(change.kind))
    return {kind: counts[kind] for kind in _KINDS}, tuple(told)


def _kind(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> Kind:
    """Name what became of a decision."""
    if old is None:
        return "new"
    if new is None:
        return "gone"
    if old["decision"] == new["decision"]:
        return "carried"
    return "stale" if new["decision"] == STALE else "changed"


def _decisions(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Give what was decided, by row. A decision in a word: rejected, corrected, kept; else how the review stands."""
    rejected, kept = pl.col("override") == "reject", pl.col("override") == "keep"
    decided = kept | (pl.col("review_status") == "decided")
    word = (
        pl.when(rejected)
        .then(pl.lit("rejected"))
        .when(pl.col("corrected_by").is_not_null())
        .then(pl.lit("corrected"))
        .when(decided)
        .then(pl.lit("kept"))
        .otherwise("review_status")
    )
    found: dict[str, dict[str, Any]] = {}
    for shard in dataset.shards:
        if "review" not in shard.annotations:
            continue
        rows = shard.view(_READS).filter(pl.any_horizontal(pl.col("override", "review_status").is_not_null()))
        place = pl.format("{}:{}", "source", "source_row")
        for row in rows.select("id", "reviewers", place=place, decision=word).collect().iter_rows(named=True):
            found[row["id"]] = row
    return found
