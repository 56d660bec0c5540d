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

Array = Any
"""A pyarrow array; pyarrow ships no types."""
Numbers = np.ndarray[Any, Any]
_LARGEST = 2**31 - 1
"""Bytes that offsets of 32 bits can reach."""
_CODES = 255
"""Distinct texts that a byte can tell apart."""


def write_canonical(frame: pl.DataFrame, path: Path, *, compact: bool = False) -> None:
    """Write a frame as an Arrow IPC file of one record batch, uncompressed, so that it can be memory-mapped.

    `compact` is for columns that say little: offsets of 32 bits, a byte for each row where few texts repeat (Arrow's
    dictionary), and no bytes at all for a column of nulls (Arrow's null type). A reader casts them back.
    """
    table = frame.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    columns = [_canonical(column.combine_chunks()) for column in table.columns]
    if compact:
        columns = [_compact(column) for column in columns]
    batch = pa.record_batch(columns, names=table.column_names)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def _compact(array: Array) -> Array:
    if array.null_count == len(array):
        return pa.nulls(len(array))
    if array.nbytes > _LARGEST:
        return array
    if pa.types.is_large_string(array.type):
        return _coded(array)
    if pa.types.is_large_list(array.type) and pa.types.is_large_string(array.type.value_type):
        values = _coded(array.values)
        offsets = pa.py_buffer(_offsets(array).astype(np.int32).tobytes())
        buffers = [array.buffers()[0], offsets]
        return pa.Array.from_buffers(
            pa.list_(values.type), len(array), buffers, null_count=array.null_count, children=[values]
        )
    return array


def _coded(texts: Array) -> Array:
    """Give a text column with a byte for each row and every distinct text once, where that is shorter."""
    plain = texts.cast(pa.string())
    if texts.null_count == len(texts) or len(texts.slice(0, _CODES * 4).unique()) > _CODES:
        return plain
    encoded = texts.dictionary_encode()
    distinct = encoded.dictionary
    if len(distinct) > _CODES or distinct.nbytes + len(texts) >= plain.nbytes:
        return plain
    codes = pa.py_buffer(encoded.indices.fill_null(0).to_numpy().astype(np.uint8).tobytes())
    indices = pa.Array.from_buffers(pa.uint8(), len(texts), [texts.buffers()[0], codes], null_count=texts.null_count)
    return pa.DictionaryArray.from_arrays(indices, _canonical(distinct).cast(pa.string()))


def _canonical(array: Array) -> Array:
    """Rebuild an array with nothing undefined in its buffers. Raises TypeError for a type that no object holds."""
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], type=array.type)
    valid = None if array.null_count == 0 else np.asarray(array.is_valid().to_numpy(zero_copy_only=False))
    if array.offset or _hides_bytes(array, valid):
        array = array.take(pa.array(np.arange(len(array)), mask=None if valid is None else ~valid))
    buffers, children = _parts(array, valid)
    bitmap = None if valid is None else _bits(valid)
    nulls = 0 if valid is None else int(len(array) - valid.sum())
    return pa.Array.from_buffers(array.type, len(array), [bitmap, *buffers], null_count=nulls, children=children)


def _parts(array: Array, valid: Numbers | None) -> tuple[list[Any], list[Array] | None]:
    """Give the buffers after the validity bitmap, and the children, each made canonical."""
    kind, n, types = array.type, len(array), pa.types
    if types.is_struct(kind):
        return [], [_canonical(_masked(array.field(i), valid)) for i in range(kind.num_fields)]
    if types.is_large_list(kind):
        offsets = _offsets(array)
        child = array.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
        return [pa.py_buffer((offsets - offsets[0]).tobytes())], [_canonical(child)]
    if types.is_large_string(kind):
        offsets, data = _offsets(array), array.buffers()[2]
        used = pa.py_buffer(b"") if data is None else data.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
        return [pa.py_buffer((offsets - offsets[0]).tobytes()), used], None
    if types.is_boolean(kind):
        return [_bits(np.asarray(array.fill_null(False).to_numpy(zero_copy_only=False), dtype=bool))], None
    if types.is_integer(kind) or types.is_floating(kind):
        numbers = np.frombuffer(array.buffers()[1], dtype=kind.to_pandas_dtype(), count=n)
        return [
            pa.py_buffer((numbers if valid is None else np.where(valid, numbers, numbers.dtype.type(0))).tobytes())
        ], None
    raise TypeError(f"no object holds a column of type {kind}")


def _bits(values: Numbers) -> Any:
    return pa.py_buffer(np.packbits(values, bitorder="little").tobytes())


def _offsets(array: Array) -> Numbers:
    """Give the offsets of a list or string array: int64, one more than its rows."""
    buffer = array.buffers()[1]
    n = len(array) + 1
    return (
        np.frombuffer(buffer, dtype=np.int64, count=n) if buffer is not None and buffer.size else np.zeros(n, np.int64)
    )


def _masked(array: Array, valid: Numbers | None) -> Array:
    """Give an array with null, and nothing underneath it, wherever `valid` is false."""
    return array if valid is None else array.take(pa.array(np.arange(len(array)), mask=~valid))


def _hides_bytes(array: Array, valid: Numbers | None) -> bool:
    """Whether something of variable length lies under a null."""
    if valid is None or not (pa.types.is_large_list(array.type) or pa.types.is_large_string(array.type)):
        return False
    return bool(np.diff(_offsets(array))[~valid].any()) if not array.offset else True
