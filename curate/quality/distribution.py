"""Columns of numbers as a person looks at them: how many rows have one, where the values lie, the rows at the ends.

And how columns go together: Spearman's rank correlation, which asks only whether two columns order rows alike. Two
scores that correlate near 1 are one score that was paid for twice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import isnan
from typing import Any

import polars as pl

from schemas.dataset import Dataset
from schemas.stages import ANNOTATION_COLUMNS

_OWN = ANNOTATION_COLUMNS["score"]


@dataclass(frozen=True)
class Distribution:
    """The values of one column: rows with and without one, mean, quartiles, and the rows at both ends, by id."""

    column: str
    rows: int
    without: int
    mean: float
    lowest: float
    quartiles: tuple[float, float, float]
    highest: float
    lowest_row: str
    highest_row: str


@dataclass(frozen=True)
class Correlation:
    """Spearman's correlation of two columns over the rows that have both; None where one of them does not vary."""

    columns: tuple[str, str]
    rows: int
    spearman: float | None


@dataclass(frozen=True)
class Scores:
    """What a version's scores look like, over the rows that the score stage judged and kept."""

    distributions: tuple[Distribution, ...]
    correlations: tuple[Correlation, ...]

    def to_json(self) -> dict[str, Any]:
        """Give it as plain values."""
        return {
            "columns": {d.column: {k: v for k, v in asdict(d).items() if k != "column"} for d in self.distributions},
            "correlations": [asdict(c) for c in self.correlations],
        }


def describe(dataset: Dataset, weighed: Sequence[str] = ()) -> Scores:
    """Describe the columns of the score stage that have values, after the columns of `weighed` that are not its own.

    Reads: id, kept, the columns themselves.
    """
    own = [name for name, dtype in _OWN.items() if dtype.is_numeric()]
    columns = [*(name for name in weighed if name not in own), *own]
    rows = dataset.scan(["id", *columns, "kept"], before_stage="select").filter("kept").collect(engine="streaming")
    there = [name for name in columns if rows[name].count()]
    return Scores(
        tuple(_distribution(rows, name) for name in there),
        tuple(_correlation(rows, a, b) for a, b in combinations(there, 2)),
    )


def _distribution(rows: pl.DataFrame, column: str) -> Distribution:
    ordered = rows.select("id", value=pl.col(column).cast(pl.Float64)).drop_nulls("value").sort("value", "id")
    low, middle, high = (float(ordered["value"].quantile(q, "linear") or 0.0) for q in (0.25, 0.5, 0.75))
    return Distribution(
        column,
        ordered.height,
        rows.height - ordered.height,
        float(ordered.select(pl.col("value").mean()).item()),
        float(ordered["value"][0]),
        (low, middle, high),
        float(ordered["value"][-1]),
        str(ordered["id"][0]),
        str(ordered["id"][-1]),
    )


def _correlation(rows: pl.DataFrame, a: str, b: str) -> Correlation:
    both = rows.select(a, b).drop_nulls()
    found = both.select(pl.corr(a, b, method="spearman")).item() if both.height > 1 else None
    return Correlation((a, b), both.height, None if found is None or isnan(found) else float(found))


def matrix(correlations: Sequence[Correlation]) -> Iterator[tuple[str, ...]]:
    """Give the correlations as lines of a table: a column's name, then its correlation with each column before it."""
    names = list(dict.fromkeys(name for c in correlations for name in c.columns))
    found = {c.columns: c.spearman for c in correlations}
    for i, name in enumerate(names[1:], 1):
        cells = [found.get((earlier, name)) for earlier in names[:i]]
        yield name, *("-" if c is None else f"{round(c, 2) + 0.0:+.2f}" for c in cells), *[""] * (len(names) - 1 - i)
