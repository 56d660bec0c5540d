"""Charts of what rows hold: distributions of one version or of two over each other, and shares of a whole.

Two versions are told apart by form as well as by colour: the later one is filled, the earlier one a dashed line.
"""

from collections.abc import Mapping, Sequence
from math import ceil, floor, log10

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from curate.measures import Histogram, Shares
from curate.report.svg import canvas, colour, figure, label, svg

WIDTH = 320
"""Pixels of a small chart's view box; several stand in a row, and one fills a phone."""
MOST_BARS = 6
"""Values of a share that get a bar of their own; the others are joined as one."""
SERIES = ("s0", "s1", "s2", "s3", "s4", "s5")
MOST_SEGMENTS = len(SERIES)

_HEIGHT = 128
_FOOT, _HEAD, _SIDE = 24, 20, 8


def compact(value: float) -> str:
    """Write a number so that it fits below an axis: 950, 1.2k, 3.4M."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.99995 * size:  # what is rounded to 1000 of the lesser kind
            return f"{value / size:.1f}".removesuffix(".0") + letter
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}".rstrip("0").rstrip(".") if digits and value != int(value) else f"{value:.0f}"


def exponential(value: float) -> str:
    """Write a number that has more digits than anybody reads: 3.1e26."""
    return f"{value:.1e}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")


def tick(value: float) -> str:
    """Write a value beside a rule: compact, a very small one as 1.5e-4, a huge one as 1e22."""
    return exponential(value).replace(".0e", "e") if value and not 0.01 <= abs(value) < 1e12 else compact(value)


def shortened(name: str, most: int) -> str:
    """Cut a long name in its middle: of names that are alike, the beginning is the same and the end tells."""
    if len(name) <= most:
        return name
    tail = max(most - 1, 0) // 2
    return f"{name[: max(most - 1 - tail, 0)]}…{name[len(name) - tail :]}"


def rules(low: float, high: float, most: int, *, log: bool = False) -> list[float]:
    """Give round values from `low` to `high`, about `most` of them, for the rules of a chart.

    `log`: for a scale of powers of ten, with steps between them where they are few. Within less than a decade such a
    scale is nearly an even one, and has its rules.
    """
    if log and low > 0:
        powers = range(floor(log10(low)), ceil(log10(high)) + 1)
        for steps in ((1, 2, 5), (1, 3), (1,)):
            found = [value for power in powers for step in steps if low <= (value := step * 10.0**power) <= high]
            if len(found) <= most + 2:
                break
        if len(found) > 1:
            return found[:: ceil(len(found) / (most + 2))]
    found = [float(value) for value in MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]
    return [value for value in found if low <= value <= high]


def middle(of: Histogram) -> str:
    """Say the median and the mean of what was measured."""
    if of.quartiles is None or of.mean is None:
        return "no rows"
    return f"median {compact(of.quartiles[1])}, mean {compact(of.mean)}"


def histogram(name: str, title: str, after: Histogram, before: Histogram | None = None) -> Markup:
    """Draw a distribution as shares of the rows measured, the earlier version over it. All buckets are equally wide."""
    drawn = figure(WIDTH, _HEIGHT)
    axes = drawn.add_axes(
        (_SIDE / WIDTH, _FOOT / _HEIGHT, 1 - 2 * _SIDE / WIDTH, 1 - (_FOOT + _HEAD) / _HEIGHT), frameon=False
    )
    places = list(range(len(after.counts) + 1))
    top = max((*_parts(after), *(_parts(before) if before else ())), default=0.0) or 1.0
    if after.rows:
        axes.stairs(_parts(after), places, fill=True, color=colour("after"), alpha=0.3, linewidth=0)
        axes.stairs(_parts(after), places, color=colour("after"), linewidth=1.5)
    if before and before.rows:
        axes.stairs(_parts(before), places, color=colour("before"), linewidth=1.5, linestyle=(0, (4, 2)))
    _frame(axes, after.edges, top)
    described = middle(after) if before is None else f"before: {middle(before)}; after: {middle(after)}"
    return svg(drawn, name, title, f"{title}: {described}.")


def _parts(of: Histogram) -> list[float]:
    total = sum(of.counts) or 1
    return [count / total for count in of.counts]


def _frame(axes: Axes, edges: Sequence[float], top: float) -> None:
    """Draw the ground, a line at the highest share, and some of the edges."""
    last = len(edges) - 1
    axes.set_xlim(0, max(last, 1))
    axes.set_ylim(0, top * 1.02)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.axhline(0, color=colour("line"), linewidth=2)
    axes.axhline(top, color=colour("line"), linewidth=1, linestyle=(0, (1, 2)))
    step = max(round(last / 4), 1)
    marks = [i for i in range(0, last + 1, step) if i == 0 or last - i >= step * 0.7] + ([last] if last else [])
    for i in dict.fromkeys(marks):
        place = "left" if i == 0 else "right" if i == last else "center"
        text = compact(edges[i]) if edges[i] != float("inf") else f"{compact(edges[i - 1])}+"
        label(axes, (i, -top * 0.2), text, "muted", size=11, ha=place)
    label(axes, (0, top * 1.13), f"{top:.0%} of rows", "muted", size=11)


def shares(name: str, title: str, after: Shares, before: Shares | None = None) -> Markup:
    """Draw the most frequent values as bars, with the earlier version's as dashed outlines."""
    parts = _joined(after, before)
    step, left, right = 24.0, 104.0, 104.0 if before else 52.0
    drawn, axes = canvas(WIDTH, max(step * len(parts), step) + 8)
    room = WIDTH - left - right
    top = max((value for _, pair in parts for value in pair), default=0.0) or 1.0
    for row, (value, (was, now)) in enumerate(parts):
        y = 4 + row * step
        label(axes, (left - 8, y + step / 2), value if len(value) <= 17 else value[:16] + "…", ha="right")
        axes.add_patch(
            Rectangle((left, y + 5), room * now / top, step - 10, facecolor=colour("after"), alpha=0.45, linewidth=0)
        )
        if before:
            axes.add_patch(
                Rectangle(
                    (left, y + 3),
                    room * was / top,
                    step - 6,
                    fill=False,
                    edgecolor=colour("before"),
                    linestyle=(0, (4, 2)),
                )
            )
        said = f"{_percent(was)} → {_percent(now)}" if before else _percent(now)
        label(axes, (WIDTH - 2, y + step / 2), said, "muted", size=11, ha="right")
    if not parts:
        label(axes, (WIDTH / 2, 16), "no rows", "muted", ha="center")
    told = ", ".join(
        f"{value} {_percent(was) + ' -> ' if before else ''}{_percent(now)}" for value, (was, now) in parts
    )
    return svg(drawn, name, title, f"{title}: {told or 'no rows'}.")


