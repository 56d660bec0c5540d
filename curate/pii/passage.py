"""The passage: a stretch of text as a person would read it, and where its characters stand in the text that holds it.

A plain text is one passage. In JSON each string and number is one, without its escapes and together with its key, and
JSON inside a string of JSON (the arguments of a tool call) is read the same way; so a placeholder never breaks it.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from curate.pii.finding import Finding

_STRING = r'"((?:[^"\\]|\\.)*+)"'
_VALUE = re.compile(rf"(?:{_STRING}\s*+:\s*+)?(?:{_STRING}|(-?[0-9][0-9.eE+-]*))", re.DOTALL)
_CHARACTER = re.compile(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u....|\\.|.", re.DOTALL)


@dataclass(frozen=True)
class Passage:
    """`places[i]` is where character i of `text` stands; one more is the end. Of a JSON number, `number` is where it
    begins in `text`, and `quote` what has to stand around a string in its place."""

    text: str
    places: Sequence[int]
    number: int | None = None
    quote: str = ""

    def placed(self, finding: Finding) -> Finding:
        """Give a finding in this passage as one in the text that holds it."""
        start, end, quote = finding.start, finding.end, ""
        if self.number is not None and end > self.number:
            start, end, quote = self.number, len(self.text), self.quote
        return Finding(finding.kind, self.places[start], self.places[end], finding.value, finding.form, quote)


def passages(text: str) -> Iterator[Passage]:
    """Take a text apart into its passages."""
    places = range(len(text) + 1)
    if is_json(text):
        yield from _values(text, places, '"')
    else:
        yield Passage(text, places)


def is_json(text: str) -> bool:
    """Say whether a text is, as a whole, a JSON object or array."""
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return False
    return True


def _values(text: str, places: Sequence[int], quote: str) -> Iterator[Passage]:
    """Give the strings and numbers of a JSON text whose characters stand at `places`."""
    for match in _VALUE.finditer(text):
        key, string, number = match.groups()
        group = 3 if string is None else 2
        value, at = (number, [*range(match.start(3), match.end(3) + 1)]) if string is None else _read(match, 2)
        if group == 2 and is_json(value):
            yield from _values(value, [places[i] for i in at], json.dumps(quote)[1:-1])
            value, at = "", at[:1]
        before, stands = ("", []) if key is None else _read(match, 1)
        if key is not None:
            before, stands = f"{before}: ", [*stands, at[0]]
        yield Passage(
            before + value,
            [places[i] for i in (*stands, *at)],
            len(before) if group == 3 else None,
            quote if group == 3 else "",
        )


def _read(match: re.Match[str], group: int) -> tuple[str, list[int]]:
    """Read a string's escapes; give its text, and where each character and the end stand."""
    start, raw = match.start(group), match.group(group)
    if "\\" not in raw:
        return raw, list(range(start, match.end(group) + 1))
    starts = [start + m.start() for m in _CHARACTER.finditer(raw)]
    return json.loads(f'"{raw}"', strict=False), [*starts, match.end(group)]
