"""A JSON array of any length, read element by element.

Memory holds one chunk and one element. An element that is not JSON costs only itself: its end is found by a scan of
brackets that knows strings, or, where brackets or quotes are broken themselves, by the next object that reads like a
row. A file that ends inside the array is an error: rows of it are missing.
"""

import codecs
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from curate.ingest.inputs import CHUNK, Stream
from curate.ingest.lines import BOM
from curate.ingest.row import Row, RowError, TooLongError, check_depth, decode, scan
from schemas.errors import InputError

_NOT_BLANK = re.compile(r"[^ \t\r\n]")
_NOT_SEPARATOR = re.compile(r"[^ \t\r\n,]")
_OBJECT = re.compile(r',[ \t\r\n]*(?=\{[ \t\r\n]*["}])')
_STRUCTURE = re.compile(r'["\[\]{},]')
_IN_STRING = re.compile(r'["\\\n]')
_LONGEST_TOKEN = 16
"""Characters before the end within which an error may be a token that is cut, such as half of "\\\\ud83d\\\\ude00"."""
_NEAR = 1 << 14
"""Characters within which a broken element is expected to end; rows of instruction data are far shorter."""
_RESYNC_COST = 8
"""Text that may be read while looking for the next row, as a multiple of the text held: bounds hostile files."""


class _Brackets:
    """Finds the end of one array element by its brackets. Takes text in pieces; a line end closes an open string."""

    def __init__(self) -> None:
        self._open = bytearray()
        self._string = False
        self._escaped = False
        self.clean = True

    def feed(self, text: str, start: int, stop: int | None = None) -> int | None:
        """Read on from `start` to `stop`; give the position of the element's end, or None where it lies beyond.

        The element ends before a comma or closing bracket that belongs to the array. `clean` turns false where a
        closing bracket does not match.
        """
        at, stop = start, len(text) if stop is None else stop
        if self._escaped and at < stop:
            at, self._escaped = at + 1, False
        while match := (_IN_STRING if self._string else _STRUCTURE).search(text, at, stop):
            at, sign = match.end(), match[0]
            if self._string:
                if sign == "\\":
                    if at >= stop:
                        self._escaped = True
                        return None
                    at += 1
                else:
                    self._string = False
            elif sign == '"':
                self._string = True
            elif sign in "[{":
                self._open.append(ord("]" if sign == "[" else "}"))
            elif sign == ",":
                if not self._open:
                    return match.start()
            elif not self._open:
                self.clean = sign == "]"
                return match.start()
            elif self._open.pop() != ord(sign):
                self.clean = False
                return match.start()
        return None


