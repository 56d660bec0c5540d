"""A model beside its base in numbers: how a measure and its difference are written, and charts of what differs."""

from collections.abc import Mapping
from math import log10
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import Circle

from curate.report import charts
from curate.report.page import Panel
from curate.report.svg import canvas, colour, label, svg
from curate.report.text import plain

WRITTEN = {
    "share": "{:.1%}",
    "score": "{:.1f}",
    "loss": "{:.3f}",
    "perplexity": "{:,.2f}",
    "ratio": "{:.2f}",
    "tokens": "{:,.1f}",
}
"""How a measure is written, by its unit."""
WHOLE, LARGE = 1e3, 1e6
"""From here on a number is written without decimals, and as a power of ten."""

DRAWN = ("exact_match", "token_f1", "rouge_l", "bleu", "chrf")
"""Measures whose differences are drawn: all of them can be put on a scale of 0 to 100."""
MOST_DRAWN = 12
"""Sources that a chart has a line for; the table has all."""

_FOREST_WIDTH = 400.0
"""Pixels of the view box: what it says can be read on a phone, which is hardly narrower."""
_STEP, _WORDS, _BAR = 38.0, 9.0, 24.0
"""Pixels from one line of a chart to the next; within it the middle of its words, and of its bar below them."""
_SIDE = 8.0
_LETTER = 6.6
"""Pixels of a letter, about."""


def written(unit: str, value: float | None) -> str:
    """Write a measure; without a value it is beyond what a number can hold."""
    if value is None:
        return "infinite"
    if abs(value) >= LARGE:
        return charts.exponential(value)
    return f"{value:,.0f}" if abs(value) >= WHOLE and unit != "share" else WRITTEN[unit].format(value)


def signed(unit: str, value: float | None) -> str:
    """Write a difference; of shares in percentage points."""
    if value is None:
        return ""
    text = written(unit, abs(value)).replace("%", " pp")
    sign = "" if not any(c in "123456789" for c in text) else "+" if value > 0 else "\N{MINUS SIGN}"
    return f"{sign}{text}"


def forest(summary: Mapping[str, Any]) -> Markup | None:
    """Draw the differences with their intervals around a line at no difference, in points of 100.

    `summary`: the account of an evaluation with a base. None where no difference has an interval.
    """
    shown: list[tuple[str, float, float, float, str]] = []
    for name in DRAWN:
        one, measure = summary["all"]["measures"].get(name), summary["measures"][name]
        if one and one["low"] is not None:
            scale = 100.0 if measure["unit"] == "share" else 1.0
            low, at, high = (scale * one[end] for end in ("low", "difference", "high"))
            shown.append((measure["title"], low, at, high, one["verdict"]))
    if not shown:
        return None
    reach = max(1.0, *(abs(end) for _, low, _, high, _ in shown for end in (low, high))) * 1.1
    middle, half = _FOREST_WIDTH / 2, _FOREST_WIDTH / 2 - _SIDE
    drawn, axes = canvas(_FOREST_WIDTH, _STEP * len(shown) + 22)
    told: list[str] = []
    for row, (title, low, at, high, verdict) in enumerate(shown):
        y, role = _STEP * row, _role(verdict)
        said = f"{_points(at)} ({_points(low)} to {_points(high)}), {verdict}"
        told.append(f"{title} {said}")
        label(axes, (0, y + _WORDS), title)
        label(axes, (_FOREST_WIDTH, y + _WORDS), said, role, ha="right")
        axes.plot([_SIDE, _FOREST_WIDTH - _SIDE], [y + _BAR] * 2, color=colour("line"), linewidth=1)
        axes.plot([middle] * 2, [y + _BAR - 6, y + _BAR + 6], color=colour("muted"), linewidth=1.5)
        axes.plot([middle + half * end / reach for end in (low, high)], [y + _BAR] * 2, color=colour(role), linewidth=3)
        _dot(axes, middle + half * at / reach, y + _BAR, role)
    foot = _STEP * len(shown) + 8
    label(axes, (0, foot), f"\N{MINUS SIGN}{charts.compact(reach)}", "muted", size=11)
    label(axes, (middle, foot), "no difference", "muted", size=11, ha="center")
    label(axes, (_FOREST_WIDTH, foot), f"+{charts.compact(reach)}", "muted", size=11, ha="right")
    title = "Differences between the tuned and the base model, with 95% intervals"
    return svg(drawn, "forest", title, f"{title}, in points of 100: {'; '.join(told)}.")


