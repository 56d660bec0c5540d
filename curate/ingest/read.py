"""Files become rows: which container a file is, told by its first bytes and its name, and the reader for it."""

import json
import re
from collections.abc import Callable, Iterator

from curate.ingest.csv_rows import csv_rows
from curate.ingest.inputs import Stream
from curate.ingest.json_stream import array_rows
from curate.ingest.lines import BLANK, BOM, line_rows
from curate.ingest.row import Row
from curate.ingest.tables import arrow_rows, parquet_rows
from schemas.errors import InputError

Reader = Callable[[Stream, int], Iterator[Row]]

_PEEK = 1 << 16
_NAMED = (".json", ".jsonl", ".ndjson", ".csv", ".parquet", ".arrow")
_KNOWN = ".json, .jsonl, .parquet, .csv or .arrow, each also .gz or .zst"


def rows_of(stream: Stream, limit: int) -> tuple[str, Iterator[Row]]:
    """Choose the reader for a file. Gives what its rows are counted by ("line", "row"), and the rows.

    `limit` is the size of one row in bytes. Raises InputError where the file is empty or no known container.
    """
    start = stream.peek(_PEEK)
    if not start:
        raise InputError(stream.input.uri, "empty", "at least one row")
    kind = _container(stream, start)
    readers: dict[str, Reader] = {
        "lines": line_rows,
        "array": array_rows,
        "csv": csv_rows,
        "parquet": parquet_rows,
        "arrow": arrow_rows,
    }
    return ("line" if kind == "lines" else "row"), readers[kind](stream, limit)


def _container(stream: Stream, start: bytes) -> str:  # noqa: PLR0911 - one answer for each container
    uri, suffix = stream.input.uri, stream.input.suffixes[0]
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow"
    if suffix in (".parquet", ".arrow"):
        raise InputError(
            uri, f"no {suffix[1:].capitalize()} data", f"what its name says ({suffix})", "correct the name"
        )
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(uri, "UTF-16 text", "UTF-8", "convert it: iconv -f UTF-16 -t UTF-8")
    if suffix == ".csv":
        return "csv"
    text = start.removeprefix(BOM).lstrip(BLANK)
    if not text:
        raise InputError(uri, "nothing but blanks", "at least one row")
    first = text.partition(b"\n")[0].rstrip(BLANK)
    if text.startswith(b"["):
        whole_row = suffix in (".jsonl", ".ndjson") and first != b"[" and not re.match(rb"\[\s*\{", text)
        return "lines" if whole_row else "array"
    if suffix in (".jsonl", ".ndjson") and not _is_open_object(first):
        return "lines"
    if text.startswith(b"{"):
        if len(first) < len(text) and _is_open_object(first):
            raise InputError(uri, "one JSON object over several lines", "an array or JSON Lines", _inner_list(text))
        return "lines"
    if suffix not in _NAMED and b"," in first:
        return "csv"
    raise InputError(uri, f"no JSON (it begins with {_shown(first)})", f"rows as {_KNOWN}", "check that it is the file")


def _is_open_object(line: bytes) -> bool:
    """Whether a line begins an object that goes on in the next one, as in a file that is one indented object."""
    if not line.startswith(b"{"):
        return False
    try:
        json.loads(line)
    except json.JSONDecodeError as error:
        return line == b"{" or (error.pos >= len(error.doc) and line[-1:] in b"{[,:")
    except (ValueError, RecursionError):
        return False
    return False


def _inner_list(text: bytes) -> str:
    """Say how to get at the rows where an object seems to hold them."""
    name = re.search(rb'"([A-Za-z_]+)"\s*:\s*\[\s*\{', text)
    return f"take the rows out of it: jq .{name[1].decode()}" if name else "put it in brackets, or on one line"


def _shown(line: bytes) -> str:
    return repr(line[:40].decode("utf-8", "backslashreplace"))
