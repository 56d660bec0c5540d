"""The model learnt from reviews: a logistic regression over `curate.review.features`, calibrated, kept as a table.

    z = intercept + Σ weight · feature          probability = 1 / (1 + exp(-(slope · z + shift)))

As an object of the version it is a frame with a row for each number, so that it can be read, applied again and
compared without running anything that is stored:

    part          place            name                  weight               mean, deviation
    measure       its position     such as "capitals"    per deviation        what the measure is standardised by
    square        its position     the same              of its square        -
    word, ending  the bucket       -                     of the n-gram        -
    setting       -                intercept, slope, …   the number           -
    report        -                auc, auc_low, …       the number           -
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from curate.review.features import BUCKETS, MEASURES, WIDTH, Numbers, matrix, measure

SCHEMA = pl.Schema(
    {
        "part": pl.String,
        "place": pl.UInt32,
        "name": pl.String,
        "weight": pl.Float64,
        "mean": pl.Float64,
        "deviation": pl.Float64,
    }
)

_PARTS = {"measure": len(MEASURES), "square": len(MEASURES), "word": BUCKETS, "ending": BUCKETS}
"""The blocks of the matrix of features, in their order, each with its columns."""

_SETTINGS = ("intercept", "slope", "shift")


@dataclass(frozen=True)
class Model:
    """A fitted model. `weights` has shape (WIDTH,), `means` and `deviations` one number for each of MEASURES."""

    means: Numbers
    deviations: Numbers
    weights: Numbers
    intercept: float
    slope: float
    shift: float

    def learned(self, rows: pl.DataFrame) -> pl.Series:
        """Give the probability that reviewers would keep each row unchanged. Reads: messages, context."""
        chunks = [np.zeros(0)]
        for features in matrix(measure(rows), self.means, self.deviations):
            z = self.slope * (features @ self.weights + self.intercept) + self.shift
            chunks.append(1 / (1 + np.exp(-z)))
        return pl.Series("learned", np.concatenate(chunks), dtype=pl.Float32)

    def to_frame(self, report: Mapping[str, float]) -> pl.DataFrame:
        """Write the model, and what was measured of it, as a table; weights of 0 are left out."""
        parts: list[pl.DataFrame] = []
        start = 0
        for part, columns in _PARTS.items():
            own = self.weights[start : start + columns]
            places = np.arange(columns) if part in ("measure", "square") else np.flatnonzero(own)
            named = {"place": pl.Series(places, dtype=pl.UInt32), "weight": own[places]}
            if part in ("measure", "square"):
                named["name"] = pl.Series(MEASURES)
            if part == "measure":
                named |= {"mean": self.means, "deviation": self.deviations}
            parts.append(pl.DataFrame(named).with_columns(part=pl.lit(part)))
            start += columns
        settings = {name: float(getattr(self, name)) for name in _SETTINGS}
        for part, numbers in (("setting", settings), ("report", report)):
            named = {"name": list(numbers), "weight": list(numbers.values())}
            schema = {"name": pl.String, "weight": pl.Float64}
            parts.append(pl.DataFrame(named, schema=schema).with_columns(part=pl.lit(part)))
        return pl.concat([SCHEMA.to_frame(), *parts], how="diagonal")

    @classmethod
    def of(cls, frame: pl.DataFrame) -> "Model":
        """Read a model from its table."""
        weights = np.zeros(WIDTH)
        start = 0
        for part, columns in _PARTS.items():
            own = frame.filter(pl.col("part") == part)
            weights[start + own["place"].to_numpy().astype(np.int64)] = own["weight"].to_numpy()
            start += columns
        scale = frame.filter(pl.col("part") == "measure").sort("place")
        numbers = _numbers(frame, "setting")
        return cls(scale["mean"].to_numpy(), scale["deviation"].to_numpy(), weights, *(numbers[n] for n in _SETTINGS))


def report_of(frame: pl.DataFrame) -> dict[str, float]:
    """Give what was measured of a model when it was learnt, from its table."""
    return _numbers(frame, "report")


def _numbers(frame: pl.DataFrame, part: str) -> dict[str, float]:
    own = frame.filter(pl.col("part") == part)
    return dict(zip(own["name"].to_list(), own["weight"].to_list(), strict=True))
