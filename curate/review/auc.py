"""AUC: how often a score ranks a row that reviewers would keep above one that they would not, and how sure that is.

DeLong, DeLong and Clarke-Pearson (Biometrics 44, 1988), by ranks as in Sun and Xu (IEEE Signal Processing Letters 21,
2014). For a kept row i and another row j:

    AUC = mean of [score_i > score_j] + 1/2 [score_i = score_j]        0.5 by chance, 1 without a mistake

Each row's own part of that mean gives the variance, and, for two scores of the same rows, that of their difference.
Rows of one group (near-duplicates) are no independent draws: their parts are added up first (Obuchowski, Biometrics 53,
1997). Of rows that are all groups of their own this is DeLong's variance.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

CONFIDENCE = 0.95

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A value with its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Comparison:
    """The AUC of a score and of a baseline over the same rows, and by how much the score is better."""

    score: Interval
    baseline: Interval
    difference: Interval


def compare(
    positive: NDArray[np.bool_], score: Numbers, baseline: Numbers, groups: NDArray[np.int64] | None = None
) -> Comparison:
    """Compare two scores of the same rows, by DeLong; both kinds of rows are needed, and two of each for an interval.

    `positive`: the rows that a good score ranks first. `groups`: the number of the group that each row is in; None
    where each is alone. Intervals of an AUC end at 0 and 1.
    """
    alone = np.arange(len(positive))
    values, covariance = _delong(positive, np.vstack([score, baseline]), alone if groups is None else groups)
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    return Comparison(
        _interval(float(values[0]), float(covariance[0, 0]), 0.0, 1.0),
        _interval(float(values[1]), float(covariance[1, 1]), 0.0, 1.0),
        _interval(float(values[0] - values[1]), variance, -1.0, 1.0),
    )


def auc(positive: NDArray[np.bool_], score: Numbers) -> float:
    """Give the AUC of one score."""
    return float(_parts(positive, score)[0].mean())


def _delong(positive: NDArray[np.bool_], scores: Numbers, groups: NDArray[np.int64]) -> tuple[Numbers, Numbers]:
    """Give the AUC of each score, shape (scores,), and their covariance, shape (scores, scores)."""
    parts = [_parts(positive, score) for score in scores]
    values = np.array([yes.mean() for yes, _ in parts])
    _, group = np.unique(groups, return_inverse=True)
    first = np.vstack(
        [_summed(yes - value, group[positive], group) for (yes, _), value in zip(parts, values, strict=True)]
    )
    second = np.vstack(
        [_summed(no - value, group[~positive], group) for (_, no), value in zip(parts, values, strict=True)]
    )
    both = _products(first, second, group)
    covariance = _products(first, first, group[positive]) + _products(second, second, group[~positive])
    return values, covariance + both + both.T


def _summed(parts: Numbers, own: NDArray[np.int64], group: NDArray[np.int64]) -> Numbers:
    """Add up the parts by group, as a share of all parts; shape (groups,)."""
    return np.bincount(own, weights=parts, minlength=int(group.max()) + 1) / len(parts)


def _products(one: Numbers, other: Numbers, group: NDArray[np.int64]) -> Numbers:
    """Give the sums of products over groups, with Bessel's correction for the groups that have a part."""
    n = len(np.unique(group))
    return np.einsum("ag,bg->ab", one, other) * (n / (n - 1) if n > 1 else 1.0)


def _parts(positive: NDArray[np.bool_], score: Numbers) -> tuple[Numbers, Numbers]:
    """Give for each positive row the share of the others below it, and for each other row that of positives above."""
    yes, no = score[positive], score[~positive]
    ranks = rankdata(np.concatenate([yes, no]))
    above = (ranks[: len(yes)] - rankdata(yes)) / len(no)
    below = 1 - (ranks[len(yes) :] - rankdata(no)) / len(yes)
    return np.asarray(above, np.float64), np.asarray(below, np.float64)


def _interval(value: float, variance: float, least: float, most: float) -> Interval:
    half = float(norm.ppf((1 + CONFIDENCE) / 2)) * float(np.sqrt(max(0.0, variance)))
    return Interval(value, max(least, value - half), min(most, value + half))
