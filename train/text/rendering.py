"""Where each turn stands in the rendered text: not guessed, but read.

The conversation is rendered by the chat template, and a second time with a sentinel in place of every turn's text (once
for all records of the same shape), which gives the literals around the turns. The rendered text must then read, from
its first character to its last, as literal, turn, literal, turn, …

    <|im_start|>user\\n  Who?  <|im_end|>\\n<|im_start|>assistant\\n  Ada.  <|im_end|>\\n
    literal 0            turn  literal 1                           turn   literal 2
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from schemas.record import Message, Record
from train.text.chat import NotRenderedError, Template
from train.text.refusal import Refusal

MOST_RENDERED = 40_000
"""Turns rendered again, at most, to prove where the silent ones of a record stand: about a second. It is enough for 140
that are no like one another; what is left over is read, and no target."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Where one turn stands in the rendered text, [start, end) in characters, and where the next turn begins."""

    message: Message
    start: int
    end: int
    next_start: int


@dataclass(frozen=True, slots=True)
class Rendered:
    """A record as text, with its turns; `trimmed` where the template cut their outer space."""

    record: Record
    text: str
    turns: tuple[Turn, ...]
    trimmed: bool


def render(records: Sequence[Record], template: Template) -> list[Rendered | Refusal]:
    """Render records and find their turns; in their order, each rendered or refused."""
    found: list[Rendered | Refusal | None] = [_refuse_text(record, template) for record in records]
    plain = [i for i, record in enumerate(records) if found[i] is None and not record.tools]
    try:
        texts = dict(zip(plain, template.render_all([records[i] for i in plain]), strict=True))
    except Exception:  # noqa: BLE001 # one of them fails: which one shows when each is rendered by itself
        texts = {}
    return [known or _rendered(records[i], template, texts.get(i)) for i, known in enumerate(found)]


def _refuse_text(record: Record, template: Template) -> Refusal | None:
    """Refuse what no template can make right: nothing to learn, a blank answer, a special token in the text."""
    answers = [message for message in record.messages if message.role == "assistant"]
    if not answers:
        return Refusal(record.id, record.source, "no_targets", "no assistant turn")
    for message in record.messages:
        if found := template.special.search(message.content):
            return Refusal(record.id, record.source, "special_token", f"{message.role} turn spells out {found[0]!r}")
    if any(not message.tool_calls and not message.content.strip() for message in answers):
        return Refusal(record.id, record.source, "no_targets", "an assistant turn without text")
    return None


def _rendered(record: Record, template: Template, text: str | None) -> Rendered | Refusal:
    """Find the turns of one record; `text` is how it was rendered, where it was already."""
    try:
        literals, order = template.literals(record)
        text = template.render(record) if text is None else text
    except NotRenderedError as error:
        return Refusal(record.id, record.source, "dropped", str(error))
    except Exception as error:  # noqa: BLE001 # a template is somebody's program: jinja raises whatever it likes
        return Refusal(record.id, record.source, "template_error", f"the template fails: {error}")
    if not _is_text(text):
        said = "half a letter (a lone surrogate) stands in it, which no tokenizer reads"
        return Refusal(record.id, record.source, "rewritten", said)
    if missing := _missing_names(record, text):
        return Refusal(record.id, record.source, "dropped", f"the template leaves out {missing}")
    messages = record.messages
    spans = _walk(text, literals, [messages[i].content for i in order])
    if spans is None:
        return Refusal(record.id, record.source, "rewritten", "the template changes the text of a turn")
    turns: list[Turn] = []
    trimmed = False
    for place, (i, (start, end, cut)) in enumerate(zip(order, spans, strict=True)):
        trimmed |= cut
        if not messages[i].content.isspace():
            following = spans[place + 1][0] if place + 1 < len(spans) else len(text)
            turns.append(Turn(messages[i], start, end, following))
    turns += _silent_turns(record, text, {i: span[:2] for i, span in zip(order, spans, strict=True)}, template)
    return Rendered(record, text, tuple(turns), trimmed)