def _percent(part: float) -> str:
    if 0 < part < 0.001:
        return "< 0.1%"
    if 0.999 < part < 1:
        return "> 99.9%"
    return f"{part:.1%}" if 0 < part < 0.0995 or 0.9 < part < 1 else f"{part:.0%}"


def _joined(after: Shares, before: Shares | None) -> list[tuple[str, tuple[float, float]]]:
    """Pair the shares before and after, the greatest first, the small ones as "n others"."""
    was: Mapping[str, int] = before.counts if before else {}
    totals = sum(was.values()) or 1, sum(after.counts.values()) or 1
    names = sorted({*was, *after.counts}, key=lambda v: (-max(was.get(v, 0), after.counts.get(v, 0)), v))
    parts = [(v, (was.get(v, 0) / totals[0], after.counts.get(v, 0) / totals[1])) for v in names]
    if len(parts) <= MOST_BARS:
        return parts
    rest = parts[MOST_BARS - 1 :]
    together = sum(p[0] for _, p in rest), sum(p[1] for _, p in rest)
    return [*parts[: MOST_BARS - 1], (f"{len(rest)} others", together)]


def mix(name: str, title: str, bars: Mapping[str, Mapping[str, float]]) -> Markup:
    """Draw wholes as bars cut into their parts: one bar for each of `bars`, the same order and colour in all of them.

    Parts beyond `MOST_SEGMENTS` are joined. A segment too narrow for its name has none: the table beside tells all.
    """
    weight: dict[str, float] = {}
    for parts in bars.values():
        for part, amount in parts.items():
            weight[part] = max(weight.get(part, 0), amount)
    order = sorted(weight, key=lambda part: (-weight[part], part))
    own, rest = (order, []) if len(order) <= MOST_SEGMENTS else (order[: MOST_SEGMENTS - 1], order[MOST_SEGMENTS - 1 :])
    width, step, left = 900.0, 40.0, 64.0 if len(bars) > 1 else 0.0
    drawn, axes = canvas(width, step * max(len(bars), 1))
    told: dict[str, str] = {}
    said: list[str] = []
    for row, (bar, parts) in enumerate(bars.items()):
        y, x, total = row * step + 3, left, sum(parts.values()) or 1
        if left:
            label(axes, (0, y + step / 2 - 3), bar, "muted")
        segments = [(part, parts.get(part, 0)) for part in own]
        if rest:
            segments.append((f"{len(rest)} others", sum(parts.get(part, 0) for part in rest)))
        for number, (part, amount) in enumerate(segments):
            span = (width - left) * amount / total
            words = f"{part} {_percent(amount / total)}"
            if span > 0:
                gid = f"{name}-{row}-{number}"
                told[gid] = f"{bar}: {words}"
                axes.add_patch(
                    Rectangle(
                        (x, y), max(span - 2, 0.5), step - 8, facecolor=colour(SERIES[number]), linewidth=0, gid=gid
                    )
                )
                inside = next(
                    (told for told in (words, part, _percent(amount / total)) if span > 7 * len(told) + 14), ""
                )
                label(axes, (x + 8, y + step / 2 - 4), inside)
            x += span
        said.append(f"{bar}: " + ", ".join(f"{part} {_percent(amount / total)}" for part, amount in segments if amount))
    return svg(drawn, name, title, "; ".join(said) + ".", told)
