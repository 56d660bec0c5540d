"""An evaluation of a run as one HTML file: the verdict, the measures, and every answer beside its reference.

It is made of the files of the evaluation alone (docs/evaluation.md has their keys). What a model says is text like any
other record's: it goes through `curate.report.text`. The same files give the same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from curate.change import word_diff
from curate.measures import edges, histogram
from curate.report import charts
from curate.report.changes import Choice, choices_of
from curate.report.differences import by_source, forest, signed, written
from curate.report.page import Panel, page_of

ANSWERS_CHARACTERS = 6_000_000
"""Characters of prompts, references and answers that go into the file, of each group alike many."""
ALIKE = 0.25
"""Share of an answer that the reference must have for the rest to be marked: else all of it would be."""

TILES = ("perplexity", "token_f1", "rouge_l", "exact_match", "unstopped")
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
    "not finite": ("No verdict", "The losses of both models are infinite, or no numbers: there is nothing to compare."),
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
        "forest": forest(summary) if base else None,
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


def _cell(measure: Mapping[str, Any], one: Mapping[str, Any], *, base: bool) -> Cell:
    unit = measure["unit"]
    if not base:
        return Cell(measure["title"], written(unit, one["tuned"]))
    known = one["low"] is not None
    return Cell(
        measure["title"],
        written(unit, one["tuned"]),
        written(unit, one["base"]),
        signed(unit, one["difference"]),
        f"{signed(unit, one['low']).removesuffix(' pp')} to {signed(unit, one['high'])}" if known else "",
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


def _panels(summary: Mapping[str, Any], answered: Sequence[Row], *, base: bool) -> list[Panel]:
    made: list[Panel] = []
    if base:
        made += filter(None, (by_source(summary, name) for name in ("perplexity", "token_f1")))
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
        pieces = _against(row["reference"], answer["text"])
        texts.append(Text(side, None if pieces else answer["text"], pieces))
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
    """Give an answer as pieces, those that the reference has not marked as added; what it lacks is read there.

    None of an answer that has little in common with it: it is shown as it is.
    """
    pieces = tuple((kind, text) for kind, text in word_diff(reference, answer) if kind != "removed")
    same = sum(len(text) for kind, text in pieces if kind == "same")
    return pieces if same >= ALIKE * len(answer) else ()
