"""A JSON array is read the same whatever the size of the pieces in which it comes."""

import io
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.ingest import json_stream
from curate.ingest.inputs import Input, Stream
from curate.ingest.json_stream import array_rows
from curate.ingest.row import Row
from schemas.errors import InputError

LIMIT = 1_000_000
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def elements(data: bytes, chunk: int = 1 << 20, limit: int = LIMIT) -> list[Row]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "CHUNK", chunk)
        return list(array_rows(Stream(Input("x", "x", "x"), io.BytesIO(data)), limit))


def outcome(data: bytes, chunk: int) -> Any:
    try:
        return [
            (row.value, row.raw, row.problem and (row.problem.reason, row.problem.detail))
            for row in elements(data, chunk)
        ]
    except InputError as error:
        return re.sub("[0-9]+", "N", str(error))  # the last row that was begun may count or not


@given(st.lists(VALUES, max_size=5), st.sampled_from([None, 0, 2]), st.booleans(), st.integers(1, 40))
def test_sound_arrays_give_what_json_gives(values: list[Any], indent: int | None, ascii_only: bool, chunk: int) -> None:
    text = json.dumps(values, indent=indent, ensure_ascii=ascii_only)
    rows = elements(text.encode(), chunk)
    assert [row.problem for row in rows] == [None] * len(values)
    assert json.dumps([row.value for row in rows]) == json.dumps(values)
    assert [row.number for row in rows] == list(range(1, len(values) + 1))
    assert [json.loads(row.raw or "") for row in rows] == json.loads(text)


@given(
    st.lists(st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3), min_size=1, max_size=5),
    st.integers(0, 200),
    st.sampled_from([b"", b'"', b"{", b"}", b"]", b"[", b",", b"\\", b"\xff", b"\n", b":"]),
    st.integers(1, 40),
)
def test_damaged_arrays_end_in_the_same_way_whatever_the_pieces(
    rows: list[Any], at: int, put: bytes, chunk: int
) -> None:
    data = json.dumps(rows).encode()
    at %= len(data)
    data = data[:at] + put + data[at + 1 :]
    assert outcome(data, chunk) == outcome(data, 1 << 20)


@given(st.binary(max_size=60))
def test_any_bytes_after_a_bracket_end(data: bytes) -> None:
    """In rows, or in an error: never a traceback."""
    assert isinstance(outcome(b"[" + data, 5), list | str)


@pytest.mark.parametrize("chunk", [3, 1 << 20])
def test_a_row_above_the_limit_is_passed_over(chunk: int) -> None:
    data = json.dumps([{"a": 1}, {"a": "long " * 100, "b": ["]", '"']}, {"a": 3}]).encode()
    first, long, last = elements(data, chunk, limit=100)
    assert (first.value, last.value) == ({"a": 1}, {"a": 3})
    assert long.problem is not None
    assert long.problem.reason == "ingest:too_long"


def test_the_text_of_a_row_that_is_passed_over_names_it_whatever_the_pieces() -> None:
    data = json.dumps([{"a": "long " * 1000}]).encode()
    assert elements(data, 7, limit=100)[0].raw == elements(data, limit=100)[0].raw


@pytest.mark.parametrize("sign", [b',{"a":[1', b"[", b'{"', b'"', b",{", b'{"a":1],', b'{"a":"', b"\\"])
def test_hostile_arrays_end_soon(sign: bytes) -> None:
    """A megabyte of signs that lead nowhere costs seconds at most: looking for the next row is bounded."""
    assert outcome(b'[{"a":1},{"a" 2},' + sign * (1_000_000 // len(sign)), 1 << 16)
    assert outcome(b'[{"a":1},' + sign * (1_000_000 // len(sign)) + b"]", 1 << 20)


def test_an_array_of_scalars_gives_scalars() -> None:
    assert [row.value for row in elements(b' [1 ,"x,]",null, true,-2.5e3]  \n', 1)] == [1, "x,]", None, True, -2500.0]


@pytest.mark.parametrize("data", [b"[", b"[1", b"[1,", b'[{"a": 1}', b'[{"a": "x', b'[{"a": 1},\n'])
def test_an_array_without_its_end_is_cut_off(data: bytes) -> None:
    with pytest.raises(InputError, match="cut off"):
        elements(data)
