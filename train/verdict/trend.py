"""What a noisy curve says: where it was lowest, whether it rises from there, how steep it is, with the noise of each.

Nothing here supposes a distribution: noise is measured on the curve itself, by medians, which one wild value cannot
move, or by the largest movement against the curve's own trend.
"""

import math
from dataclasses import dataclass

import numpy as np

from schemas.run_files import Curve, Floats

MAD_TO_SD = 1.4826
"""Standard deviations in a median absolute deviation, for normal noise (Rousseeuw and Croux 1993)."""


AFTER = 3
"""Points that must follow the lowest one before a curve is said to rise: as many as early stopping waits for."""


@dataclass(frozen=True, slots=True)
class Slope:
    """The slope of a line through a stretch of a curve, per step, and its standard error."""

    per_step: float
    se: float


@dataclass(frozen=True, slots=True)
class Rise:
    """How far a curve stands above its lowest point. `noise`: its largest movement the other way (see `rise_of`)."""

    low_step: int
    low: float
    last: float
    height: float
    noise: float
    tau: float


def rise_of(curve: Curve) -> Rise:
    """Measure the rise of a curve of at least one point from its lowest one.

    `height` is that of the lower of the last two points above the lower neighbour of the lowest, so that no single
    point decides; 0 where fewer than `AFTER` follow the lowest. `noise` is the largest step up before the lowest point,
    or down after it: what the curve does against its own trend. `tau` is Kendall's rank correlation of step and value
    from the lowest point on.
    """
    value = curve.value
    low = int(np.argmin(value))
    moves = np.diff(value)
    against = np.concatenate([moves[:low], -moves[low:], [0.0]])
    after = value[low + 1 :]
    beside = value[[i for i in (low - 1, low + 1) if 0 <= i < len(value)]]
    height = float(after[-2:].min() - beside.min()) if len(after) >= AFTER else 0.0
    return Rise(
        int(curve.step[low]), float(value[low]), float(value[-1]), height, float(against.max()), tau(value[low:])
    )


def tau(value: Floats) -> float:
    """Give Kendall's rank correlation of values with their order: 1 rises throughout, -1 falls; 0 for fewer than 2."""
    n = len(value)
    if n < 2:
        return 0.0
    later, earlier = value[None, :], value[:, None]
    signs = np.sign(later - earlier)[np.triu_indices(n, 1)]
    return float(signs.sum() / (n * (n - 1) / 2))


def noise_sd(value: Floats) -> float:
    """Give the standard deviation of a curve's noise from its successive differences: slow trends do not count."""
    if len(value) < 3:
        return 0.0
    return MAD_TO_SD * float(np.median(np.abs(np.diff(value)))) / math.sqrt(2)


def slope_of(curve: Curve) -> Slope:
    """Fit a line to a curve by least squares. The standard error is widened where neighbours stray together.

    For residuals with the correlation r between neighbours, n points are worth n (1 - r) / (1 + r) independent ones.
    """
    n = len(curve)
    if n < 3:
        return Slope(0.0, math.inf)
    x = curve.step - curve.step.mean()
    spread = float((x**2).sum())
    per_step = float((x * curve.value).sum()) / spread
    rest = curve.value - curve.value.mean() - per_step * x
    variance = float((rest**2).sum()) / (n - 2)
    if variance <= 0:
        return Slope(per_step, 0.0)
    r = float((rest[1:] * rest[:-1]).sum() / (rest**2).sum())
    r = min(max(r, 0.0), 0.9)
    return Slope(per_step, math.sqrt(variance / spread * (1 + r) / (1 - r)))


def chance_of_rise(curve: Curve) -> float:
    """Give how likely the line through a curve at rest is as steep upwards as this one by chance (Student's t).

    1 for fewer than three points.
    """
    if len(curve) < 3:
        return 1.0
    from scipy.special import stdtr  # noqa: PLC0415 # a tenth of a second

    slope = slope_of(curve)
    if slope.se == 0:
        return float(slope.per_step <= 0)
    return float(stdtr(len(curve) - 2, -slope.per_step / slope.se))


def between(curve: Curve, start: float, end: float) -> Curve:
    """Give the part of a curve after `start`, up to `end`."""
    inside = (curve.step > start) & (curve.step <= end)
    return Curve(curve.step[inside], curve.value[inside])


def smoothed(curve: Curve, window: int) -> Curve:
    """Give the means of `window` values in a row, each at the step of its last one."""
    if len(curve) < window:
        return Curve(curve.step[:0], curve.value[:0])
    sums = np.concatenate([[0.0], np.cumsum(curve.value)])
    return Curve(curve.step[window - 1 :], (sums[window:] - sums[:-window]) / window)
