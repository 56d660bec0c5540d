"""CSV: a header, then one row a record. Every value is text; the columns that hold lists hold them as JSON.

Python's strict reader finds a quote that is never closed, which would otherwise swallow the rest of the file as one
field. Such a file is an error: what its rows are can no longer be known.
"""

import csv
import json
from collections.abc import Iterator
from typing import Any

from curate.ingest.inputs import Stream
from curate.ingest.lines import Line, split_lines
from curate.ingest.row import Row, RowError
from schemas.errors import InputError

_JSON_COLUMNS = ("conversations", "messages", "tools")


class _Lines:
    """The lines of the file as the csv module wants them, remembering those of the record under way."""

    def __init__(self, lines: Iterator[Line], limit: int) -> None:
        self._lines, self._limit = lines, limit
        self.record: list[str] = []
        self.number = 0
        self._held = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        number, data, problem, ended = next(self._lines)
        self.number = number
        text = data.decode("utf-8", "surrogateescape") + ("\n" if ended else "")
        self._held += len(data)
        if problem is None and self._held > self._limit:
            problem = RowError("ingest:too_long", f"above the limit of {self._limit / 1e6:g} MB (max_row_mb)")
        if problem is not None:
            self.record = [text[:2_000]]
            raise problem
        self.record.append(text)
        return text

    def begin(self) -> None:
        """Begin a new record."""
        self.record, self._held = [], 0

    @property
    def raw(self) -> str:
        text = "".join(self.record).rstrip("\r\n")
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def csv_rows(stream: Stream, limit: int) -> Iterator[Row]:
    """Give the rows of a CSV file, numbered from the first after the header. Raises InputError for a bad header."""
    lines = _Lines(split_lines(stream, limit), limit)
    if csv.field_size_limit() < limit:
        csv.field_size_limit(limit)
    reader = csv.reader(lines, strict=True)
    header = _header(stream.input.uri, reader)
    number = 0
    while True:
        lines.begin()
        first = lines.number + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except RowError as error:
            number += 1
            yield Row(number, None, lines.raw, error)
            reader = csv.reader(lines, strict=True)
            continue
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                found = f"the quote opened in line {first} is never closed"
                raise InputError(stream.input.uri, found, "a whole CSV file", "it is cut off, or a quote is") from error
            number += 1
            yield Row(number, None, lines.raw, RowError("ingest:broken_csv", f"line {lines.number}: {error}"))
            reader = csv.reader(lines, strict=True)
            continue
        if values:
            number += 1
            yield _row(number, header, values, lines)


def _header(uri: str, reader: Iterator[list[str]]) -> list[str]:
    try:
        header = next((values for values in reader if values), [])
    except (csv.Error, RowError) as error:
        found = error.detail if isinstance(error, RowError) else str(error)
        raise InputError(uri, f"its header cannot be read ({found})", "names of columns in the first line") from error
    if not header:
        raise InputError(uri, "no header", "names of columns in the first line")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InputError(uri, f"the column {twice[0]!r} stands twice in the header", "each column once")
    for sign, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and sign in header[0]:
            raise InputError(uri, f"columns separated by {name}", "commas", "write it as CSV with commas")
    if any(not _is_text(name) for name in header):
        raise InputError(uri, "its header is not UTF-8", "UTF-8 text", "convert it with iconv")
    return header


def _row(number: int, header: list[str], values: list[str], lines: _Lines) -> Row:
    if not all(map(_is_text, values)):
        return Row(number, None, lines.raw, RowError("ingest:bad_encoding", f"line {lines.number} is not UTF-8"))
    if len(values) != len(header):
        detail = f"{len(values)} fields; the header has {len(header)}"
        return Row(number, None, lines.raw, RowError("ingest:wrong_columns", detail))
    row: dict[str, Any] = dict(zip(header, values, strict=True))
    for name in _JSON_COLUMNS:
        if name in row and row[name].startswith(("[", "{")):
            row[name] = _json_cell(row[name])
    return Row(number, row, None)


def _json_cell(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _is_text(value: str) -> bool:
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
