"""Change: what differs between two texts of a row, turn by turn and word by word."""

import difflib
import re
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

DIFF_CELLS = 4_000_000
"""Pairs of words that are compared, at most: 1,000 words that have nothing in common."""

DIFF_STEPS = 50_000_000
"""Steps of a comparison, at most, where each pair of equal words is looked at again for each match: two seconds' work.
English of 1,000 words takes up to 12 million of them; what repeats a few words between others takes more."""

FIELDS = ("content", "name", "tool_calls")
"""The texts of a turn."""

_NO_TURN = ("", "", "", "")
Opcodes = Sequence[tuple[str, int, int, int, int]]
"""What difflib says of two lists: (tag, from, to, from in the other, to in the other)."""

_WORD = re.compile(r"\s+|\S+")
_LINE = re.compile(r".*\n|.+")


@dataclass(frozen=True)
class ChangedText:
    """A turn, or the context (`turn` is None), whose role or text is another one; "" where there was or is none.

    `turn` counts from 0 in the conversation before, or after for a turn that was added. `field`: content, or the name
    or tool_calls of a turn, where these differ.
    """

    turn: int | None
    roles: tuple[str, str]
    before: str
    after: str
    field: str = "content"


def changed_texts(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[ChangedText]:
    """Pair the turns of a row before and after an edit, and give those that differ, then the context.

    A turn that was put in or taken out changes none of those after it. Its text comes first, then its name and tool
    calls; where these alone differ, they alone are given. Reads: messages, context.
    """
    old, new = _turns(before), _turns(after)
    pairs = _matched(old, new) or [("replace", 0, len(old), 0, len(new))]
    for tag, i, j, k, n in pairs:
        if tag == "equal":
            continue
        for a, b in zip_longest(range(i, j), range(k, n)):
            role, *texts = _NO_TURN if a is None else old[a]
            new_role, *new_texts = _NO_TURN if b is None else new[b]
            for field, text, new_text in zip(FIELDS, texts, new_texts, strict=True):
                if text != new_text or (field == "content" and role != new_role):
                    yield ChangedText(b if a is None else a, (role, new_role), text, new_text, field)
    context, new_context = before["context"] or "", after["context"] or ""
    if context != new_context:
        yield ChangedText(None, ("", ""), context, new_context)


def texts_by_name(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Give what differs as (where, before, after): "messages[1] assistant", "messages[0].role", "context".

    Reads: messages, context.
    """
    for text in changed_texts(before, after):
        if text.turn is None:
            yield "context", text.before, text.after
            continue
        if text.field != "content":
            yield f"messages[{text.turn}].{text.field}", text.before, text.after
            continue
        if text.roles[0] and text.roles[1] and text.roles[0] != text.roles[1]:
            yield f"messages[{text.turn}].role", *text.roles
        if text.before != text.after:
            yield f"messages[{text.turn}] {text.roles[0] or text.roles[1]}", text.before, text.after


def _turns(row: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [(m["role"] or "", *(m.get(field) or "" for field in FIELDS)) for m in row["messages"] or ()]


def word_diff(before: str, after: str) -> list[tuple[str, str]]:
    """Give the difference as pieces in order: ("same" | "removed" | "added", text). Blanks count as words.

    Where too much differs for that (`DIFF_CELLS`, `DIFF_STEPS`), lines are compared; where those are too many, the
    whole is replaced.
    """
    matched: Opcodes | None = None
    for pattern in (_WORD, _LINE):
        a, b = pattern.findall(before), pattern.findall(after)
        start = _alike(a, b)
        end = _alike(a[start:][::-1], b[start:][::-1])
        ends = ("".join(a[:start]), "".join(a[len(a) - end :]))
        a, b = a[start : len(a) - end], b[start : len(b) - end]
        if len(a) * len(b) <= DIFF_CELLS and (matched := _matched(a, b)) is not None:
            break
    else:
        a, b = ["".join(a)], ["".join(b)]
        matched = [("replace", 0, 1, 0, 1)]
    pieces: list[tuple[str, str]] = [("same", ends[0])]
    for tag, i, j, k, n in matched or ():
        if tag == "equal":
            pieces.append(("same", "".join(a[i:j])))
            continue
        pieces += [("removed", "".join(a[i:j])), ("added", "".join(b[k:n]))]
    return [(what, text) for what, text in (*pieces, ("same", ends[1])) if text]


def _matched(a: Sequence[Hashable], b: Sequence[Hashable]) -> Opcodes | None:
    """Match two lists as difflib does; None where that takes more than `DIFF_STEPS`. Blanks follow their words."""
    here, there = (Counter(one for one in side if not _is_blank(one)) for side in (a, b))
    pairs = sum(n * there[one] for one, n in here.items())
    if pairs * min(here.total(), there.total()) > DIFF_STEPS:
        return None
    return difflib.SequenceMatcher(_is_blank, a, b, autojunk=False).get_opcodes()


def _is_blank(one: object) -> bool:
    return isinstance(one, str) and one.isspace()


def _alike(a: Sequence[str], b: Sequence[str]) -> int:
    """Give the number of words with which both begin."""
    return next((n for n, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))
