"""An evaluation of a run as one HTML file: the verdict, the measures, and every answer beside its reference.

It is made of the files of the evaluation alone (docs/evaluation.md has their keys). What a model says is text like any
other record's: it goes through `curate.report.text`. The same files give the same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import Circle

from curate.change import word_diff
from curate.measures import edges, histogram
from curate.report import charts
from curate.report.changes import Choice, choices_of
from curate.report.page import Panel, page_of
from curate.report.svg import canvas, colour, label, svg

ANSWERS_CHARACTERS = 6_000_000
"""Characters of prompts, references and answers that go into the file, of each group alike many."""
MOST_DRAWN = 12
"""Sources that a chart has a line for; the table has all."""

WRITTEN = {
    "share": "{:.1%}",
    "score": "{:.1f}",
    "loss": "{:.3f}",
    "perplexity": "{:,.2f}",
    "ratio": "{:.2f}",
    "tokens": "{:,.1f}",
}
"""How a measure is written, by its unit."""

TILES = ("perplexity", "token_f1", "rouge_l", "exact_match", "unstopped")
DRAWN = ("exact_match", "token_f1", "rouge_l", "bleu", "chrf")
"""Measures whose differences are drawn: all of them can be put on a scale of 0 to 100."""
BY_GROUP = ("perplexity", "token_f1", "rouge_l", "exact_match", "unstopped")

HEADLINES = {
    "better": (
        "Better",
        "The tuned model is better than its base in what the verdict rests on, and not worse in any of it.",
    ),
    "worse": (
        "Worse",
        "The tuned model is worse than its base in what the verdict rests on, and not better in any of it.",
    ),
    "mixed": ("Mixed", "The tuned model is better in one way and worse in another."),
    "no clear difference": ("No clear difference", "What differs could as well be chance: more rows would tell."),
    "too few records": ("Too few rows", "With so few rows no difference can be told from chance."),
}
"""A verdict as people read it."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One measure of one group, written out; with a base beside it, the difference and what it comes to."""

    title: str
    tuned: str
    base: str = ""
    difference: str = ""
    interval: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Text:
    """One text of an answer's article: who says it, and either the text or its difference to the reference."""

    who: str
    text: str | None
    pieces: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Article:
    """One record, its answers beside each other."""

    id: str
    source: str
    category: str
    marks: tuple[str, ...]
    measures: tuple[str, ...]
    texts: tuple[Text, ...]


@dataclass(frozen=True)
class Group:
    """Records whose answers came nearer to the reference, or went away from it, or neither."""

    title: str
    told: str
    articles: tuple[Article, ...]


