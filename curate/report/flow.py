"""The flow of rows: from the sources through the stages into the splits, and from one fate to another between versions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from curate.diff.account import Transition
from curate.report.svg import canvas, colour, label, svg
from curate.report.text import plain
from schemas.dataset import Dataset
from schemas.manifest import StageCount
from schemas.stages import SPLITS, STAGES

MOST_ENDS = 8
"""Sources or fates that stand on one side of a picture by themselves; the smaller ones are joined as "n others"."""
THINNEST = 1.5
"""Pixels of the thinnest band: two rows of a million are drawn, thicker than they are."""

_WIDTH, _BAR = 960.0, 10.0
_NAME = 26
"""Characters of a name beside a bar."""
_TRUNK = 190.0
"""Pixels of a band that is all rows."""
_A_ROW = 6.0
"""Pixels of a row at most, so that five rows do not look like a landslide."""
_SLOT = 36.0
"""Pixels from one label to the next at least, so that labels never overlap."""


@dataclass(frozen=True)
class Flow:
    """Rows of a version: those that came in by source, those through each stage, those kept by split."""

    sources: Mapping[str, int]
    stages: tuple[StageCount, ...]
    splits: Mapping[str, int]

    @property
    def rows(self) -> int:
        """All rows that came in."""
        return sum(self.sources.values())

    @property
    def kept(self) -> int:
        """Rows that are kept."""
        return sum(self.splits.values())

    @property
    def rejecting(self) -> tuple[StageCount, ...]:
        """The stages that leave rows out."""
        return tuple(stage for stage in self.stages if stage.rejected)


def flow_of(dataset: Dataset) -> Flow:
    """Count the rows of a version. Reads: source, kept, split."""
    columns = ["source", "kept", "split"]
    counts = [shard.view(columns).group_by(columns).len() for shard in dataset.shards]
    found = (
        pl.concat(pl.collect_all(counts)) if counts else pl.DataFrame(schema=dict.fromkeys([*columns, "len"], pl.Null))
    )
    sources: dict[str, int] = {source.name: 0 for source in dataset.manifest.sources}
    splits: dict[str, int] = {}
    for source, kept, split, rows in found.iter_rows():
        sources[source] = sources.get(source, 0) + rows
        if kept:
            splits[split or "kept"] = splits.get(split or "kept", 0) + rows
    places = {split: place for place, split in enumerate(SPLITS)}
    ordered = dict(sorted(splits.items(), key=lambda pair: (places.get(pair[0], len(places)), pair[0])))
    return Flow(sources, dataset.manifest.counts, ordered)


@dataclass(frozen=True)
class _End:
    """A bar at one side: its name, rows, thickness and the upper end of it."""

    name: str
    rows: int
    thick: float
    top: float


def _ends(amounts: Iterable[tuple[str, int]], scale: float, start: float = 8.0) -> list[_End]:
    """Stack bars from top to bottom, each with room for its label of two lines."""
    placed: list[_End] = []
    y = start
    for name, rows in amounts:
        thick = max(rows * scale, THINNEST)
        room = max(thick, _SLOT)
        placed.append(_End(name, rows, thick, y + (room - thick) / 2))
        y += room + 8
    return placed


def _sides(left: Sequence[_End], right: Sequence[_End]) -> tuple[float, float]:
    """Give the pixels that the names need on each side."""
    longest = (max((len(_short(end.name)) for end in ends), default=0) for ends in (left, right))
    one, other = (max(7.4 * letters + 12, 50.0) for letters in longest)
    return one, other


def _short(name: str) -> str:
    name = plain(name)
    return name if len(name) <= _NAME else name[: _NAME - 1] + "…"


def _joined(amounts: Mapping[str, int]) -> list[tuple[str, int]]:
    named = [(name, rows) for name, rows in amounts.items() if rows]
    if len(named) <= MOST_ENDS:
        return named
    great = {name for name, _ in sorted(named, key=lambda pair: -pair[1])[: MOST_ENDS - 1]}
    rest = [rows for name, rows in named if name not in great]
    return [*((name, rows) for name, rows in named if name in great), (f"{len(rest)} others", sum(rest))]


def flow_chart(flow: Flow, name: str, title: str) -> Markup:
    """Draw sources on the left, one band of the rows that are left, what each stage leaves out below, splits on the right."""
    total = max(flow.rows, 1)
    scale = _TRUNK / total
    sources, splits = _ends(_joined(flow.sources), scale), _ends(_joined(flow.splits), scale)
    stages = flow.rejecting
    levels = 1 if len(stages) <= 7 else 2
    heights = [end.top + end.thick + 16 for end in (*sources, *splits)]
    out = [sum(stage.rejected.values()) for stage in stages]
    deepest = max((max(rows * scale, THINNEST) for rows in out), default=0.0)
    top = 8.0 if not stages else 14.0
    bottom = top + _TRUNK + 34
    height = max([*heights, bottom + deepest + 20 + 34 * levels if stages else top + _TRUNK + 8])
    drawn, axes = canvas(_WIDTH, height)
    near, far = _sides(sources, splits)
    first, last = near + 100, _WIDTH - far - 100
    told: dict[str, str] = {}

    def band(x: tuple[float, float], y: tuple[float, float], thick: float, role: str, words: str) -> None:
        gid = f"{name}-band-{len(told)}"
        told[gid] = words
        _band(axes, x, y, thick, role, gid)

    y = top
    for number, source in enumerate(sources):
        _end(axes, near, source, f"s{number % 6}", left=True)
        share = source.rows * scale
        words = f"{source.name}: {source.rows:,} rows"
        band((near + _BAR, first), (source.top, y), max(share, THINNEST), f"s{number % 6}", words)
        y += share
    left = flow.rows
    step = (last - first) / (len(stages) or 1)
    x = first
    for number, (stage, rows) in enumerate(zip(stages, out, strict=True)):
        following = first + step * (number + 1)
        axes.add_patch(Rectangle((x, top), _BAR, left * scale, facecolor=colour("after"), linewidth=0))
        left -= rows
        words = f"after {stage.stage}: {left:,} rows"
        band((x + _BAR, following), (top, top), max(left * scale, THINNEST), "after", words)
        thick, end = max(rows * scale, THINNEST), x + min(step * 0.55, 90)
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in stage.rejected.items())
        band((x + _BAR, end), (top + left * scale, bottom), thick, "gone", f"{stage.stage} leaves out {reasons}")
        axes.add_patch(Rectangle((end, bottom), _BAR, thick, facecolor=colour("gone"), linewidth=0))
        under = bottom + deepest + 14 + 34 * (number % levels)
        label(axes, end + _BAR / 2, under, stage.stage, weight="bold", ha="center", va="center")
        label(axes, end + _BAR / 2, under + 15, f"−{rows:,}", "gone", ha="center", va="center")
        x = following
    if not stages:
        words = f"{left:,} rows, none left out"
        axes.add_patch(Rectangle((first, top), _BAR, left * scale, facecolor=colour("after"), linewidth=0))
        band((first + _BAR, last), (top, top), max(left * scale, THINNEST), "after", words)
    axes.add_patch(Rectangle((last, top), _BAR, max(left * scale, THINNEST), facecolor=colour("after"), linewidth=0))
    y = top
    for split in splits:
        words = f"{split.name}: {split.rows:,} rows"
        band((last + _BAR, _WIDTH - far - _BAR), (y, split.top), max(split.rows * scale, THINNEST), "after", words)
        _end(axes, _WIDTH - far - _BAR, split, "after", left=False)
        y += split.rows * scale
    return svg(drawn, name, title, _told(flow), told)


def _told(flow: Flow) -> str:
    inward = ", ".join(f"{name} {rows:,}" for name, rows in flow.sources.items())
    out = ", ".join(f"{s.stage} leaves out {sum(s.rejected.values()):,}" for s in flow.rejecting) or "none is left out"
    kept = ", ".join(f"{name} {rows:,}" for name, rows in flow.splits.items())
    return (
        f"{flow.rows:,} rows come in: {inward}. {out}. {flow.kept:,} are kept: {kept}. The table below has all numbers."
    )


def transition_chart(transitions: Sequence[Transition], name: str, title: str) -> Markup | None:
    """Draw the rows whose fate is another one than before; None where there are none. Rows that share it are not drawn."""
    moved = [t for t in transitions if t.before != t.after and t.rows]
    if not moved:
        return None
    total = sum(t.rows for t in moved)
    before, after = (
        {fate: 0 for fate in sorted({getattr(t, side) for t in moved}, key=_fate)} for side in ("before", "after")
    )
    for t in moved:
        before[t.before] += t.rows
        after[t.after] += t.rows
    scale = min(_TRUNK / total, _A_ROW)
    joined = _joined(before), _joined(after)
    ends = tuple(_ends(side, scale) for side in joined)
    near, far = _sides(*ends)
    height = max(end.top + max(end.thick, 16) + 18 for side in ends for end in side)
    drawn, axes = canvas(_WIDTH, height)
    at = {(side, end.name): end for side, placed in enumerate(ends) for end in placed}
    used = {key: 0.0 for key in at}
    bands: dict[tuple[str, str], int] = {}
    for t in moved:
        pair = (
            t.before if (0, t.before) in at else ends[0][-1].name,
            t.after if (1, t.after) in at else ends[1][-1].name,
        )
        bands[pair] = bands.get(pair, 0) + t.rows
    told: dict[str, str] = {}
    order = (
        {end.name: place for place, end in enumerate(ends[1])},
        {end.name: place for place, end in enumerate(ends[0])},
    )
    for (was, now), rows in sorted(bands.items(), key=lambda b: (order[1][b[0][0]], order[0][b[0][1]])):
        source, target = at[0, was], at[1, now]
        gid = f"{name}-band-{len(told)}"
        told[gid] = f"{was} → {now}: {rows:,} rows"
        ys = source.top + used[0, was], target.top + used[1, now]
        _band(axes, (near + _BAR, _WIDTH - far - _BAR), ys, max(rows * scale, THINNEST), _role(now, was), gid)
        used[0, was] += rows * scale
        used[1, now] += rows * scale
    for side, left in ((0, True), (1, False)):
        for end in ends[side]:
            x = near if left else _WIDTH - far - _BAR
            _end(axes, x, end, _role(end.name, ""), left=left)
    told_all = ", ".join(f"{t.before} to {t.after}: {t.rows:,}" for t in moved)
    return svg(drawn, name, title, f"Rows whose fate changed: {told_all}.", told)


def _fate(fate: str) -> tuple[int, int, str]:
    """Order fates: kept, left out by stages in their order, not there."""
    if fate == "kept":
        return 0, 0, fate
    stage = fate.removeprefix("rejected by ")
    return (1, STAGES.index(stage), fate) if stage in STAGES else (2, 0, fate)


def _role(now: str, was: str) -> str:
    """Choose the colour of a band by where it ends: kept, left out, or left out as before."""
    if now == "kept":
        return "after"
    return "gone" if was in ("kept", "") and now != "not there" or now == "not there" and was == "kept" else "before"


def _end(axes: Axes, x: float, end: _End, role: str, *, left: bool) -> None:
    """Draw a bar with its name and rows beside it, away from the bands."""
    axes.add_patch(Rectangle((x, end.top), _BAR, end.thick, facecolor=colour(role), linewidth=0))
    beside, middle = (x - 8, end.top + end.thick / 2) if left else (x + _BAR + 8, end.top + end.thick / 2)
    how = {"ha": "right" if left else "left", "va": "center"}
    label(axes, beside, middle - 8, _short(end.name), weight="bold", **how)
    label(axes, beside, middle + 8, f"{end.rows:,}", "muted", **how)


def _band(axes: Axes, x: tuple[float, float], y: tuple[float, float], thick: float, role: str, gid: str) -> None:
    """Draw a band of even thickness between two heights: Bezier curves that leave and arrive level."""
    half = (x[0] + x[1]) / 2
    corners = [(x[0], y[0]), (half, y[0]), (half, y[1]), (x[1], y[1])]
    back = [(x[1], y[1] + thick), (half, y[1] + thick), (half, y[0] + thick), (x[0], y[0] + thick)]
    codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    path = Path([*corners, *back, corners[0]], codes)
    axes.add_patch(PathPatch(path, facecolor=colour(role), alpha=0.35, linewidth=0, gid=gid))
