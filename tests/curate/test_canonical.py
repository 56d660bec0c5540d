"""Equal frames give equal bytes, however their columns came about."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.canonical import write_canonical
from schemas.record import MESSAGE

SCHEMA = {
    "text": pl.String,
    "list": pl.List(pl.String),
    "messages": pl.List(MESSAGE),
    "struct": pl.Struct({"a": pl.Int64, "b": pl.String}),
    "float": pl.Float32,
    "integer": pl.UInt64,
    "small": pl.UInt8,
    "flag": pl.Boolean,
}
texts = st.none() | st.text(max_size=5)
turn = st.fixed_dictionaries({"role": texts, "content": texts, "name": texts, "tool_calls": texts})
rows = st.lists(
    st.fixed_dictionaries(
        {
            "text": texts,
            "list": st.none() | st.lists(texts, max_size=3),
            "messages": st.none() | st.lists(turn, max_size=3),
            "struct": st.none() | st.fixed_dictionaries({"a": st.none() | st.integers(-5, 5), "b": texts}),
            "float": st.none() | st.floats(width=32, allow_nan=False),
            "integer": st.none() | st.integers(0, 2**64 - 1),
            "small": st.none() | st.integers(0, 255),
            "flag": st.none() | st.booleans(),
        }
    ),
    max_size=20,
)


def written(frame: pl.DataFrame, path: Path, *, compact: bool = False) -> bytes:
    write_canonical(frame, path, compact=compact)
    return path.read_bytes()


@given(rows=rows, cut=st.integers(0, 20), mask=st.lists(st.booleans(), min_size=20, max_size=20))
def test_equal_frames_give_equal_bytes(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], cut: int, mask: list[bool]
) -> None:
    """The same rows as one chunk, as two, as a slice of more, and with nulls that cover values."""
    path = tmp_path_factory.mktemp("canonical") / "x.arrow"
    frame = pl.DataFrame(rows, schema=SCHEMA)
    keep = pl.Series(mask[: frame.height], dtype=pl.Boolean)
    hidden = frame.with_columns(pl.when(keep).then(pl.col(c)).alias(c) for c in SCHEMA)
    plain = pl.DataFrame(hidden.to_dicts(), schema=SCHEMA)
    assert written(hidden, path, compact=True) == written(plain, path, compact=True)
    assert pl.read_ipc(path).cast(dict(plain.schema)).equals(plain)
    expected = written(plain, path)
    assert pl.read_ipc(path).equals(plain)
    assert written(hidden, path) == expected
    assert written(pl.concat([hidden[:cut], hidden[cut:]], rechunk=False), path) == expected
    assert written(pl.concat([hidden, hidden])[frame.height :], path) == expected
    assert written(hidden.select(pl.all().gather(list(range(frame.height)))), path) == expected


def test_compact_columns_read_back_alike_and_nulls_cost_nothing(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "verdict": ["x", None, "é" * 3] * 500,
            "flags": [["a"], None, []] * 500,
            "none": [None] * 1500,
            "n": [1.5, None, 0.0] * 500,
        },
        schema={"verdict": pl.String, "flags": pl.List(pl.String), "none": pl.String, "n": pl.Float32},
    )
    write_canonical(frame, tmp_path / "small", compact=True)
    write_canonical(frame, tmp_path / "plain")
    read = pl.scan_ipc(tmp_path / "small").collect()
    assert read.cast(dict(frame.schema)).equals(frame)
    assert (tmp_path / "small").stat().st_size < 0.6 * (tmp_path / "plain").stat().st_size


@pytest.mark.parametrize("distinct", [1, 255, 256])
def test_few_texts_that_repeat_take_a_byte_a_row(tmp_path: Path, distinct: int) -> None:
    """And more of them than a byte can tell apart are written out."""
    frame = pl.DataFrame({"task": [f"task number {i % distinct}" for i in range(20_000)]})
    size = len(written(frame, tmp_path / "x", compact=True))
    assert (size < 40_000) == (distinct <= 255)
    assert pl.read_ipc(tmp_path / "x").cast(pl.String).equals(frame)


def test_a_type_that_no_object_holds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="date"):
        write_canonical(pl.DataFrame({"d": [None]}, schema={"d": pl.Date}), tmp_path / "x")
