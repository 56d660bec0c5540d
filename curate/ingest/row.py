"""A row on its way in: what a container gives, how its JSON is read, and the one canonical text that names it.

JSON is read more strictly than Python does by itself. NaN and Infinity are no JSON, a field that stands twice in one
object would be lost in silence, and nesting is bounded by a number that does not depend on the depth of the call stack.
"""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

MAX_DEPTH = 64
"""Levels of nesting that are read. Tool definitions, the deepest thing known in chat logs, stay under 20."""


class RowError(Exception):
    """A row that cannot be read (or, on export, cannot be written): a reason and the evidence for it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class TooLongError(RowError):
    """A row above the limit. `head` stands for its raw text: its beginning, its size and its hash. Sizes in bytes."""

    def __init__(self, text: str, hashed: str, size: int, limit: int) -> None:
        detail = f"{size / 1e6:,.1f} MB long; the limit is {limit / 1e6:g} MB (max_row_mb); only its beginning is kept"
        super().__init__("ingest:too_long", detail)
        self.head = f"{text[:1_000]} … [{size} bytes, blake2b {hashed}]"


class Row(NamedTuple):
    """One row as a container gives it. `number` is what a person would look for: a line or an element, from 1.

    `raw` is its text where the container is text. `problem` says why there is no `value`.
    """

    number: int
    value: Any
    raw: str | None = None
    problem: RowError | None = None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"the field {twice!r} stands twice in one object")
    return fields


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON; write null")


_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_constant)
scan = _decoder.raw_decode
"""Read one JSON value that begins at a position: (value, end). Raises ValueError, RecursionError."""

_canonical = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))
_compact = json.JSONEncoder(ensure_ascii=False)


def decode(text: str) -> Any:
    """Read a text that is one JSON value, without blanks around it. Raises RowError."""
    try:
        value, end = scan(text)
    except RecursionError:
        raise RowError("ingest:too_deep", f"nested more than {MAX_DEPTH} levels deep") from None
    except ValueError as error:
        raise RowError("ingest:broken_json", explain(error)) from None
    if end != len(text):
        raise RowError("ingest:broken_json", f"text after the value, at character {end + 1}")
    check_depth(value, text)
    return value


def explain(error: ValueError) -> str:
    """Say what is wrong with a JSON text, with the place where that is known."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos + 1}"
    return str(error).partition(";")[0] if "digits" in str(error) else str(error)


def check_depth(value: Any, text: str | None = None) -> None:
    """Raise RowError when a value is nested more than MAX_DEPTH levels deep. Its JSON text makes the check cheap."""
    if text is not None and text.count("{") + text.count("[") <= MAX_DEPTH:
        return
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent) if isinstance(child, dict | list)]
        if not level:
            return
    raise RowError("ingest:too_deep", f"nested more than {MAX_DEPTH} levels deep")


def _children(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def json_text(value: Any) -> str:
    """Write a value as JSON, fields in their own order."""
    return _compact.encode(value)


def canonical_text(value: Any) -> str:
    """Write a row in the one way that names it: sorted fields, and none that are null.

    Parquet fills a field that a row lacks with null, so that a row has the same text (and id) in every container.
    """
    text = _canonical.encode(value)
    return _canonical.encode(_without_nulls(value)) if "null" in text else text


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(v) for name, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_nulls(v) for v in value]
    return value


def kind(value: Any) -> str:
    """Name the type of a JSON value as a person would."""
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "an object",
        type(None): "null",
    }
    return names.get(type(value), type(value).__name__)
