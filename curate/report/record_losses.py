"""What training did to single records: how their losses were spread, and those that a person should look at."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Any

import numpy as np
import polars as pl

from curate.measures import BUCKETS, Histogram, histogram

LISTED = 10
"""Records of each list."""
LEARNT = 0.05
"""Share of its first loss by which a record's must fall to count as learnt: what other rows can do is less."""
WITHIN = 0.995
"""Share of the losses that the chart spans; the few beyond stand in its last bucket."""


@dataclass(frozen=True, slots=True)
class RecordLine:
    """A record and its losses, in nats per target."""

    id: str
    source: str
    split: str
    targets: int | None
    before: float | None
    after: float
    seen: int | None


@dataclass(frozen=True)
class Listing:
    """Some records out of `count` of their kind."""

    name: str
    title: str
    meaning: str
    count: int
    records: tuple[RecordLine, ...]


@dataclass(frozen=True)
class SourceLoss:
    """The validation records of a source: their loss, weighted by targets, before and after."""

    source: str
    records: int
    before: float | None
    after: float | None


def listings(records: pl.DataFrame) -> tuple[Listing, ...]:
    """Choose the records to look at: hardest, most improved, got worse, never learned. Empty lists are left out."""
    known = records.filter(pl.col("loss").is_not_null()).with_columns(fall=pl.col("loss_before") - pl.col("loss"))
    read = known.filter((pl.col("split") == "train") & (pl.col("seen").is_null() | (pl.col("seen") > 0)))
    kinds = (
        ("hardest", "Hardest", "The highest loss after training.", known, "loss"),
        (
            "never",
            "Never learned",
            "Trained on, and their loss fell by less than 5%: wrong or contradictory answers are often among them.",
            read.filter(pl.col("fall") < LEARNT * pl.col("loss_before")),
            "loss",
        ),
        (
            "worse",
            "Got worse",
            "Their loss rose the most.",
            known.filter(pl.col("fall") < 0).with_columns(rise=-pl.col("fall")),
            "rise",
        ),
        ("improved", "Most improved", "Their loss fell the most.", known.filter(pl.col("fall") > 0), "fall"),
    )
    found: list[Listing] = []
    for name, title, meaning, rows, by in kinds:
        top = rows.top_k(LISTED, by=by).sort(by, "id", descending=[True, False])
        if rows.height:
            lines = tuple(_line(row) for row in top.iter_rows(named=True))
            found.append(Listing(name, title, meaning, rows.height, lines))
    return tuple(found)


def _line(row: Mapping[str, Any]) -> RecordLine:
    return RecordLine(
        row["id"], row["source"], row["split"], row["n_target_tokens"], row["loss_before"], row["loss"], row["seen"]
    )


def spread(records: pl.DataFrame, split: str) -> tuple[Histogram, Histogram | None] | None:
    """Give the distributions of a split's losses after training and before it; None where there are none."""
    own = records.filter(pl.col("split") == split)
    sides = [own[name].drop_nulls() for name in ("loss", "loss_before")]
    if sides[0].is_empty():
        return None
    high = max(float(side.quantile(WITHIN) or 0.0) for side in sides)
    wide = _round(high / BUCKETS) if high > 0 else 1 / BUCKETS
    edges = [*(wide * bucket for bucket in range(max(ceil(high / wide), 1) + 1)), float("inf")]
    after, before = (histogram(side, edges) for side in sides)
    return after, before if len(sides[1]) else None


def _round(wide: float) -> float:
    """Give the next of 1, 2, 2.5, 4, 5 and 10 times a power of ten, so that edges of buckets are short numbers."""
    power = 10.0 ** floor(log10(wide))
    return next((step * power for step in (1, 2, 2.5, 4, 5) if step * power >= wide), 10 * power)


def by_source(records: pl.DataFrame, split: str = "val") -> tuple[SourceLoss, ...]:
    """Sum up a split's losses by source, the largest source first."""
    own = records.filter(pl.col("split") == split)
    weight = pl.col("n_target_tokens").fill_null(1).cast(pl.Float64)

    def mean(name: str) -> pl.Expr:
        known = pl.col(name).is_not_null()
        return (pl.col(name) * weight).sum() / weight.filter(known).sum()

    told = own.group_by("source").agg(pl.len().alias("n"), mean("loss_before").alias("b"), mean("loss").alias("a"))
    rows = told.sort("n", "source", descending=[True, False]).iter_rows()
    return tuple(SourceLoss(source, n, _known(before), _known(after)) for source, n, before, after in rows)


def _known(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None
