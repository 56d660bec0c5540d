"""Change: what differs between two texts of a row, turn by turn and word by word."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

DIFF_CELLS = 4_000_000
"""Pairs of words that are compared, at most: a second's work, and 1,000 words that have nothing in common."""

_WORD = re.compile(r"\s+|\S+")
_LINE = re.compile(r".*\n|.+")


@dataclass(frozen=True)
class ChangedText:
    """A turn, or the context (`turn` is None), whose role or text is another one; "" where there was or is none.

    `turn` counts from 0 in the conversation before, or after for a turn that was added.
    """

    turn: int | None
    roles: tuple[str, str]
    before: str
    after: str


def changed_texts(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[ChangedText]:
    """Pair the turns of a row before and after an edit, and give those that differ, then the context.

    A turn that was put in or taken out changes none of those after it. Reads: messages, context.
    """
    old, new = _turns(before), _turns(after)
    for tag, i, j, k, n in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        for a, b in zip_longest(range(i, j), range(k, n)):
            role, text = ("", "") if a is None else old[a]
            new_role, new_text = ("", "") if b is None else new[b]
            yield ChangedText(b if a is None else a, (role, new_role), text, new_text)
    context, new_context = before["context"] or "", after["context"] or ""
    if context != new_context:
        yield ChangedText(None, ("", ""), context, new_context)


def _turns(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(m["role"] or "", m["content"] or "") for m in row["messages"] or ()]


def word_diff(before: str, after: str) -> list[tuple[str, str]]:
    """Give the difference as pieces in order: ("same" | "removed" | "added", text). Blanks count as words.

    Where too much differs for that (`DIFF_CELLS`), lines are compared; where those are too many, the whole is replaced.
    """
    for pattern in (_WORD, _LINE):
        a, b = pattern.findall(before), pattern.findall(after)
        start = _alike(a, b)
        end = _alike(a[start:][::-1], b[start:][::-1])
        ends = ("".join(a[:start]), "".join(a[len(a) - end :]))
        a, b = a[start : len(a) - end], b[start : len(b) - end]
        if len(a) * len(b) <= DIFF_CELLS:
            break
    else:
        a, b = ["".join(a)], ["".join(b)]
    pieces: list[tuple[str, str]] = [("same", ends[0])]
    for tag, i, j, k, n in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag == "equal":
            pieces.append(("same", "".join(a[i:j])))
            continue
        pieces += [("removed", "".join(a[i:j])), ("added", "".join(b[k:n]))]
    return [(what, text) for what, text in (*pieces, ("same", ends[1])) if text]


def _alike(a: Sequence[str], b: Sequence[str]) -> int:
    """Give the number of words with which both begin."""
    return next((n for n, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))
