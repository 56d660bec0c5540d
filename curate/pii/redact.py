"""Redaction: placeholders in place of what was found, and masked words about it that may be shown to anybody."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curate.pii.finding import Finding

FIELDS = ("content", "tool_calls")
"""The texts of a turn, in the order in which positions run through them."""


@dataclass(frozen=True)
class Entity:
    """A finding in a row: in a field of the turn with this index, or in the context (`turn` is None)."""

    finding: Finding
    turn: int | None
    field: str


def texts(messages: Sequence[Mapping[str, Any]], context: str | None) -> Iterator[tuple[int | None, str, str]]:
    """Give the texts of a row as (turn, field, text): turn after turn, then the context."""
    for turn, message in enumerate(messages):
        for field in FIELDS:
            if message[field]:
                yield turn, field, message[field]
    if context:
        yield None, "context", context


def placeholders(entities: Sequence[Entity], row: str) -> dict[tuple[str, str], str]:
    """Name what is found: `<EMAIL>`, or `<EMAIL_1>`, `<EMAIL_2>` … where a row has several that differ.

    `row` is all that the row says: a placeholder that stands in it already is not given to another value.
    """
    values: dict[str, dict[str, None]] = {}
    for entity in entities:
        values.setdefault(entity.finding.kind, {})[entity.finding.value] = None
    names: dict[tuple[str, str], str] = {}
    for kind, found in values.items():
        taken = [int(number or 0) for number in re.findall(f"<{kind.upper()}(?:_([0-9]{{1,9}}))?>", row)]
        first = max(taken, default=0) + 1
        plain = len(found) == 1 and not taken
        for number, value in enumerate(found, first):
            names[kind, value] = f"<{kind.upper()}>" if plain else f"<{kind.upper()}_{number}>"
    return names


def redact(
    messages: Sequence[Mapping[str, Any]], context: str | None, entities: Sequence[Entity]
) -> tuple[list[dict[str, Any]], str | None]:
    """Put placeholders in place of what was found in a row; what is JSON stays JSON."""
    names = placeholders(entities, "\n".join(text for _, _, text in texts(messages, context)))
    after = [dict(message) for message in messages]
    for turn, field, text in texts(messages, context):
        here = sorted((e.finding for e in entities if (e.turn, e.field) == (turn, field)), key=lambda f: f.start)
        pieces: list[str] = []
        at = 0
        for found in here:
            pieces += [text[at : found.start], f"{found.quote}{names[found.kind, found.value]}{found.quote}"]
            at = found.end
        redacted = "".join([*pieces, text[at:]])
        if turn is None:
            context = redacted
        else:
            after[turn][field] = redacted
    return after, context


def masked(finding: Finding) -> str:
    """Name a finding so that a person can find it in the row, and nobody can use it."""
    value = finding.value
    match finding.kind:
        case "email":
            local, _, domain = value.rpartition("@")
            return f"{finding.form} {local[0]}…@{domain[0]}….{domain.rpartition('.')[2]}"
        case "ip":
            return f"{finding.form} {re.split('[.:]', value)[0]}…"
        case "secret":
            return finding.form
        case _:
            return f"{finding.form} …{value[-2:]}"


_SHOWN = 5


def evidence(entities: Sequence[Entity], messages: Sequence[Mapping[str, Any]]) -> str:
    """Tell what was found and where, masked: 'e-mail j…@a….org (user turn); phone …71 (context)'."""
    parts = [
        f"{masked(e.finding)} ({'context' if e.turn is None else messages[e.turn]['role'] + ' turn'})" for e in entities
    ]
    distinct = list(dict.fromkeys(parts))
    more = len(distinct) - _SHOWN
    return "; ".join(distinct[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