def _silent_turns(
    record: Record, text: str, texts: Mapping[int, tuple[int, int]], template: Template
) -> Iterator[Turn]:
    """Find the turns that call tools and say nothing. `texts`: where the texts of the others stand, [start, end).

    One is proven by rendering the record up to it. Of many that would be the square of them, so what was proven of one
    holds for those after it: the literals between its neighbours' texts and itself, where they read the same again.

        <|im_start|>tool\\n  4  <|im_end|>\\n<|im_start|>assistant\\n  {"name": …}<|im_end|>\\n  <|im_start|>tool\\n  5
                            text opening                           turn                     closing             text
    """
    messages, left = record.messages, MOST_RENDERED
    frames: dict[tuple[str, ...], tuple[str, str]] = {}
    for i, message in enumerate(messages):
        if not message.tool_calls or message.content.strip():
            continue
        kind = tuple(near.role for near in messages[max(i - 1, 0) : i + 2])
        (_, low), (high, _) = texts.get(i - 1, (0, -1)), texts.get(i + 1, (-1, 0))
        high = len(text) if i + 1 == len(messages) else high
        known = 0 <= low <= high
        turn = _framed(message, text, low, high, frames[kind]) if known and kind in frames else None
        if turn is None and left >= 2 * i:
            left -= 2 * i
            turn = _silent_turn(record, i, text, template)
            if turn and known and low <= turn.start <= turn.next_start <= high:
                frames[kind] = text[low : turn.start], text[turn.next_start : high]
        if turn:
            yield turn


def _framed(message: Message, text: str, low: int, high: int, frame: tuple[str, str]) -> Turn | None:
    """Find a turn between two places of the text by what must stand before and behind it; None where that does not."""
    opening, closing = frame
    start, end = low + len(opening), high - len(closing)
    if start < end and text.startswith(opening, low) and text.startswith(closing, end):
        return Turn(message, start, start, end)
    return None


def _silent_turn(record: Record, i: int, text: str, template: Template) -> Turn | None:
    """Find a turn that calls tools and says nothing: what its record reads with it and did not read before it.

    None where the text does not begin as the record does that ends here: then nothing proves where the turn stands.
    """
    try:
        before = template.render(replace(record, messages=record.messages[:i]), prompt=True)
        until = template.render(replace(record, messages=record.messages[: i + 1]))
    except Exception:  # noqa: BLE001 # as in _rendered: many templates refuse half a conversation
        return None
    if not (text.startswith(until) and until.startswith(before)):
        return None
    return Turn(record.messages[i], len(before), len(before), len(until))


def _missing_names(record: Record, text: str) -> str | None:
    """Name the first tool or tool call that the rendered text does not mention."""
    if not record.tools and not any(message.tool_calls for message in record.messages):
        return None
    for kind, source in (("tool", record.tools), *(("tool call", m.tool_calls) for m in record.messages)):
        for name in names(source):
            if name not in text:
                return f"the {kind} {name!r}"
    return None


def names(source: str | None) -> list[str]:
    """Give the names in a JSON list of tools or tool calls; what is no such thing stands for itself."""
    found: Any = json.loads(source) if source else None
    entries: list[Any] = found if isinstance(found, list) else []
    inner: list[Any] = [entry.get("function", entry) if isinstance(entry, dict) else entry for entry in entries]
    return [str(one.get("name", "") if isinstance(one, dict) else one) for one in inner]


def _is_text(text: str) -> bool:
    """Say whether a text can be encoded; JSON can spell out half of a letter (\\ud83d), which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _walk(text: str, literals: Sequence[str], contents: Sequence[str]) -> list[tuple[int, int, bool]] | None:
    """Read the text as literal, turn, literal, turn, …, literal; turns as they are, or with outer space trimmed.

    Gives (start, end, trimmed) per turn in characters, or None where the text reads otherwise.
    """
    spans: list[tuple[int, int, bool]] = []
    if not text.startswith(literals[0]):
        return None
    at = len(literals[0])
    for i, content in enumerate(contents):
        after, last = literals[i + 1], i == len(contents) - 1
        for cut in (None, str.strip, str.lstrip, str.rstrip):
            variant = cut(content) if cut else content
            end = at + len(variant)
            if (
                text.startswith(variant, at)
                and text.startswith(after, end)
                and not (last and end + len(after) != len(text))
            ):
                spans.append((at, end, len(variant) != len(content)))
                at = end + len(after)
                break
        else:
            return None
    return spans
