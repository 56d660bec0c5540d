"""Evidence: what was found, as it stands in the row, for a person to judge; and what the allow-list excuses."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from curate.decontaminate.overlap import PROMPT
from curate.dedup.letters import ALONE, IGNORED, LETTER, SYMBOL, Letters
from schemas.record import ROLE_NAMES

SHOWN = 160
"""Characters of the row that are shown."""

WHERE = ("prompt", "response", "prompt")
"""Names of `overlap.PROMPT`, `overlap.RESPONSE` and `overlap.QUESTION`."""
_SAID_BY = (("user", "other"), ("assistant",), ("user",))


def word_spans(text: str, known: Letters) -> Iterator[tuple[int, int]]:
    """Give where the words of a text stand, in characters: the very words that compiled code reads."""
    begin = -1
    for at, char in enumerate(text):
        point = ord(char)
        kind = int(known.kinds[point]) if point < len(known.kinds) else IGNORED if point >> 12 == 0xE0 else SYMBOL
        if kind == LETTER:
            begin = at if begin < 0 else begin
        elif kind != IGNORED:
            if begin >= 0:
                yield begin, at
                begin = -1
            if kind in (ALONE, SYMBOL):
                yield at, at + 1
    if begin >= 0:
        yield begin, len(text)


def parts_of(row: Mapping[str, Any], where: int) -> list[str]:
    """Give the texts of a row in the order in which they are searched. Reads: messages, context."""
    found: list[str] = []
    for turn in row["messages"] or []:
        named = turn["role"].lower()
        role = ROLE_NAMES.get(named, named)
        role = role if role in ("user", "assistant") else "other"
        if role in _SAID_BY[where]:
            found += [text for text in (turn["content"], turn["tool_calls"]) if text]
    if where == PROMPT and row["context"]:
        found.append(row["context"])
    return found


Spans = list[tuple[str, list[tuple[int, int]]]]
"""The texts of a row, each with where its words stand."""


def spans_of(row: Mapping[str, Any], where: int, known: Letters) -> Spans:
    """Cut a row into words, once for all that is shown of it. Reads: messages, context."""
    return [(part, list(word_spans(part, known))) for part in parts_of(row, where)]


def shown(cut: Spans, start: int, stop: int) -> str:
    """Show the words [start, stop) of a row as they stand there, on one line."""
    pieces: list[str] = []
    at = 0
    for part, spans in cut:
        inside = spans[max(0, start - at) : max(0, stop - at)]
        at += len(spans)
        if inside:
            pieces.append(part[inside[0][0] : inside[-1][1]])
    line = re.sub(r"\s+", " ", " / ".join(pieces))
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"


def plain(text: str, known: Letters) -> str:
    """Write a text as its folded words, so that texts can be compared without case and punctuation."""
    words = (text[a:b] for a, b in word_spans(text, known))
    return " ".join("".join(c for c in word if not _ignored(c, known)).casefold() for word in words)


def _ignored(char: str, known: Letters) -> bool:
    return ord(char) < len(known.kinds) and known.kinds[ord(char)] == IGNORED


class Allowed:
    """The allow-list: ids (`ITEM`, or `EVAL:ITEM`), or texts: of an item, or of what was found."""

    def __init__(self, lines: Sequence[str], known: Letters) -> None:
        self._known = known
        self._ids = set(lines)
        self._texts = {words for line in lines if (words := plain(line, known))}

    def excuses(self, eval_: str, item: str, *texts: str) -> bool:
        """Whether a match of this item, with one of these texts, is allowed."""
        if not self._ids:
            return False
        return bool({item, f"{eval_}:{item}"} & self._ids) or any(plain(t, self._known) in self._texts for t in texts)
