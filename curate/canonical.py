"""Canonical Arrow: equal frames give equal bytes.

Arrow leaves some bytes undefined: the bits of a validity bitmap after its last row, and the values under nulls. They
depend on how a column was computed, so two equal frames can differ on disk, and with them every hash built upon them.
Here they are zeroed before a frame is written.
"""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

Array = Any
"""A pyarrow array; pyarrow ships no types."""
Numbers = np.ndarray[Any, Any]


def write_canonical(frame: pl.DataFrame, path: Path) -> None:
    """Write a frame as an Arrow IPC file of one record batch, uncompressed, so that it can be memory-mapped."""
    table = frame.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    columns = [_canonical(column.combine_chunks()) for column in table.columns]
    batch = pa.record_batch(columns, schema=table.schema)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_batch(batch)


def _canonical(array: Array) -> Array:
    """Rebuild an array with nothing undefined in its buffers. Raises TypeError for a type that no object holds."""
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], type=array.type)
    if array.offset:
        array = array.take(pa.array(np.arange(len(array))))
    kind, n = array.type, len(array)
    valid = None if array.null_count == 0 else np.asarray(array.is_valid().to_numpy(zero_copy_only=False))
    bitmap = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little").tobytes())
    nulls = 0 if valid is None else int(n - valid.sum())
    buffers = array.buffers()
    if pa.types.is_struct(kind):
        children = [_canonical(_masked(array.field(i), valid)) for i in range(kind.num_fields)]
        return pa.Array.from_buffers(kind, n, [bitmap], null_count=nulls, children=children)
    if pa.types.is_large_list(kind):
        offsets = _offsets(buffers[1], n)
        child = array.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
        _check_empty_nulls(offsets, valid)
        start = pa.py_buffer((offsets - offsets[0]).tobytes())
        return pa.Array.from_buffers(kind, n, [bitmap, start], null_count=nulls, children=[_canonical(child)])
    if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        offsets = _offsets(buffers[1], n)
        _check_empty_nulls(offsets, valid)
        size = int(offsets[-1] - offsets[0])
        data = buffers[2].slice(int(offsets[0]), size) if buffers[2] is not None else pa.py_buffer(b"")
        start = pa.py_buffer((offsets - offsets[0]).tobytes())
        return pa.Array.from_buffers(kind, n, [bitmap, start, data], null_count=nulls)
    if pa.types.is_boolean(kind):
        values = np.asarray(array.fill_null(False).to_numpy(zero_copy_only=False), dtype=bool)
        return pa.Array.from_buffers(
            kind, n, [bitmap, pa.py_buffer(np.packbits(values, bitorder="little").tobytes())], null_count=nulls
        )
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        numbers = np.frombuffer(buffers[1], dtype=kind.to_pandas_dtype(), count=n)
        if valid is not None:
            numbers = np.where(valid, numbers, numbers.dtype.type(0))
        return pa.Array.from_buffers(kind, n, [bitmap, pa.py_buffer(numbers.tobytes())], null_count=nulls)
    raise TypeError(f"no object holds a column of type {kind}")


def _offsets(buffer: Any, n: int) -> Numbers:
    return (
        np.frombuffer(buffer, dtype=np.int64, count=n + 1)
        if buffer is not None and buffer.size
        else np.zeros(n + 1, np.int64)
    )


def _masked(child: Array, valid: Numbers | None) -> Array:
    """Give a struct's field with null where the struct is null, whatever lies underneath."""
    if valid is None:
        return child
    return pc.if_else(pa.array(valid), child, pa.scalar(None, type=child.type))


def _check_empty_nulls(offsets: Numbers, valid: Numbers | None) -> None:
    if valid is not None and np.diff(offsets)[~valid].any():
        raise AssertionError("polars wrote bytes under a null: they would have to be removed here")