class _Window:
    """The part of the text that is held: from `at`, the beginning of the element under way."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self.text = ""
        self.at = 0
        self.ended = False
        self.spoiled = False

    def more(self, *, keep: bool = True) -> bool:
        """Read on, dropping what lies before `at` (or all, with keep=False); False at the end.

        As much again as is held, so that an element of any size is copied a few times and not once for each chunk.
        """
        self.trim()
        held = self.text if keep else ""
        wanted = max(CHUNK, len(held))
        new: list[str] = []
        while not self.ended and (wanted > 0 or not any(new)):
            data = self._stream.read(CHUNK)
            self.ended = not data
            new.append(self._decoder.decode(data, final=self.ended))
            wanted -= len(data)
        fresh = "".join(new)
        if not self.spoiled and not fresh.isascii():
            try:
                fresh.encode()
            except UnicodeEncodeError:
                self.spoiled = True
        self.text, self.at = held + fresh, 0
        return bool(fresh)

    def trim(self) -> None:
        """Drop what lies before `at`."""
        self.text, self.at = self.text[self.at :], 0

    def skip(self, pattern: re.Pattern[str]) -> str:
        """Move to the next character that is part of something; give it, or "" at the end."""
        while not (match := pattern.search(self.text, self.at)):
            self.at = len(self.text)
            if not self.more():
                return ""
        self.at = match.start()
        return match[0]


class _Array:
    def __init__(self, stream: Stream, limit: int) -> None:
        self._uri, self._limit = stream.input.uri, limit
        self._window = _Window(stream)
        self._number = 0
        self._fields: frozenset[str] | None = None

    def rows(self) -> Iterator[Row]:
        window = self._window
        if window.skip(_NOT_BLANK) != "[":
            raise InputError(self._uri, "no JSON array", "a file that begins with '['")
        window.at += 1
        while True:
            sign = window.skip(_NOT_SEPARATOR)
            if sign == "]":
                break
            if sign == "":
                raise self._cut()
            self._number += 1
            if window.at > max(_NEAR, len(window.text) // 8):
                window.trim()  # a JSON error counts the lines before it: keep that short
            yield self._element()
        window.at += 1
        if window.skip(_NOT_BLANK):
            found = f"text after the end of the array, which has {self._number} rows"
            raise InputError(self._uri, found, "one JSON array", "write the rows as one array or as JSON Lines")

    def _cut(self) -> InputError:
        found = f"ends inside the array, after or in row {self._number}"
        return InputError(self._uri, found, "']' at its end", "it is cut off: fetch it again; nothing was committed")

    def _element(self) -> Row:
        """Read the element at the window's place, and move behind it."""
        window = self._window
        while True:
            try:
                value, end = scan(window.text, window.at)
            except RecursionError:
                return self._repair()
            except ValueError as error:
                broken = self._is_definite(error)
            else:
                follow = _NOT_BLANK.search(window.text, end)
                if (follow is None and window.ended) or (follow is not None and follow[0] in ",]{"):
                    return self._pass_over() if end - window.at > self._limit else self._taken(end, value)
                broken = follow is not None and not self._may_be_cut(follow.start())
            if broken:
                return self._repair()
            if len(window.text) - window.at > self._limit:
                return self._pass_over()
            window.more()

    def _taken(self, end: int, value: Any) -> Row:
        """Give the element that was read up to `end`, and move there."""
        window = self._window
        raw = window.text[window.at : end]
        window.at = end
        if self._window.spoiled and (bad := _bad_bytes(raw, self._number)):
            return bad
        try:
            check_depth(value, raw)
        except RowError as error:
            return Row(self._number, None, raw, error)
        if self._fields is None and isinstance(value, dict) and value:
            self._fields = frozenset(value)
        return Row(self._number, value, raw)

    def _repair(self) -> Row:
        """Find the end of an element that is not JSON, or nested too deeply to be read.

        By its brackets, where they end near. Otherwise a bracket or quote may be missing, and looking for it through
        all of the text, at every such element, would take forever: the next row is looked for first.
        """
        window, brackets = self._window, _Brackets()
        while len(window.text) - window.at < _NEAR and window.more():
            pass
        seen = min(_NEAR, len(window.text) - window.at)
        end = brackets.feed(window.text, window.at, window.at + seen)
        if end is None and self._fields is not None:
            boundary, _ = self._next_row(window.at, len(window.text))
            if boundary is not None:
                end = brackets.feed(window.text, window.at + seen, boundary)
                return self._as_broken(boundary if end is None or not brackets.clean else end)
        while end is None and (window.at + seen < len(window.text) or (seen <= self._limit and window.more())):
            end = brackets.feed(window.text, window.at + seen)
            seen = len(window.text) - window.at
        return self._recover(end if brackets.clean else None)

    def _is_definite(self, error: ValueError) -> bool:
        """Whether more text cannot mend an error."""
        if self._window.ended or not isinstance(error, json.JSONDecodeError):
            return True
        return not error.msg.startswith("Unterminated") and not self._may_be_cut(error.pos)

    def _may_be_cut(self, position: int) -> bool:
        """Whether what stands at a position may be the beginning of a token that is not read to its end yet."""
        return not self._window.ended and position >= len(self._window.text) - _LONGEST_TOKEN

    def _broken(self, raw: str, end: int, error: RowError) -> Row:
        self._window.at = end
        bad = _bad_bytes(raw, self._number) if self._window.spoiled else None
        return bad or Row(self._number, None, raw, error)

    def _recover(self, end: int | None) -> Row:
        """Give the broken element at the window's place, and move to where the next one begins.

        `end` is its end by brackets, where those are whole. An object before it that has the fields of the rows read so
        far is the next row all the same: a quote was lost between.
        """
        window = self._window
        searched = window.at
        while True:
            bound = len(window.text) if end is None else end
            boundary, searched = self._next_row(searched, bound)
            if boundary is None:
                boundary = end
            if boundary is not None:
                return self._as_broken(boundary)
            if len(window.text) - window.at > self._limit:
                found = f"row {self._number} is not JSON, and no row can be made out after it"
                raise InputError(self._uri, found, "a JSON array", "mend it, or write the rows as JSON Lines")
            searched -= window.at
            if not window.more():
                break
        rest = window.text[window.at :].rstrip(" \t\r\n")
        if not rest.endswith("]"):
            raise self._cut()
        return self._as_broken(window.at + len(rest) - 1)

    def _as_broken(self, boundary: int) -> Row:
        raw = self._window.text[self._window.at : boundary].rstrip(" \t\r\n")
        try:
            decode(raw)
            error = RowError("ingest:broken_json", "not separated from what follows")
        except RowError as found:
            error = found
        return self._broken(raw, boundary, error)

    def _next_row(self, searched: int, bound: int) -> tuple[int | None, int]:
        """Find the comma before an object that reads like a row. Gives (position, searched up to)."""
        window = self._window
        if bound < len(window.text) and self._fields is None:
            return None, bound  # whole brackets, and nothing known about rows: an inner object could mislead
        allowed = _RESYNC_COST * (len(window.text) - window.at) + CHUNK
        for match in _OBJECT.finditer(window.text, searched, bound):
            value, cost = _object_at(window.text, match.end())
            allowed -= cost
            if value is None and match.end() + cost >= len(window.text) and not window.ended:
                return None, match.start()  # it goes on in what is not read yet
            if value is not None and self._is_like_a_row(value):
                return match.start(), match.start()
            if allowed < 0:
                found = f"row {self._number} is not JSON, and the next row cannot be made out"
                raise InputError(self._uri, found, "a JSON array", "mend it, or write the rows as JSON Lines")
        while bound > searched and window.text[bound - 1] in " \t\r\n,{":
            bound -= 1  # a comma whose object is not read yet is looked at again
        return None, bound

    def _is_like_a_row(self, value: dict[str, Any]) -> bool:
        return self._fields is None or 2 * len(self._fields & value.keys()) > len(self._fields)

    def _pass_over(self) -> Row:
        """Skip an element above the limit without holding it."""
        window, brackets = self._window, _Brackets()
        hashed, size, head = hashlib.blake2b(digest_size=16), 0, b""
        end = None
        while end is None:
            end = brackets.feed(window.text, window.at)
            part = window.text[window.at : end].encode("utf-8", "surrogateescape")
            hashed.update(part)
            size += len(part)
            head += part[: 4_000 - len(head)]
            if end is None and not window.more(keep=False):
                raise self._cut()
        window.at = end
        error = TooLongError(head.decode("utf-8", "backslashreplace"), hashed.hexdigest(), size, self._limit)
        if not brackets.clean:
            found = f"row {self._number} is not JSON, and longer than the limit for one row"
            raise InputError(self._uri, found, "a JSON array", "mend it, or write the rows as JSON Lines")
        return Row(self._number, None, error.head, error)


