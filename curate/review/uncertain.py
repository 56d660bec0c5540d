"""Uncertain rows: those whose review teaches most, by what was learnt from the reviews so far.

    distance = KL(m ‖ p), p: a row's learned probability, m: their mean; 0 where a row gets what any row gets
         ──> chance of being drawn = exp(-SHARPNESS · distance) ──> DRAWN times as many rows as are asked for
              ──> n groups of rows that measure alike (k-means) ──> of each group the row with the least distance

A model of few reviews is no judge of itself. Where it gives p = 0.5 it has mostly found what it knows already, more of
the same bad kind; of the kinds that it has not met it says what it says of the average row. So the middle is m, not
0.5: where rows are bad for several reasons, p = 0.5 was worse than chance, and m is better (docs/learning.md has the
figures). The draw leaves every row a chance, and the groups see to it that twins are not asked about twice.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.review.features import MEASURES, REACH, Numbers, measure, scales
from curate.select import chance

SHARPNESS = 12.0
"""How fast the chance of being drawn falls with the distance: with m = 0.75, to a half at p = 0.59 and 0.87, and to a
tenth at 0.45 and 0.94. Chosen by simulation (bench/learning.py)."""

DRAWN = 4
"""Rows drawn for each row that is asked for; 2, 4 and 8 measured alike."""

EDGE = 1e-6
"""Probabilities end this far from 0 and 1."""

ROUNDS = 20
"""Rounds of k-means at most: groups of such few rows settle sooner."""

CELLS = 1 << 22
"""Distances that are held at a time (32 MB)."""


@dataclass(frozen=True)
class Chosen:
    """Rows by id, the one to ask about first in front, and one sentence on how they were chosen."""

    ids: tuple[str, ...]
    how: str


def most_uncertain(
    rows: pl.DataFrame, n: int, seed: int, texts: Callable[[pl.Series], pl.DataFrame] | None = None
) -> Chosen:
    """Choose up to n rows to ask about; the same for the same rows and seed, in whatever order they stand.

    Reads: id, learned (null where a row has none; the column may be absent), messages, context. Where nothing was
    learnt, rows are drawn by chance. Rows without a probability fill up what those with one leave over. `texts` gives
    id, messages, context of the rows of these ids, where `rows` is without: few are needed, whatever the dataset holds.
    """
    there = rows.sort("id").with_columns(_probability(rows))
    known = there.filter(pl.col("learned").is_not_null())
    drawn = _drawn(known, n, seed)
    if texts and drawn.height:
        drawn = drawn.select("id", "distance").join(texts(drawn["id"]), on="id", how="left", maintain_order="left")
    ids = _spread(drawn, n) if drawn.height else []
    rest = there.filter(~pl.col("id").is_in(ids))
    ids += rest["id"].gather(np.argsort(chance(rest["id"], seed), kind="stable")[: n - len(ids)]).to_list()
    if not known.height:
        return Chosen(tuple(ids), "at random: nothing was learnt yet (sft curate score REF --from-reviews)")
    return Chosen(tuple(ids), "uncertain by what reviews have taught so far, and unlike each other")


def _probability(rows: pl.DataFrame) -> pl.Series:
    values = rows.sort("id")["learned"] if "learned" in rows.columns else [None] * rows.height
    return pl.Series("learned", values, pl.Float64)


def _drawn(known: pl.DataFrame, n: int, seed: int) -> pl.DataFrame:
    """Draw DRAWN times n rows by distance, without putting back (Efraimidis and Spirakis 2006). Adds: distance."""
    p = np.clip(known["learned"].to_numpy(), EDGE, 1 - EDGE)
    m = p.mean() if len(p) else 0.5
    distance = m * np.log(m / p) + (1 - m) * np.log((1 - m) / (1 - p))
    uniform = (chance(known["id"], seed).astype(np.float64) + 1) / 2.0**64
    order = np.argsort(np.log(-np.log(uniform)) + SHARPNESS * distance, kind="stable")
    return known.with_columns(distance=pl.Series(distance))[order[: DRAWN * n]]


def _spread(drawn: pl.DataFrame, n: int) -> list[str]:
    """Give of each of n groups the row with the least distance. Reads: id, distance, messages, context.

    Rows that measure the same come after all others.
    """
    measured = measure(drawn)
    means, deviations = scales(measured)
    points = np.clip((measured.select(MEASURES).to_numpy() - means) / deviations, -REACH, REACH)
    _, alike = np.unique(points, axis=0, return_inverse=True)
    rows = (
        drawn.select("id", "distance", alike=pl.Series(alike.ravel()))
        .with_row_index("place")
        .sort("distance", "place")
        .with_columns(twins=pl.int_range(pl.len()).over("alike"))
    )
    single = rows.filter(pl.col("twins") == 0).sort("place")
    groups = _groups(points[single["place"].to_numpy()], min(n, single.height))
    first = (
        single.with_columns(group=groups).sort("distance", "place").unique("group", keep="first", maintain_order=True)
    )
    others = rows.filter(~pl.col("id").is_in(first["id"].to_list())).sort("twins", "distance", "place")
    return (first["id"].to_list() + others["id"].to_list())[:n]


def _groups(points: Numbers, n: int) -> NDArray[np.int64]:
    """Number n groups of points, shape (points, measures), by k-means from the first n points.

    Written out, as libraries add up in as many threads as there are, and a last digit may move a row.
    """
    centres = points[:n].copy()
    groups = np.full(len(points), -1)
    for _ in range(ROUNDS):
        nearest = _nearest(points, centres)
        if (nearest == groups).all():
            break
        groups = nearest
        sizes = np.bincount(groups, minlength=n)
        for column in range(points.shape[1]):
            sums = np.bincount(groups, weights=points[:, column], minlength=n)
            centres[:, column] = np.where(sizes > 0, sums / np.maximum(sizes, 1), centres[:, column])
    return groups


def _nearest(points: Numbers, centres: Numbers) -> NDArray[np.int64]:
    """Give the nearest centre of each point."""
    step = max(1, CELLS // len(centres))
    lengths = (centres**2).sum(axis=1)
    parts = [
        (lengths - 2 * np.einsum("pm,cm->pc", points[at : at + step], centres)).argmin(axis=1)
        for at in range(0, len(points), step)
    ]
    return np.concatenate(parts).astype(np.int64)
