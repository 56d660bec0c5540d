"""The flow of rows: from the sources through the stages into the splits, and between versions from fate to fate."""

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
_TOP, _BOTTOM = 14.0, 238.0
"""Where the band of rows begins, and where the rows lie that are left out."""
_STAGES_IN_A_LINE = 7
"""Names of stages that fit beside each other; more of them stand on two lines in turn."""
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
    one, other = (max(7.8 * letters + 18, 50.0) for letters in longest)
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


@dataclass(frozen=True)
class _Picture:
    """What is being drawn: so many pixels a row, and what the bands say to a pointer."""

    axes: Axes
    name: str
    scale: float
    told: dict[str, str]

    def thick(self, rows: int) -> float:
        return max(rows * self.scale, THINNEST)

    def bar(self, x: float, y: float, rows: int, role: str) -> None:
        self.axes.add_patch(Rectangle((x, y), _BAR, self.thick(rows), facecolor=colour(role), linewidth=0))

    def band(self, x: tuple[float, float], y: tuple[float, float], rows: int, *, role: str, words: str) -> None:
        """Draw a band of even thickness between two heights: Bezier curves that leave and arrive level."""
        gid, half, thick = f"{self.name}-band-{len(self.told)}", (x[0] + x[1]) / 2, self.thick(rows)
        self.told[gid] = words
        corners = [(x[0], y[0]), (half, y[0]), (half, y[1]), (x[1], y[1])]
        back = [(a, b + thick) for a, b in reversed(corners)]
        codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
        path = Path([*corners, *back, corners[0]], codes)
        self.axes.add_patch(PathPatch(path, facecolor=colour(role), alpha=0.35, linewidth=0, gid=gid))

    def end(self, x: float, end: _End, role: str, *, left: bool) -> None:
        """Draw a bar with its name and rows beside it, away from the bands."""
        self.bar(x, end.top, end.rows, role)
        beside, middle = x - 8 if left else x + _BAR + 8, end.top + end.thick / 2
        label(self.axes, (beside, middle - 8), _short(end.name), ha="right" if left else "left", bold=True)
        label(self.axes, (beside, middle + 8), f"{end.rows:,}", "muted", ha="right" if left else "left")


def flow_chart(flow: Flow, name: str, title: str) -> Markup:
    """Draw sources on the left, the rows that are left in the middle, what each stage leaves out below, then splits."""
    scale = _TRUNK / max(flow.rows, flow.kept, 1)
    sources, splits = _ends(_joined(flow.sources), scale), _ends(_joined(flow.splits), scale)
    levels = 1 if len(flow.rejecting) <= _STAGES_IN_A_LINE else 2
    deepest = max((sum(stage.rejected.values()) * scale for stage in flow.rejecting), default=0.0)
    below = _BOTTOM + deepest + 20 + 34 * levels if flow.rejecting else _TOP + _TRUNK + 8
    drawn, axes = canvas(_WIDTH, max([below, *(end.top + end.thick + 16 for end in (*sources, *splits))]))
    picture = _Picture(axes, name, scale, {})
    near, far = _sides(sources, splits)
    first, last = near + 100, _WIDTH - far - 100
    y = _TOP
    for number, source in enumerate(sources):
        role, words = f"s{number % 6}", f"{source.name}: {source.rows:,} rows"
        picture.end(near, source, role, left=True)
        picture.band((near + _BAR, first), (source.top, y), source.rows, role=role, words=words)
        y += source.rows * scale
    _draw_stages(picture, flow, (first, last), deepest)
    picture.bar(last, _TOP, flow.kept, "after")
    y = _TOP
    for split in splits:
        words = f"{split.name}: {split.rows:,} rows"
        picture.band((last + _BAR, _WIDTH - far - _BAR), (y, split.top), split.rows, role="after", words=words)
        picture.end(_WIDTH - far - _BAR, split, "after", left=False)
        y += split.rows * scale
    return svg(drawn, name, title, _told(flow), picture.told)


