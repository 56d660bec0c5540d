"""Records longer than a row holds, made to fit: turns are left out or parted, and an answer is never cut.

    system  u1 a1  u2 a2  u3 a3        a record; it may be cut before u1, u2 and u3, where an exchange begins

    truncate-left    system  u2 a2  u3 a3               the fewest of the oldest exchanges are dropped
    split            system  u1 a1  |  system  u2 a2  u3 a3      each part takes as many exchanges as fit

An exchange begins at a user turn that follows no other user turn, so no conversation begins with an answer or a tool's
result where it did not before. Parts are named ID#1, ID#2, …; a truncated record keeps its id. What is left out is
told: as `overlong` where nothing of a record fits, as `truncated` or `split` with the turns that are gone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from schemas.record import Record
from train.text import shard
from train.text.chat import Template
from train.text.refusal import Refusal
from train.text.shard import Table
from train.text.tokens import PART
from train.text.words import Words

Cut = Literal["truncate-left", "split"]

TOLD = ("truncated", "split")
"""Reasons that tell of a record that is trained on, though not as one or not as a whole."""


@dataclass
class _Cutting:
    """One record on its way: a part begins at `begins[at]`, and the next one at `begins[low]` to `begins[high]`."""

    record: Record
    length: int
    head: int
    begins: list[int]
    at: int = 0
    low: int = 0
    high: int = 0
    best: int | None = None

    def __post_init__(self) -> None:
        self.parts: list[tuple[int, int]] = []
        self.left_out: list[tuple[int, int]] = []

    def of(self, start: int, end: int, name: str) -> Record:
        """Make a record of the turns [start, end) after the system turn."""
        messages = self.record.messages
        return replace(self.record, id=name, messages=(*messages[: self.head], *messages[start:end]))


def fitted(
    records: Sequence[Record], lengths: Sequence[int], template: Template, words: Words, *, cut: Cut, max_tokens: int
) -> Table:
    """Make the shard of records that have more than `max_tokens` tokens (`lengths`), made to fit as `cut` says.

    Its rows are the parts, and a row with a reason for each record: `truncated`, `split`, or `overlong` where nothing
    fits.
    """
    work = [_Cutting(record, n, *_begins(record)) for record, n in zip(records, lengths, strict=True)]
    (_truncate if cut == "truncate-left" else _split)(work, template, words, max_tokens)
    made: list[Record] = []
    told: list[Refusal] = []
    for one in work:
        if cut == "truncate-left":
            made += [one.of(start, end, one.record.id) for start, end in one.parts]
        else:
            made += [one.of(*part, f"{one.record.id}{PART}{i + 1}") for i, part in enumerate(one.parts)]
        told.append(_told(one, cut, max_tokens))
    return shard.with_refusals(shard.tokenise(made, template, words), told)


def _begins(record: Record) -> tuple[int, list[int]]:
    """Give how many system turns lead, and where an exchange begins; the first one with whatever comes first."""
    messages = record.messages
    head = next((i for i, message in enumerate(messages) if message.role != "system"), len(messages))
    later = [i for i in range(head + 1, len(messages)) if messages[i].role == "user" and messages[i - 1].role != "user"]
    return head, [head, *later, len(messages)]


def _told(one: _Cutting, cut: Cut, max_tokens: int) -> Refusal:
    record = one.record
    if not one.parts:
        detail = f"{one.length} tokens, a row holds {max_tokens}, and no exchange of it alone fits"
        return Refusal(record.id, record.source, "overlong", detail, one.length)
    if cut == "truncate-left":
        gone = _turns(one.head, one.parts[0][0])
        detail = f"{one.length} tokens, a row holds {max_tokens}: {gone} of {len(record.messages)} dropped"
        return Refusal(record.id, record.source, "truncated", detail, one.length)
    detail = f"{one.length} tokens, a row holds {max_tokens}: {len(one.parts)} parts"
    if one.left_out:
        gone = ", ".join(_turns(*turns) for turns in one.left_out)
        detail += f"; {gone} of {len(record.messages)} fit in none and are left out"
    return Refusal(record.id, record.source, "split", detail, one.length)


def _turns(start: int, end: int) -> str:
    """Name the turns [start, end), counted from 1."""
    return f"turn {end}" if end == start + 1 else f"turns {start + 1} to {end}"


def _truncate(work: Sequence[_Cutting], template: Template, words: Words, max_tokens: int) -> None:
    """Search the first beginning, after the first, from which on a record fits; by halves, as some are very long."""
    for one in work:
        one.low, one.high = 1, len(one.begins) - 2
    while active := [one for one in work if one.low <= one.high]:
        middles = [(one.low + one.high) // 2 for one in active]
        asked = [
            one.of(one.begins[middle], len(one.record.messages), one.record.id)
            for one, middle in zip(active, middles, strict=True)
        ]
        for one, middle, fits in zip(active, middles, _fit(asked, template, words, max_tokens), strict=True):
            if fits:
                one.best, one.high = middle, middle - 1
            else:
                one.low = middle + 1
    for one in work:
        if one.best is not None:
            one.parts = [(one.begins[one.best], len(one.record.messages))]


def _split(work: Sequence[_Cutting], template: Template, words: Words, max_tokens: int) -> None:
    """Fill one part of every record after another with as many exchanges as fit, searched by halves."""
    for one in work:
        one.low, one.high = 1, len(one.begins) - 1
    while active := [one for one in work if one.at < len(one.begins) - 1]:
        middles = [(one.low + one.high) // 2 for one in active]
        asked = [
            one.of(one.begins[one.at], one.begins[middle], one.record.id)
            for one, middle in zip(active, middles, strict=True)
        ]
        for one, middle, fits in zip(active, middles, _fit(asked, template, words, max_tokens), strict=True):
            if fits:
                one.best, one.low = middle, middle + 1
            else:
                one.high = middle - 1
            if one.low > one.high:
                end = one.at + 1 if one.best is None else one.best
                (one.left_out if one.best is None else one.parts).append((one.begins[one.at], one.begins[end]))
                one.at, one.low, one.high, one.best = end, end + 1, len(one.begins) - 1, None


def _fit(records: Sequence[Record], template: Template, words: Words, max_tokens: int) -> list[bool]:
    """Say of each record whether it can be trained on and has at most so many tokens."""
    table = shard.tokenise(records, template, words)
    sound = table["reason"].is_null().to_numpy()
    counted = table["tokens"].fill_null(0).to_numpy()
    return np.logical_and(sound, counted <= max_tokens).tolist()
