"""A diff, and a version, as one HTML file for people: no network, light and dark, readable without its script.

Everything in the file is made on this machine: charts as inline SVG, one style sheet, one small script, and a policy
(Content-Security-Policy) that lets the page load and run nothing else. A record's text goes through
`curate.report.text`. The same account gives the same bytes.
"""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from curate.diff.account import Account, Drift, EditedRow
from curate.measures import ALL, NUMBERS, Histogram, Shares
from curate.portrait import Portrait
from curate.report import charts
from curate.report.changes import MEANINGS, changes_of, choices_of, stage_order
from curate.report.flow import flow_chart, flow_of, transition_chart
from curate.report.text import folded, pieces_shown, plain, shown
from schemas.dataset import Dataset
from schemas.reasons import REASONS, sentence

EDITS_CHARACTERS = 6_000_000
"""Characters of edited texts that go into the file, of each stage alike many."""
MOST_CHARTS = 24
"""Drift charts: those with the greatest statistic; the table has all."""
MOST_ROWS = 500
"""Rows of a table of single rows (leaks, reviews); a longer one says what is left out, and which command lists it."""

MOST_MAKERS = 40
"""Combinations of kind, stage and cause that the verdict names; the table of changes can be filtered by all."""
DRAWN_DRIFT = 0.005
"""The least statistic that is drawn: below it one row in two hundred stands elsewhere, and two lines look like one."""

_TEMPLATES = Path(__file__).parent / "templates"

MEASURES = {
    "tokens": "Tokens",
    "turns": "Turns",
    "words": "Words in answers",
    "quality": "Quality",
    "score": "Score",
    "language": "Language",
    "task": "Task",
}


def measure_name(measure: str) -> str:
    """Name a measure as a heading."""
    return MEASURES.get(measure, measure.replace("_", " ").capitalize())


def change(before: float, after: float) -> str:
    """Write a difference of counts: "+120 (+1.0%)", "no change"."""
    gap = after - before
    if not gap:
        return "no change"
    share = gap / before if before else 0.0
    part = "" if not before else f" ({share:+.1%})" if abs(share) >= 0.0005 else " (less than 0.1%)"
    return f"{gap:+,}{part}".replace("-", "−")


def quoted(value: Any) -> str:
    """Write a setting as JSON; nothing where it is not there."""
    return "—" if value is None else json.dumps(value, ensure_ascii=False, default=str)


_SAID = {"change": change, "known": REASONS, "sentence": sentence, "middle": charts.middle}
"""What every template can call."""


def _visible(value: object) -> object:
    """Give what a template writes without hidden characters, wherever it came from. Markup has been through `shown`."""
    return plain(value) if type(value) is str else value


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "shown": shown,
        "plain": plain,
        "folded": folded,
        "pieces": pieces_shown,
        "number": lambda value: f"{value:,}",
        "percent": lambda part: f"{part:.1%}",
        "quoted": quoted,
        "measure": measure_name,
    }
    return made


