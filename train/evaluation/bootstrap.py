"""How sure a difference between two models is: the paired bootstrap over records (Koehn 2004, EMNLP).

Records are drawn anew with replacement, both models' numbers of a record together, and the difference is computed
again, `DRAWS` times; the interval holds the middle 95% of the differences, or more of them where records are few
(`_outside`). Drawn by a fixed seed: the same records give the same interval.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

DRAWS = 1000
"""Draws: the ends of a 95% interval then stand on 25 draws each, or 8 with the fewest records."""
LEAST_RECORDS = 10
"""With fewer records an interval says more of single records than of the models, so none is given."""
_SEED = 17
_CELLS = 4_000_000
"""Cells of a table of draws and records that are held at once: 32 MB."""

Floats = npt.NDArray[np.float64]

# Shapes: R records, S sums, B draws, Q quantities whose differences are wanted.


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95% interval: what chance could have made of a difference."""

    low: float
    high: float


def intervals(sums_RS: Floats, differences: Callable[[Floats], Floats]) -> list[Interval | None]:
    """Give the interval of each difference: `differences` makes those of sums over drawn records, (B, S) -> (B, Q).

    None for all where there are fewer than `LEAST_RECORDS`; None for one that is not a finite number in some draw.
    """
    records = len(sums_RS)
    quantities = differences(sums_RS.sum(0, keepdims=True)).shape[1]
    if records < LEAST_RECORDS:
        return [None] * quantities
    generator = np.random.default_rng(_SEED)
    step = max(1, _CELLS // records)
    shares = np.full(records, 1 / records)
    parts = [
        differences(generator.multinomial(records, shares, min(step, DRAWS - at)).astype(np.float64) @ sums_RS)
        for at in range(0, DRAWS, step)
    ]
    found_BQ = np.concatenate(parts)
    outside = _outside(records)
    return [_middle(found_BQ[:, q], outside) for q in range(quantities)]


def _outside(records: int) -> float:
    """Give the share of draws below, and above, a 95% interval: 0.025 of many records, 0.0086 of ten.

    Draws of n records spread by sqrt((n - 1) / n) too little, and their middle knows nothing of Student's t: with ten
    records 1 in 9 plain intervals misses the truth. This is the expanded percentile interval (Hesterberg 2015, 4.1).
    """
    from scipy.special import stdtrit  # noqa: PLC0415 # a tenth of a second

    return NormalDist().cdf(-math.sqrt(records / (records - 1)) * float(stdtrit(records - 1, 0.975)))


def _middle(found_B: Floats, outside: float) -> Interval | None:
    if not np.isfinite(found_B).all():
        return None
    low, high = np.quantile(found_B, [outside, 1 - outside])
    return Interval(float(low), float(high))


def verdict(interval: Interval | None, better: str) -> str:
    """Say what an interval of tuned - base comes to: better, worse, no clear difference, or too few records.

    `better`: which way is better, "higher" or "lower"; with "" a clear difference is "higher" or "lower" itself.
    """
    if interval is None:
        return "too few records"
    if interval.low <= 0 <= interval.high:
        return "no clear difference"
    way = "higher" if interval.low > 0 else "lower"
    return way if not better else "better" if way == better else "worse"
