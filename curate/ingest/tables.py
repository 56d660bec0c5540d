"""Parquet and Arrow files: columns become rows, some thousand at a time.

Values that JSON does not have are written as text (times in ISO form, decimals, NaN, bytes as the text that they hold),
so that a row is the same in every container. Every batch is checked before a value is read: a damaged Arrow file may
point outside of its own memory. (pyarrow has no types: its objects are Any here.)
"""

import datetime
import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.ingest.inputs import Stream
from curate.ingest.row import Row, RowError, check_depth, json_text
from schemas.errors import InputError

_BATCH = 2_048
_END_OF_STREAM = (b"\xff\xff\xff\xff\0\0\0\0", b"\0\0\0\0")


@contextmanager
def _explained(stream: Stream, kind: str) -> Generator[None]:
    """Turn Arrow's failures into one line; ValueError among them where a column's name is not UTF-8."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, ValueError, OverflowError, MemoryError) as error:
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise InputError(
            stream.input.uri, f"damaged or cut off ({reason})", f"a whole {kind} file", "fetch it again"
        ) from error


def parquet_rows(stream: Stream, limit: int) -> Iterator[Row]:
    """Give the rows of a Parquet file. Raises InputError where it is damaged."""
    del limit  # rows are measured where they are named
    number = 0
    with (
        stream.spooled() as path,
        _explained(stream, "Parquet"),
        pq.ParquetFile(path, page_checksum_verification=True) as file,
    ):
        _check_names(stream, file.schema_arrow)
        for batch in file.iter_batches(batch_size=_BATCH):
            yield from _batch_rows(batch, number)
            number += batch.num_rows


def arrow_rows(stream: Stream, limit: int) -> Iterator[Row]:
    """Give the rows of an Arrow file, in the file format or in the stream format of `datasets`."""
    del limit
    number = 0
    with stream.spooled() as path, _explained(stream, "Arrow"), pa.memory_map(str(path)) as source:
        for whole in _arrow_batches(stream, source):
            for start in range(0, whole.num_rows, _BATCH):
                batch = whole.slice(start, _BATCH)
                yield from _batch_rows(batch, number)
                number += batch.num_rows


def _arrow_batches(stream: Stream, source: Any) -> Iterator[Any]:
    if source.read(6) == b"ARROW1":
        source.seek(0)
        with pa.ipc.open_file(source) as file:
            _check_names(stream, file.schema)
            for i in range(file.num_record_batches):
                yield file.get_batch(i)
        return
    source.seek(max(0, source.size() - 8))
    if not source.read(8).endswith(_END_OF_STREAM):
        raise InputError(stream.input.uri, "no end-of-stream mark", "a whole Arrow stream", "it is cut off")
    source.seek(0)
    with pa.ipc.open_stream(source) as file:
        _check_names(stream, file.schema)
        yield from file


def _check_names(stream: Stream, schema: Any) -> None:
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise InputError(stream.input.uri, f"the column {twice[0]!r} stands twice", "each column once")


def _batch_rows(batch: Any, before: int) -> Iterator[Row]:
    batch.validate()
    plain = all(_is_plain(kind) for kind in batch.schema.types)
    try:
        batch.validate(full=True)
        rows = batch.to_pylist()
    except (pa.ArrowInvalid, UnicodeDecodeError, ValueError, OverflowError) as error:
        if "UTF8" not in str(error) and isinstance(error, pa.ArrowInvalid):
            raise
        yield from _careful_rows(batch, before)
        return
    for number, row in enumerate(rows, before + 1):
        yield Row(number, row) if plain else _json_row(number, row)


def _careful_rows(batch: Any, before: int) -> Iterator[Row]:
    """Give the rows of a batch of which some hold bytes that are no text, one by one."""
    blank = pa.RecordBatch.from_arrays(
        [column.cast(_as_bytes(column.type)) for column in batch.columns], names=batch.schema.names
    )
    blank.validate(full=True)
    for i in range(batch.num_rows):
        number = before + i + 1
        try:
            row = batch.slice(i, 1).to_pylist()[0]
        except (UnicodeDecodeError, ValueError, OverflowError) as error:
            raw = json_text(_json_value(blank.slice(i, 1).to_pylist()[0]))
            yield Row(number, None, raw, RowError("ingest:bad_encoding", str(error)[:200]))
        else:
            yield _json_row(number, row)


def _as_bytes(kind: Any) -> Any:
    """Give the type that holds the same values with bytes for text."""
    if pa.types.is_string(kind) or pa.types.is_string_view(kind):
        return pa.binary()
    if pa.types.is_large_string(kind):
        return pa.large_binary()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_as_bytes(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_as_bytes(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_as_bytes(kind.value_type)))
    return kind


def _is_plain(kind: Any) -> bool:
    """Whether all values of a type are JSON values as they stand."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_plain(kind.value_type)
    if pa.types.is_struct(kind):
        return all(_is_plain(kind.field(i).type) for i in range(kind.num_fields))
    texts = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return texts or pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)


def _json_row(number: int, row: dict[str, Any]) -> Row:
    try:
        value = _json_value(row)
        check_depth(value)
    except RecursionError:
        return Row(number, None, "", RowError("ingest:too_deep", "nested too deeply"))
    except RowError as error:
        return Row(number, None, json_text(_json_value(row)), error)
    return Row(number, value)


def _json_value(value: Any) -> Any:
    """Bring a value to what JSON has."""
    if isinstance(value, dict):
        return {str(name): _json_value(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(v) for v in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    as_it_is = value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
    return value if as_it_is else str(value)
