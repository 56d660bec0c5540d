"""Drift: how a measure of the kept rows moved, source by source.

Numbers: D of Kolmogorov and Smirnov, the greatest distance between the two cumulative distributions. Names: the total
variation distance, half the sum of the differences of the shares; unknown counts as a name. Both go from 0 (alike) to 1
(nothing in common).

p is the chance of a statistic at least as large if the two versions were independent samples of one population
(Kolmogorov's limiting distribution; Pearson's chi-square of homogeneity). They are no such samples: most rows are the
same in both, which draws the two together, so p is conservative: a small one is trustworthy, a large one proves
nothing. And with a million rows a difference that nobody would notice has a small p; look at the statistic.
"""

from collections.abc import Iterator
from math import sqrt
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import special

from curate.diff.account import Drift
from curate.measures import ALL, MEASURES, NUMBERS, Measured, edges, histogram, shares

FEWEST_ROWS = 30
"""Rows on each side below which no p is given: the asymptotic distributions do not hold yet."""

LEAST_EXPECTED = 5
"""Rows that a name must be expected to have on each side to count by itself (Cochran); rarer ones are put together."""

_special: Any = special  # scipy's types are partial; scipy.stats would take a second to import


def drifts(before: Measured, after: Measured) -> tuple[Drift, ...]:
    """Compare the measures of every source that both versions have kept rows of, then of all rows together."""
    both = sorted({*before.sources} & {*after.sources})
    several = len({*before.sources} | {*after.sources}) > 1
    sources = [*both, ALL] if several and before.rows.height and after.rows.height else both
    return tuple(drift for source in sources for drift in _of_source(before, after, source))


def _of_source(before: Measured, after: Measured, source: str) -> Iterator[Drift]:
    mine, other = before.of(source), after.of(source)
    for measure in MEASURES:
        old, new = mine[measure], other[measure]
        if not (old.count() and new.count()):
            continue
        if measure in NUMBERS:
            at = edges([old, new])
            statistic, p = kolmogorov_smirnov(old, new)
            yield Drift(source, measure, histogram(old, at), histogram(new, at), "Kolmogorov-Smirnov", statistic, p)
        else:
            statistic, p = total_variation(old, new)
            yield Drift(source, measure, shares(old), shares(new), "total variation", statistic, p)


def kolmogorov_smirnov(old: pl.Series, new: pl.Series) -> tuple[float, float | None]:
    """Give D and p of two series of numbers, nulls left out, from the counts of the values, which are few."""
    counts = _counts(old, new).sort("value").select(pl.col("old", "new").cum_sum() / pl.col("old", "new").sum())
    statistic = float(np.abs(counts["old"].to_numpy() - counts["new"].to_numpy()).max())
    n, m = old.count(), new.count()
    if min(n, m) < FEWEST_ROWS:
        return statistic, None
    return statistic, float(_special.kolmogorov(statistic * sqrt(n * m / (n + m))))


def total_variation(old: pl.Series, new: pl.Series) -> tuple[float, float | None]:
    """Give the total variation distance of two series of names, null being one, and p of the chi-square test."""
    unknown = [series.cast(pl.String).fill_null("") for series in (old, new)]
    counts = _counts(*unknown)
    held = counts.select("old", "new").to_numpy().astype(np.float64)
    statistic = float(np.abs(held[:, 0] / len(old) - held[:, 1] / len(new)).sum() / 2)
    if min(len(old), len(new)) < FEWEST_ROWS:
        return statistic, None
    return statistic, _chi_square(held)


def _chi_square(held: NDArray[np.float64]) -> float:
    """Give p of Pearson's test that two columns of counts are of one distribution; rare rows are put together."""
    columns, rows = held.sum(axis=0), held.sum(axis=1)
    rare = rows * columns.min() / columns.sum() < LEAST_EXPECTED
    table = np.vstack([held[~rare], held[rare].sum(axis=0)])
    table = table[table.sum(axis=1) > 0]
    expected = np.outer(table.sum(axis=1), columns) / columns.sum()
    if len(table) < 2:
        return 1.0
    return float(_special.chdtrc(len(table) - 1, ((table - expected) ** 2 / expected).sum()))


def _counts(old: pl.Series, new: pl.Series) -> pl.DataFrame:
    """Count each value on both sides. Adds: value, old, new."""
    sides = [
        series.drop_nulls().alias("value").value_counts(name=name) for series, name in ((old, "old"), (new, "new"))
    ]
    beside = sides[0].join(sides[1], on="value", how="full", coalesce=True)
    return beside.with_columns(pl.col("old", "new").fill_null(0))
