"""Charts of a run: values over steps, as lines that are binned first, so that a run of any length is drawn the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from typing import Literal

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from curate.report.charts import WIDTH, compact, rules, tick
from curate.report.svg import colour, figure, svg
from curate.report.text import plain
from schemas.run_files import Curve, Floats

POINTS = 240
"""Points of a line: more than a screen can tell apart in a chart of this width."""
SMOOTH = 25
"""A smoothed line averages over one 25th of the run."""
OUTSIDE = 0.05
"""Share of the stretches whose lowest or highest value may lie beyond the scale."""
MOST_DOTS = 60
"""Points that are marked one by one."""
SIZES = {"small": (WIDTH, 150, 5, 4), "tall": (WIDTH, 240, 5, 5), "wide": (900, 300, 8, 5)}
"""Width and height of the view box in pixels, and how many steps and values stand beside it: small where several stand
in a row, tall for one that fills a phone, wide for one that fills a screen."""

_DOTS_A_PATH = 40
"""Dots drawn as one path: a path of 128 points and more is simplified, which would join some."""
_LEFT, _RIGHT, _FOOT, _HEAD = 46, 12, 24, 24


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """A curve, what it is called, and its role (`svg.ROLES`). `how`: raw is thin, with its spread where it is binned;
    smooth is a moving mean; dots marks each point."""

    name: str
    curve: Curve
    role: str
    how: Literal["raw", "smooth", "dots", "line", "dashed"] = "line"


@dataclass(frozen=True, slots=True)
class Mark:
    """A step that is marked by a vertical line and a word."""

    step: float
    name: str
    role: str = "muted"


def binned(curve: Curve, points: int = POINTS) -> tuple[Curve, Floats, Floats]:
    """Give the means of a curve in at most `points` stretches of equally many steps, and their lowest and highest."""
    if len(curve) <= points:
        return curve, curve.value, curve.value
    edges = np.linspace(0, len(curve), points + 1).astype(int)[:-1]
    counts = np.diff([*edges, len(curve)])
    means = Curve(np.add.reduceat(curve.step, edges) / counts, np.add.reduceat(curve.value, edges) / counts)
    return means, np.minimum.reduceat(curve.value, edges), np.maximum.reduceat(curve.value, edges)


def moving_mean(curve: Curve) -> Curve:
    """Give the mean of each value's neighbourhood, one `SMOOTH`th of the curve wide; shorter at both ends."""
    n = len(curve)
    half = max(n // SMOOTH // 2, 1)
    sums = np.concatenate([[0.0], np.cumsum(curve.value)])
    low = np.maximum(np.arange(n) - half, 0)
    high = np.minimum(np.arange(n) + half + 1, n)
    return Curve(curve.step, (sums[high] - sums[low]) / (high - low))


@dataclass(frozen=True, slots=True)
class _Scale:
    """The box of a chart in pixels, and what its edges stand for."""

    x: tuple[float, float]
    y: tuple[float, float]
    log: bool
    width: float
    height: float

    def across(self, step: float) -> float:
        """Give the place of a step, from 0 at the left to 1."""
        return (step - self.x[0]) / (self.x[1] - self.x[0])

    def up(self, value: float) -> float:
        """Give the place of a value, from 0 at the foot to 1."""
        low, high, at = (log10(v) for v in (*self.y, value)) if self.log else (*self.y, value)
        return (at - low) / (high - low)

    def within(self, values: Floats) -> Floats:
        """Give values with those beyond an edge at it."""
        return np.clip(values, *self.y)


def lines(
    name: str,
    title: str,
    drawn: Sequence[Line],
    *,
    size: Literal["small", "tall", "wide"] = "small",
    log: bool = False,
    from_zero: bool = False,
    marks: Sequence[Mark] = (),
    trouble: Curve | None = None,
) -> Markup:
    """Draw lines over steps. `log`: a scale of powers of ten. `trouble`: single points that are marked.

    The lines themselves set the scale; what else reaches beyond it is drawn at its edge.
    """
    width, height, across, up = SIZES[size]
    box = (_LEFT / width, _FOOT / height, 1 - (_LEFT + _RIGHT) / width, 1 - (_FOOT + _HEAD) / height)
    made = figure(width, height)
    axes = made.add_axes(box, frameon=False)
    shapes = [(line, *_shape(line)) for line in drawn if len(line.curve)]
    first = min((float(shape.step[0]) for _, shape, *_ in shapes), default=0.0)
    last = max((float(shape.step[-1]) for _, shape, *_ in shapes), default=1.0)
    limits = _limits([_reach(shape, low, high) for _, shape, low, high in shapes], log=log, from_zero=from_zero)
    scale = _Scale((first, max(last, first + 1)), limits, log, box[2] * width, box[3] * height)
    axes.set_xlim(*scale.x)
    axes.set_ylim(*scale.y)
    if log:
        axes.set_yscale("log")
    _grid(axes, scale, across, up)
    shown = [mark for mark in marks if scale.x[0] <= mark.step <= scale.x[1]]
    for mark in shown:
        axes.axvline(mark.step, color=colour(mark.role), linewidth=1, linestyle=(0, (1, 3)))
    for line, shape, lowest, highest in shapes:
        if line.how == "raw" and len(shape) < len(line.curve):
            around = np.concatenate([lowest, highest[::-1]])
            there = np.concatenate([shape.step, shape.step[::-1]])
            axes.fill(there, scale.within(around), color=colour(line.role), alpha=0.22, linewidth=0)
        else:
            _draw(axes, line, Curve(shape.step, scale.within(shape.value)))
    if trouble is not None and len(trouble):
        _points(axes, Curve(trouble.step, scale.within(trouble.value)), "gone")
    _legend(axes, scale, [line for line, *_ in shapes], shown)
    return svg(made, name, title, f"{title}: {_told([line for line, *_ in shapes])}.")


def _shape(line: Line) -> tuple[Curve, Floats, Floats]:
    if line.how == "smooth":
        means, _, _ = binned(moving_mean(line.curve))
        return means, means.value, means.value
    return binned(line.curve)


def _reach(shape: Curve, low: Floats, high: Floats) -> Floats:
    """Give the values that a scale must hold: all of the line, and most of its spread."""
    return np.array([*shape.value, np.quantile(low, OUTSIDE), np.quantile(high, 1 - OUTSIDE)])


def _limits(values: Sequence[Floats], *, log: bool, from_zero: bool) -> tuple[float, float]:
    held = np.concatenate([np.zeros(0), *values])
    if log:
        held = held[held > 0]
    if not len(held):
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = float(held.min()), float(held.max())
    if log:
        return (low / 1.3, high * 1.3) if high > low else (low / 3, high * 3)
    room = 0.06 * (high - low) or max(abs(high) * 0.1, 1e-6)
    return (0.0 if from_zero and low >= 0 else low - room), high + room


def _draw(axes: Axes, line: Line, shape: Curve) -> None:
    tone = colour(line.role)
    if line.how == "raw":
        axes.plot(shape.step, shape.value, color=tone, linewidth=0.8, alpha=0.45)
        return
    pattern = (0, (4, 2)) if line.how == "dashed" else "solid"
    axes.plot(shape.step, shape.value, color=tone, linewidth=2, linestyle=pattern)
    if (line.how == "dots" and len(shape) <= MOST_DOTS) or len(shape) == 1:  # a line of one point has no length
        _points(axes, shape, line.role)


def _points(axes: Axes, shape: Curve, role: str) -> None:
    """Draw dots: lines of no length with round ends, since a marker is a definition that our SVG leaves out."""
    for at in range(0, len(shape), _DOTS_A_PATH):
        step, value = (np.repeat(of[at : at + _DOTS_A_PATH], 3) for of in (shape.step, shape.value))
        step[2::3] = np.nan
        axes.plot(step, value, color=colour(role), linewidth=6, solid_capstyle="round")


def _grid(axes: Axes, scale: _Scale, across: int, up: int) -> None:
    """Draw about `up` rules at round values, with the values beside them, and about `across` steps below."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.minorticks_off()
    for value in rules(*scale.y, up, log=scale.log) or scale.y:
        axes.axhline(value, color=colour("line"), linewidth=1)
        _write(axes, (-6 / scale.width, scale.up(value)), tick(value), "muted", ha="right")
    ticks = MaxNLocator(across, integer=True, steps=[1, 2, 2.5, 5, 10]).tick_values(*scale.x)
    for at in (scale.across(float(v)) for v in ticks if scale.x[0] <= v <= scale.x[1]):
        side = "left" if at < 0.02 else "right" if at > 0.98 else "center"
        step = scale.x[0] + at * (scale.x[1] - scale.x[0])
        _write(axes, (at, -14 / scale.height), compact(round(step)), "muted", ha=side)


def _legend(axes: Axes, scale: _Scale, drawn: Sequence[Line], marks: Sequence[Mark]) -> None:
    """Name the lines above the chart, in their colours, where there are several; and the marks, where there is room."""
    above = 1 + 13 / scale.height
    named = {line.name: line.role for line in drawn if line.how != "raw" and line.name}
    taken = 0.0
    for name, role in named.items() if len(named) > 1 else ():
        short = name if len(name) <= 24 else name[:23] + "…"
        _write(axes, (taken / scale.width, above), f"— {short}", role)
        taken += 6.6 * (len(short) + 2) + 14
    for mark in sorted(marks, key=lambda mark: mark.step):
        at, half = scale.across(mark.step), 3.4 * len(mark.name)
        if mark.name and at * scale.width - half > taken and at * scale.width + half < scale.width + _RIGHT:
            _write(axes, (at, above), mark.name, mark.role, ha="center")
            taken = at * scale.width + half + 8


def _write(
    axes: Axes, at: tuple[float, float], text: str, role: str, *, ha: Literal["left", "center", "right"] = "left"
) -> None:
    """Write a line of text at a place of the chart's box, from (0, 0) at the left foot to (1, 1)."""
    shown = " ".join(plain(text).split())
    where = axes.transAxes
    axes.text(*at, shown, transform=where, color=colour(role), fontsize=11, ha=ha, va="center", parse_math=False)


def _told(drawn: Sequence[Line]) -> str:
    """Say in words where each line begins and ends."""
    parts = [
        f"{line.name or 'it'} goes from {compact(float(line.curve.value[0]))} at step {int(line.curve.step[0]):,} to "
        f"{compact(float(line.curve.value[-1]))} at step {int(line.curve.step[-1]):,}"
        for line in drawn
        if line.how != "raw"
    ]
    return "; ".join(parts) or "nothing was measured"