def _points(value: float) -> str:
    return signed("score", value)


def _role(verdict: str) -> str:
    return {"better": "after", "worse": "gone"}.get(verdict, "before")


def _dot(axes: Axes, x: float, y: float, role: str) -> None:
    axes.add_patch(Circle((x, y), 4.5, facecolor=colour(role), linewidth=0))


def by_source(summary: Mapping[str, Any], name: str) -> Panel | None:
    """Draw a measure of each source as a bar from the base to the tuned model; None where no source has both.

    Perplexities are on a scale of powers of ten, as sources differ by decades: equal bars, equal changes of loss.
    """
    measure = summary["measures"][name]
    lines = [
        (plain(source), one["base"], one["tuned"], one["verdict"])
        for source, group in summary["by_source"].items()
        if (one := group["measures"][name]) and None not in (one["base"], one["tuned"])
    ][:MOST_DRAWN]
    if not lines:
        return None
    values = [value for _, *ends, _ in lines for value in ends]
    log = measure["unit"] == "perplexity" and min(values) > 0
    low, high = (min(values) / 1.2, max(values) * 1.2) if log else (0.0, max(values) or 1.0)
    width, foot = float(charts.WIDTH), _STEP * len(lines)

    def across(value: float) -> float:
        part = log10(value / low) / log10(high / low) if log else (value - low) / (high - low)
        return _SIDE + (width - 2 * _SIDE) * part

    drawn, axes = canvas(width, foot + 18)
    axes.plot([_SIDE, width - _SIDE], [foot - 2] * 2, color=colour("line"), linewidth=1.5)
    for value in charts.rules(low, high, 4, log=log):
        x = across(value)
        axes.plot([x, x], [foot - 6, foot - 2], color=colour("muted"), linewidth=1)
        side = "left" if x < 2 * _SIDE else "right" if x > width - 2 * _SIDE else "center"
        text = f"{value:.0%}" if measure["unit"] == "share" else charts.tick(value)
        label(axes, (x, foot + 8), text, "muted", size=11, ha=side)
    for row, (source, before, after, verdict) in enumerate(lines):
        y, role = _STEP * row, _role(verdict)
        said = f"{written(measure['unit'], before)} → {written(measure['unit'], after)}"
        room = int((width - _LETTER * (len(said) + 2)) / _LETTER)
        label(axes, (0, y + _WORDS), charts.shortened(source, room))
        label(axes, (width, y + _WORDS), said, "muted", size=11, ha="right")
        ends = [across(value) for value in (before, after)]
        axes.plot(ends, [y + _BAR] * 2, color=colour(role), linewidth=2)
        axes.plot(ends[:1] * 2, [y + _BAR - 6, y + _BAR + 6], color=colour("before"), linewidth=2)
        _dot(axes, ends[1], y + _BAR, role)
    title = f"{measure['title']} by source"
    told = "; ".join(f"{source} {before:.3g} -> {after:.3g}, {verdict}" for source, before, after, verdict in lines)
    left_out = len(summary["by_source"]) - len(lines)
    notes = (
        f"from the base (bar) to the tuned model (dot){', by powers of ten' if log else ''}",
        *([f"{left_out} more in the table"] if left_out else []),
    )
    return Panel(title, svg(drawn, f"by-source-{name}", title, f"{title}: {told}."), notes)