def page_of(template: str, values: Mapping[str, Any]) -> str:
    """Fill a template with its style sheet and script, and with the hashes that allow them."""
    style, script = (Markup((_TEMPLATES / name).read_text("utf-8")) for name in ("page.css", "page.js"))  # noqa: S704 - our own files
    policy = (
        f"default-src 'none'; style-src 'sha256-{_hash(style)}'; script-src 'sha256-{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    filled = _environment().get_template(template).render(style=style, script=script, policy=policy, **_SAID, **values)
    return filled.encode("utf-8", "replace").decode("utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@dataclass(frozen=True)
class Author:
    """What made edits: the name of a rule, of an edit or of a reviewer, what it does, how many rows."""

    name: str
    meaning: str
    rows: int


@dataclass(frozen=True)
class EditGroup:
    """The edited rows of one stage, and what made them."""

    stage: str
    rows: tuple[EditedRow, ...]
    makers: tuple[Author, ...]


def edit_groups(edits: Sequence[EditedRow]) -> tuple[EditGroup, ...]:
    """Group edited rows by stage, as many as fit into `EDITS_CHARACTERS`, of each stage alike many."""
    by_stage: dict[str, list[EditedRow]] = {}
    for row in edits:
        by_stage.setdefault(row.stage, []).append(row)
    turns = sorted(
        ((place, stage_order(stage), row) for stage, rows in by_stage.items() for place, row in enumerate(rows)),
        key=lambda t: t[:2],
    )
    chosen: dict[str, list[EditedRow]] = {}
    room = EDITS_CHARACTERS
    for _, _, row in turns:
        room -= 500 + sum(len(text) for changed in row.texts for _, text in changed.pieces)
        if room < 0:
            break
        chosen.setdefault(row.stage, []).append(row)
    return tuple(
        EditGroup(stage, tuple(rows), _makers(rows))
        for stage, rows in sorted(chosen.items(), key=lambda pair: stage_order(pair[0]))
    )


def _makers(rows: Sequence[EditedRow]) -> tuple[Author, ...]:
    counts = Counter(name for row in rows for name in row.by)
    return tuple(
        Author(name, REASONS.get(name, ""), n) for name, n in sorted(counts.items(), key=lambda p: (-p[1], p[0]))
    )


@dataclass(frozen=True)
class Panel:
    """A chart with what stands below it."""

    title: str
    chart: Markup
    notes: tuple[str, ...] = ()


def _drift_panel(drift: Drift, name: str) -> Panel:
    title = f"{measure_name(drift.measure)}, {drift.source}"
    test = f"{drift.test} {drift.statistic:.3f}" + (f", p {_probability(drift.p)}" if drift.p is not None else "")
    return Panel(title, _overlay(drift, name, title), (test,))


def _overlay(drift: Drift, name: str, title: str) -> Markup:
    before, after = drift.before, drift.after
    if isinstance(before, Histogram) and isinstance(after, Histogram):
        return charts.histogram(name, title, after, before)
    if isinstance(before, Shares) and isinstance(after, Shares):
        return charts.shares(name, title, after, before)
    raise TypeError(f"{drift.measure}: a histogram cannot be compared with shares")


def _probability(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _measured(of: Histogram | Shares, name: str, title: str) -> Panel:
    if isinstance(of, Shares):
        return Panel(title, charts.shares(name, title, of), _unknown(of.unknown))
    return Panel(title, charts.histogram(name, title, of), (charts.middle(of), *_unknown(of.unknown)))


def _unknown(rows: int) -> tuple[str, ...]:
    return (f"{rows:,} rows have none",) if rows else ()


def diff_page(account: Account) -> str:
    """Write the page of a diff. What it leaves out for its size is stated, with the command that lists it."""
    before, after = account.before, account.after
    drift = sorted(account.drift, key=lambda d: (-d.statistic, d.source, d.measure))
    flows = tuple(flow_of(dataset) for dataset in (account.diff.before, account.diff.after))
    groups = edit_groups(account.edits)
    held = [row for group in groups for row in group.rows]
    drawn = [d for d in drift if d.statistic >= DRAWN_DRIFT][:MOST_CHARTS]
    overlays = tuple(_drift_panel(d, f"drift-{n}") for n, d in enumerate(drawn))
    values: dict[str, Any] = {
        "account": account,
        "title": f"{before.name}@{before.seq} → {after.name}@{after.seq}",
        "meanings": MEANINGS,
        "command": f"sft diff {before.name}@{before.seq} {after.name}@{after.seq}",
        "flows": tuple(zip(("before", "after"), flows, strict=True)),
        "flow_charts": tuple(
            flow_chart(flow, f"flow-{when}", f"Rows of {side.name}@{side.seq} through the stages")
            for when, flow, side in zip(("before", "after"), flows, (before, after), strict=True)
        ),
        "stages": _stage_pairs(account),
        "fates": transition_chart(account.transitions, "fates", "Rows whose fate changed"),
        "mix_sources": _mix(account, "sources"),
        "mix_licences": _mix(account, "licences"),
        "drift": drift,
        "overlays": overlays,
        "unmoved": _undrawn(drift, len(overlays)),
        "groups": groups,
        "edits_held": len(held),
        "edit_words": choices_of(row.word for row in held),
        "edit_stages": choices_of(row.stage for row in held),
        "edit_makers": choices_of(name for row in held for name in row.by),
        "edit_sources": choices_of(row.source for row in held),
        "splits": tuple(sorted({split for pair in account.moves for split in pair}, key=_split_order)),
        "most_rows": MOST_ROWS,
        "most_makers": MOST_MAKERS,
        "changes": changes_of(account),
    }
    return page_of("diff.html", values)


def _undrawn(drift: Sequence[Drift], drawn: int) -> str:
    """Say which measures have no chart."""
    same = sum(d.statistic == 0 for d in drift)
    less = len(drift) - same - drawn
    told = [
        f"{count:,} {what}" for count, what in ((same, "with no difference"), (less, "with a smaller one")) if count
    ]
    return f"Measures without a chart: {', '.join(told)}. The table has all." if told else ""


def _split_order(split: str) -> tuple[int, str]:
    places = {"train": 0, "val": 1, "test": 2}
    return places.get(split, len(places)), split


def _stage_pairs(account: Account) -> list[tuple[str, Any, Any]]:
    """Pair the counts of each stage before and after; None where a stage did not run."""
    sides = [{count.stage: count for count in side.stages} for side in (account.before, account.after)]
    return [(s, sides[0].get(s), sides[1].get(s)) for s in sorted({*sides[0], *sides[1]}, key=stage_order)]


def _mix(account: Account, what: str) -> Markup | None:
    parts = account.sources if what == "sources" else account.licences
    if not any(part.tokens_before or part.tokens_after for part in parts):
        return None
    bars = {
        "before": {part.name: part.tokens_before for part in parts},
        "after": {part.name: part.tokens_after for part in parts},
    }
    title = "Share of tokens by source" if what == "sources" else "Share of tokens by class of licence"
    return charts.mix(f"mix-{what}", title, {bar: amounts for bar, amounts in bars.items() if any(amounts.values())})


def version_page(portrait: Portrait, dataset: Dataset) -> str:
    """Write the page of a version: a data card that people look at."""
    summary = portrait.summary
    flow = flow_of(dataset)
    measures = {
        source: tuple(
            (measure, _measured(of, f"measure-{number}-{place}", measure_name(measure)))
            for place, (measure, of) in enumerate(own.items())
        )
        for number, (source, own) in enumerate(portrait.measures.items())
    }
    whole = ALL if ALL in measures else next(iter(measures), ALL)
    sources = {source.name: source.tokens for source in portrait.sources}
    values: dict[str, Any] = {
        "portrait": portrait,
        "summary": summary,
        "manifest": dataset.manifest,
        "ref": f"{summary.name}@{summary.seq}",
        "title": f"{summary.name}@{summary.seq}",
        "flow": flow,
        "flow_chart": flow_chart(flow, "flow", f"Rows of {summary.name}@{summary.seq} through the stages"),
        "mix": charts.mix("mix", "Share of tokens by source", {"": sources}) if any(sources.values()) else None,
        "overall": tuple(panel for measure, panel in measures.get(whole, ()) if measure in NUMBERS),
        "kinds": tuple(panel for measure, panel in measures.get(whole, ()) if measure not in NUMBERS),
        "by_source": {
            source: tuple(panel for _, panel in panels) for source, panels in measures.items() if source != whole
        },
        "kept_samples": portrait.samples.get("kept", ()),
        "rejected_samples": {why: rows for why, rows in portrait.samples.items() if why != "kept" and rows},
    }
    return page_of("version.html", values)