def _object_at(text: str, at: int) -> tuple[dict[str, Any] | None, int]:
    """Read the object at a position; None where there is no whole one. Also gives how much text was looked at.

    In growing pieces, as most places that are none show it soon.
    """
    size = 256
    while True:
        piece = text[at : at + size]
        try:
            value, end = scan(piece)
        except json.JSONDecodeError as error:
            cut = error.msg.startswith("Unterminated") or error.pos >= len(piece) - _LONGEST_TOKEN
            if not cut or at + size >= len(text):
                return None, len(piece) if cut else min(error.pos + _LONGEST_TOKEN, len(piece) - 1)
        except (ValueError, RecursionError):
            return None, len(piece) - 1
        else:
            return (value if isinstance(value, dict) else None), end
        size *= 8


def _bad_bytes(raw: str, number: int) -> Row | None:
    """Give the rejected row where bytes of the file were not UTF-8 (surrogateescape left them as lone surrogates)."""
    try:
        raw.encode()
    except UnicodeEncodeError as error:
        kept = raw.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        return Row(number, None, kept, RowError("ingest:bad_encoding", f"character {error.start + 1} is not UTF-8"))
    return None


def array_rows(stream: Stream, limit: int) -> Iterator[Row]:
    """Give the rows of a JSON array. `limit` is in characters. Raises InputError where the file is cut off."""
    if stream.peek(3) == BOM:
        stream.read(3)
    yield from _Array(stream, limit).rows()