def evaluation_page(summary: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Write the page of an evaluation: `summary` is its account, `rows` a row for each record."""
    base = bool(summary["base"])
    answered = [row for row in rows if row["tuned"]["answer"]]
    groups = _groups(answered, base=base)
    held = [article for group in groups for article in group.articles]
    by_id = {row["id"]: row for row in answered}
    cells = _cells(summary, summary["all"])
    data = summary["data"]
    values: dict[str, Any] = {
        "summary": summary,
        "base": base,
        "title": f"{summary['run']['model']} on {data['dataset']}, {data['split']}",
        "headline": HEADLINES.get(summary["verdict"]["word"]) if summary["verdict"] else None,
        "grounds": _grounds(summary),
        "tiles": [cells[name] for name in TILES if name in cells],
        "cells": cells,
        "by_source": _by_group(summary, "by_source"),
        "by_category": _by_group(summary, "by_category"),
        "columns": [summary["measures"][name]["title"] for name in BY_GROUP],
        "labels": _labels(summary),
        "forest": _forest(summary) if base else None,
        "panels": _panels(summary, answered, base=base),
        "groups": groups,
        "held": len(held),
        "answered": len(answered),
        "samples": [_article(by_id[name], base=base) for name in summary["samples"] if name in by_id],
        "sources": choices_of(article.source for article in held),
        "categories": choices_of(article.category for article in held if article.category),
        "changes": [Choice(group.title, len(group.articles)) for group in groups] if base else [],
        "marks": choices_of(mark for article in held for mark in article.marks),
    }
    return page_of("evaluation.html", values)


def _written(unit: str, value: float | None) -> str:
    return "infinite" if value is None else WRITTEN[unit].format(value)


def _signed(unit: str, value: float | None) -> str:
    """Write a difference; of shares in percentage points."""
    if value is None:
        return ""
    text = WRITTEN[unit].format(abs(value)).replace("%", " pp")
    sign = "" if not any(c in "123456789" for c in text) else "+" if value > 0 else "\N{MINUS SIGN}"
    return f"{sign}{text}"


def _cell(measure: Mapping[str, Any], one: Mapping[str, Any], *, base: bool) -> Cell:
    unit = measure["unit"]
    if not base:
        return Cell(measure["title"], _written(unit, one["tuned"]))
    known = one["low"] is not None
    return Cell(
        measure["title"],
        _written(unit, one["tuned"]),
        _written(unit, one["base"]),
        _signed(unit, one["difference"]),
        f"{_signed(unit, one['low']).removesuffix(' pp')} to {_signed(unit, one['high'])}" if known else "",
        one["verdict"],
    )


def _cells(summary: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, Cell]:
    return {
        name: _cell(measure, one, base=summary["base"])
        for name, measure in summary["measures"].items()
        if (one := group["measures"][name])
    }


def _grounds(summary: Mapping[str, Any]) -> list[Cell]:
    cells = _cells(summary, summary["all"])
    return [cells[name] for name in summary["verdict"]["by"] if name in cells] if summary["verdict"] else []


def _by_group(summary: Mapping[str, Any], kind: str) -> list[tuple[str, int, int, list[Cell | None]]]:
    """Give a line per group: name, rows scored, rows answered, and its cells."""
    return [
        (name, group["scored"], group["answered"], [_cells(summary, group).get(of) for of in BY_GROUP])
        for name, group in summary[kind].items()
    ]


def _labels(summary: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], list[tuple[str, Mapping[str, Any]]]]]:
    """Give what is labels: the group's name, the labels, and the scores of each side."""
    groups = {"All sources": summary["all"], **summary["by_source"]}
    if len(summary["by_source"]) == 1:
        groups = summary["by_source"]
    sides = ("tuned", "base") if summary["base"] else ("tuned",)
    return [
        (name, group["labels"], [(side, group["labels"][side]) for side in sides])
        for name, group in groups.items()
        if group["labels"]
    ]


def _forest(summary: Mapping[str, Any]) -> Markup | None:
    """Draw the differences with their intervals around a line at no difference, in points of 100."""
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
    width, left, right, step = 720.0, 110.0, 190.0, 30.0
    middle, half = left + (width - left - right) / 2, (width - left - right) / 2
    drawn, axes = canvas(width, step * len(shown) + 30)
    foot = step * len(shown) + 4
    axes.plot([middle, middle], [0, foot], color=colour("line"), linewidth=1.5)
    for place, text in (
        (-reach, f"\N{MINUS SIGN}{charts.compact(reach)}"),
        (0.0, "no difference"),
        (reach, f"+{charts.compact(reach)}"),
    ):
        label(axes, (middle + half * place / reach, foot + 12), text, "muted", size=11, ha="center")
    for row, (title, low, at, high, verdict) in enumerate(shown):
        y = step * (row + 0.5)
        role = _role(verdict)
        ends = [middle + half * end / reach for end in (low, high)]
        label(axes, (0, y), title)
        axes.plot(ends, [y, y], color=colour(role), linewidth=3)
        _dot(axes, middle + half * at / reach, y, role)
        label(axes, (width - right + 24, y), f"{at:+.1f}, {verdict}".replace("-", "\N{MINUS SIGN}", 1), role, size=12)
    told = "; ".join(
        f"{title} {at:+.1f} ({low:+.1f} to {high:+.1f}), {verdict}" for title, low, at, high, verdict in shown
    )
    title = "Differences between the tuned and the base model, with 95% intervals"
    return svg(drawn, "forest", title, f"{title}, in points of 100: {told}.")


def _role(verdict: str) -> str:
    return {"better": "after", "worse": "gone"}.get(verdict, "before")


def _dot(axes: Axes, x: float, y: float, role: str) -> None:
    axes.add_patch(Circle((x, y), 4.5, facecolor=colour(role), linewidth=0))


def _panels(summary: Mapping[str, Any], answered: Sequence[Row], *, base: bool) -> list[Panel]:
    made: list[Panel] = []
    if base:
        for name in ("perplexity", "token_f1"):
            made += _change_by_source(summary, name)
    lengths = {
        side: pl.Series(side, [row[side]["answer"]["tokens"] for row in answered], pl.Int64)
        for side in (("tuned", "base") if base else ("tuned",))
    }
    expected = pl.Series("reference", [row["reference_tokens"] for row in answered], pl.Int64)
    if answered:
        at = edges([*lengths.values(), expected])
        for side, values in lengths.items():
            title = f"Tokens per answer, {side}"
            drawn = charts.histogram(f"length-{side}", title, histogram(values, at), histogram(expected, at))
            made.append(Panel(title, drawn, (f"filled: the {side} model; dashed: the references",)))
    return made


def _change_by_source(summary: Mapping[str, Any], name: str) -> list[Panel]:
    """Draw a measure of each source as a line from the base to the tuned model."""
    measure = summary["measures"][name]
    lines = [
        (source, one["base"], one["tuned"], one["verdict"])
        for source, group in summary["by_source"].items()
        if (one := group["measures"][name]) and None not in (one["base"], one["tuned"])
    ][:MOST_DRAWN]
    if not lines:
        return []
    most = max(value for _, *ends, _ in lines for value in ends) or 1.0
    width, left, right, step = float(charts.WIDTH), 96.0, 12.0, 34.0
    drawn, axes = canvas(width, step * len(lines) + 4)
    for row, (source, before, after, verdict) in enumerate(lines):
        y = step * row + 22
        ends = [left + (width - left - right) * value / most for value in (before, after)]
        role = _role(verdict)
        label(axes, (0, y), source if len(source) <= 14 else source[:13] + "…", size=12)
        axes.plot(ends, [y, y], color=colour(role), linewidth=2)
        axes.plot([ends[0], ends[0]], [y - 6, y + 6], color=colour("before"), linewidth=2)
        _dot(axes, ends[1], y, role)
        said = f"{_written(measure['unit'], before)} → {_written(measure['unit'], after)}"
        label(axes, (width - 2, y - 13), said, "muted", size=11, ha="right")
    title = f"{measure['title']} by source"
    told = "; ".join(f"{source} {before:.3g} -> {after:.3g}, {verdict}" for source, before, after, verdict in lines)
    left_out = len(summary["by_source"]) - len(lines)
    notes = ["from the base (bar) to the tuned model (dot)", *([f"{left_out} more in the table"] if left_out else [])]
    return [Panel(title, svg(drawn, f"by-source-{name}", title, f"{title}: {told}."), tuple(notes))]


def _groups(answered: Sequence[Row], *, base: bool) -> list[Group]:
    """Group the answers by what became of them, as many as fit into `ANSWERS_CHARACTERS`, the greatest change first."""
    if not base:
        return [Group("answers", "", tuple(_fit([answered])[0]))] if answered else []

    def gain(row: Row) -> float:
        return row["tuned"]["answer"]["token_f1"] - row["base"]["answer"]["token_f1"]

    ordered = sorted(answered, key=lambda row: (-abs(gain(row)), row["id"]))
    parts = [
        [row for row in ordered if gain(row) < 0],
        [row for row in ordered if gain(row) > 0],
        [row for row in ordered if gain(row) == 0],
    ]
    told = (
        ("worsened", "farther from the reference than the base, the worst first"),
        ("improved", "nearer to the reference than the base, the best first"),
        ("as near as before", "the same token F1 as the base"),
    )
    return [
        Group(title, text, articles)
        for (title, text), articles in zip(told, _fit(parts, base=True), strict=True)
        if articles
    ]


def _fit(parts: Sequence[Sequence[Row]], *, base: bool = False) -> list[tuple[Article, ...]]:
    """Make articles of the first rows of each part, in turns, until the file is full."""
    chosen: list[list[Article]] = [[] for _ in parts]
    room = ANSWERS_CHARACTERS
    for place in range(max(map(len, parts), default=0)):
        for part, into in zip(parts, chosen, strict=True):
            if place >= len(part) or room <= 0:
                continue
            article = _article(part[place], base=base)
            room -= 1000 + sum(len(t.text or "") + sum(len(p) for _, p in t.pieces) for t in article.texts)
            into.append(article)
    return [tuple(articles) for articles in chosen]


def _article(row: Row, *, base: bool) -> Article:
    sides = [(side, row[side]["answer"]) for side in (("tuned", "base") if base else ("tuned",))]
    texts = [Text(message["role"], message["content"]) for message in row["prompt"]]
    texts.append(Text("reference", row["reference"]))
    marks: list[str] = []
    measures: list[str] = []
    for side, answer in sides:
        texts.append(Text(side, None if answer["text"] else "", _against(row["reference"], answer["text"])))
        found = {
            "exact match": answer["exact_match"],
            "cut off": not answer["whole"],
            "ends in a loop": answer["loop"],
            "empty": not answer["text"].strip(),
        }
        marks += [f"{side}: {mark}" for mark, is_so in found.items() if is_so]
        loss = row[side]["nll"] / row[side]["targets"] if row[side]["nll"] is not None else None
        measures.append(f"{side}: F1 {answer['token_f1']:.0%}" + ("" if loss is None else f", loss {loss:.2f}"))
    return Article(row["id"], row["source"], row["category"] or "", tuple(marks), tuple(measures), tuple(texts))


def _against(reference: str, answer: str) -> tuple[tuple[str, str], ...]:
    """Give an answer as pieces, those that the reference has not marked as added; what it lacks is read there."""
    return tuple((kind, text) for kind, text in word_diff(reference, answer) if kind != "removed")
