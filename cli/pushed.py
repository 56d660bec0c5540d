"""What `sft curate review push` shows: what was chosen, what was sent, and in a dry run what would be sent."""

import html
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cli.render import number, out, say, table

if TYPE_CHECKING:
    from curate.review.form import Card
    from curate.review.push import Push, Pushed

FIRST_CARDS = 2
"""Cards that a dry run shows."""
SHOWN_CHARACTERS = 600
"""Characters of a text that a dry run shows."""
NAMED = 10
"""Rows that are named where they could not be shown."""


def show_pushed(prepared: "Push", pushed: "Pushed") -> None:
    """Print what was chosen by source, what of it is new, and what became of records of rows that were edited since."""
    sources = {row.id: row.source for row in prepared.rows}
    new = Counter(sources.get(external.partition("-")[0], "") for external in pushed.new)
    there = Counter(sources[external.partition("-")[0]] for external in (*pushed.there, *pushed.refreshed))
    _by_source(prepared, {"#new": new, "#refreshed" if pushed.refreshed else "#there already": there})
    for note in pushed.notes:
        say(note)
    if again := new.get("", 0):
        say(f"{number(again)} rows that reviewers had got were edited since, and are sent as they stand now")
    if pushed.marked:
        say(f"{number(len(pushed.marked))} records of rows that were edited since are marked stale: people answered")
    if pushed.removed:
        say(f"{number(len(pushed.removed))} records of rows that were edited since are removed: nobody had answered")
    for row, problem in list(pushed.left_out.items())[:NAMED]:
        say(f"row {row} is left out, as Argilla takes no record with {problem}")
    if len(pushed.left_out) > NAMED:
        say(f"and {number(len(pushed.left_out) - NAMED)} more; --json names them")
    sent = len(pushed.new) + len(pushed.refreshed)
    out(f"sent {number(sent)} records: {pushed.url}" if sent else f"nothing to send, all is there: {pushed.url}")
    if not sent and not pushed.marked and not pushed.removed:
        say("other rows: --seed 2, a larger --n, or another --select; rows that are decided are left out once pulled")


def pushed_json(prepared: "Push", pushed: "Pushed") -> dict[str, Any]:
    """Give the same as plain values."""
    return {
        "url": pushed.url,
        **_chosen_json(prepared),
        "new": len(pushed.new),
        "there": len(pushed.there),
        "refreshed": len(pushed.refreshed),
        "marked_stale": list(pushed.marked),
        "removed_stale": list(pushed.removed),
        "left_out": dict(pushed.left_out),
        "notes": list(pushed.notes),
    }


def show_planned(prepared: "Push", cards: Sequence["Card"]) -> None:
    """Print what would be sent: rows by source, and the first cards."""
    _by_source(prepared, {})
    for note in prepared.notes:
        say(note)
    for n, card in enumerate(cards[:FIRST_CARDS], 1):
        out(f"card {n} of {number(len(cards))}: {card.external_id}", style="bold")
        for name, value in card.fields.items():
            if isinstance(value, str):
                out(f"  {name}:")
                out(_indented(_plain(value)))
            else:
                for role, text in value:
                    out(f"  {role}: {_indented(text).lstrip()}")
        if card.suggestions:
            told = [f"{s.question} = {_short(s.value)} ({s.agent})" for s in card.suggestions]
            out(f"  suggested: {'; '.join(told)}")
        out("")
    out(f"nothing was sent: without --dry-run, {number(len(cards))} records would be made, or found there")


def planned_json(prepared: "Push", cards: Sequence["Card"]) -> dict[str, Any]:
    """Give the same as plain values, with all cards and the guidelines."""
    shown = [
        {
            "external_id": card.external_id,
            "fields": {k: v if isinstance(v, str) else [list(m) for m in v] for k, v in card.fields.items()},
            "properties": dict(card.properties),
            "suggestions": [vars(s) for s in card.suggestions],
        }
        for card in cards
    ]
    return {**_chosen_json(prepared), "notes": prepared.notes, "guidelines": prepared.guidelines, "cards": shown}


def _chosen_json(prepared: "Push") -> dict[str, Any]:
    chosen = Counter(row.source for row in prepared.rows)
    by_source = {s: {"found": n, "chosen": chosen[s]} for s, n in prepared.choice.found.items()}
    return {"select": prepared.config.select, "chosen": len(prepared.rows), "by_source": by_source}


def _by_source(prepared: "Push", more: dict[str, Counter[str]]) -> None:
    chosen = Counter(row.source for row in prepared.rows)
    found = prepared.choice.found
    rows = [
        (source, number(n), number(chosen[source]), *(number(counts[source]) for counts in more.values()))
        for source, n in found.items()
    ]
    if len(found) > 1:
        sums = [sum(counts[source] for source in found) for counts in more.values()]
        rows.append(("all", number(sum(found.values())), number(len(prepared.rows)), *(number(n) for n in sums)))
    m = prepared.dataset.manifest
    blind = ", blind" if prepared.config.blind else ""
    title = f"Rows of {m.name}@{m.seq} for review, chosen by {prepared.config.select}{blind}"
    table(title, ["source", "#found", "#chosen", *more], rows)


def _plain(markdown: str) -> str:
    """Write Markdown as a terminal shows it."""
    plain = re.sub(r"<br>", "\n", markdown)
    plain = re.sub(r"</?strong>", "", plain)
    plain = re.sub(r"<del>(.*?)</del>", r"[-\1-]", plain)
    plain = re.sub(r"<ins>(.*?)</ins>", r"{+\1+}", plain)
    return html.unescape(plain.replace("&nbsp;", " ")).replace("**", "").replace("\n\n", "\n")


def _indented(text: str) -> str:
    shown = text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]} …"
    return "    " + shown.replace("\n", "\n    ")


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:60]}…"