def _draw_stages(picture: _Picture, flow: Flow, ends: tuple[float, float], deepest: float) -> None:
    """Draw the band of the rows that are left from one end to the other; what each stage leaves out bends down."""
    stages, left = flow.rejecting, flow.rows
    picture.bar(ends[0], _TOP, left, "after")
    if not stages:
        words = f"{left:,} rows, none left out"
        picture.band((ends[0] + _BAR, ends[1]), (_TOP, _TOP), left, role="after", words=words)
    step = (ends[1] - ends[0]) / (len(stages) or 1)
    for number, stage in enumerate(stages):
        x, rows = ends[0] + step * number, sum(stage.rejected.values())
        picture.bar(x, _TOP, left, "after")
        left -= rows
        words = f"after {stage.stage}: {left:,} rows"
        picture.band((x + _BAR, x + step), (_TOP, _TOP), left, role="after", words=words)
        out = x + min(step * 0.55, 90)
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in stage.rejected.items())
        words = f"{stage.stage} leaves out {reasons}"
        picture.band((x + _BAR, out), (_TOP + left * picture.scale, _BOTTOM), rows, role="gone", words=words)
        picture.bar(out, _BOTTOM, rows, "gone")
        under = _BOTTOM + deepest + 14 + 34 * (number % 2 if len(stages) > _STAGES_IN_A_LINE else 0)
        label(picture.axes, (out + _BAR / 2, under), stage.stage, ha="center", bold=True)
        label(picture.axes, (out + _BAR / 2, under + 15), f"−{rows:,}", "gone", ha="center")


def _told(flow: Flow) -> str:
    inward = ", ".join(f"{name} {rows:,}" for name, rows in flow.sources.items())
    out = ", ".join(f"{s.stage} leaves out {sum(s.rejected.values()):,}" for s in flow.rejecting) or "none is left out"
    kept = ", ".join(f"{name} {rows:,}" for name, rows in flow.splits.items())
    return (
        f"{flow.rows:,} rows come in: {inward}. {out}. {flow.kept:,} are kept: {kept}. The table below has all numbers."
    )


def transition_chart(transitions: Sequence[Transition], name: str, title: str) -> Markup | None:
    """Draw the rows whose fate is another one than before; None where there are none."""
    moved = [t for t in transitions if t.before != t.after and t.rows]
    if not moved:
        return None
    total = sum(t.rows for t in moved)
    before, after = (
        dict.fromkeys(sorted({getattr(t, side) for t in moved}, key=_fate), 0) for side in ("before", "after")
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
    picture = _Picture(axes, name, scale, {})
    at = {(side, end.name): end for side, placed in enumerate(ends) for end in placed}
    used = dict.fromkeys(at, 0.0)
    bands: dict[tuple[str, str], int] = {}
    for t in moved:
        pair = (
            t.before if (0, t.before) in at else ends[0][-1].name,
            t.after if (1, t.after) in at else ends[1][-1].name,
        )
        bands[pair] = bands.get(pair, 0) + t.rows
    places = [{end.name: place for place, end in enumerate(side)} for side in ends]
    across = (near + _BAR, _WIDTH - far - _BAR)
    for (was, now), rows in sorted(bands.items(), key=lambda b: (places[0][b[0][0]], places[1][b[0][1]])):
        heights = at[0, was].top + used[0, was], at[1, now].top + used[1, now]
        picture.band(across, heights, rows, role=_role(now, was), words=f"{was} → {now}: {rows:,} rows")
        used[0, was] += rows * scale
        used[1, now] += rows * scale
    for end in ends[0]:
        picture.end(near, end, _role(end.name, ""), left=True)
    for end in ends[1]:
        picture.end(_WIDTH - far - _BAR, end, _role(end.name, ""), left=False)
    told_all = ", ".join(f"{t.before} to {t.after}: {t.rows:,}" for t in moved)
    return svg(drawn, name, title, f"Rows whose fate changed: {told_all}.", picture.told)


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
    left_out = now != "not there" and was in ("kept", "")
    return "gone" if left_out or (now == "not there" and was == "kept") else "before"
