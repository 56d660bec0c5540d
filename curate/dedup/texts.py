"""Texts: where the text of every row lies, in memory-mapped objects, as compiled code reads it.

A row's text is in its shard's text object, or in the last overlay that rewrote it. Both are mapped, not loaded: a row
costs six bytes here, and its pages are read when its words are.
"""

import mmap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from curate.dedup.words import (
    CALLS,
    CONTENT,
    CONTEXT,
    FIELDS,
    ROLES,
    TURNS,
)
from schemas.dataset import Shard
from schemas.stages import before

_NOTHING = np.zeros(1, np.uint8)
"""Stands for the bytes of a column that holds none."""


class Segment:
    """The buffers of one object, by address, and what keeps them alive."""

    def __init__(self, turns: Any, columns: Mapping[int, Any], mapped: mmap.mmap | None = None) -> None:
        self.addresses = np.zeros(FIELDS, np.int64)
        self._held = (turns, columns)
        self._mapped = mapped
        self.addresses[TURNS] = turns.address
        for field, strings in columns.items():
            self._strings(strings, field, field + 1)

    def _strings(self, array: Any, offsets: int, data: int) -> None:
        if array.null_count == len(array):
            return
        _, starts, values = array.buffers()
        self.addresses[offsets] = starts.address + array.offset * np.dtype(np.int64).itemsize
        self.addresses[data] = values.address if values is not None else _NOTHING.ctypes.data

    def let_go(self) -> None:
        """Let the system take back the mapped pages; they are read again when they are needed."""
        if self._mapped is not None:
            self._mapped.madvise(mmap.MADV_DONTNEED)


def open_segment(path: Path) -> Segment:
    """Map a text object or an overlay."""
    mapped, batch = map_object(path)
    messages = batch.column("messages")
    said = messages.values
    columns = {ROLES: "role", CONTENT: "content", CALLS: "tool_calls"}
    strings = {field: said.field(name) for field, name in columns.items()}
    return Segment(messages.buffers()[1], {**strings, CONTEXT: batch.column("context")}, mapped)


def map_object(path: Path) -> tuple[mmap.mmap, Any]:
    """Map an object of the store: the mapping, and the record batch that lies in it."""
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    return mapped, pa.ipc.open_file(pa.py_buffer(mapped)).get_batch(0)


def segment_of(texts: Any) -> Segment:
    """Give an Arrow array of plain texts as rows that hold one text each, of nobody in particular."""
    turns = pa.py_buffer(np.arange(len(texts) + 1, dtype=np.int64))
    nobody = pa.LargeStringArray.from_buffers(
        len(texts), pa.py_buffer(np.zeros(len(texts) + 1, np.int64)), pa.py_buffer(b"")
    )
    return Segment(turns, {ROLES: nobody, CONTENT: texts})


@dataclass(frozen=True)
class Texts:
    """The texts of many rows. Row i is row `index[i]` of segment `segment[i]`."""

    segments: tuple[Segment, ...]
    addresses: NDArray[np.int64]
    """(segments, FIELDS)"""
    segment: NDArray[np.uint32]
    index: NDArray[np.uint32]

    def let_go(self) -> None:
        """Let the system take back all mapped pages."""
        for segment in self.segments:
            segment.let_go()


def texts_of(shards: Iterable[tuple[Shard, str | None]]) -> Texts:
    """Map the texts of shards, each as it stands before a stage; rows are numbered on from shard to shard."""
    segments: list[Segment] = []
    numbers: list[NDArray[np.uint32]] = []
    places: list[NDArray[np.uint32]] = []
    for shard, stage in shards:
        number = np.full(shard.rows, len(segments), np.uint32)
        place = np.arange(shard.rows, dtype=np.uint32)
        segments.append(open_segment(shard.text))
        for earlier in before(stage):
            if earlier in shard.overlays:
                path = shard.overlays[earlier]
                rows = pl.scan_ipc(path).select("row").collect().to_series().to_numpy()
                number[rows], place[rows] = len(segments), np.arange(len(rows), dtype=np.uint32)
                segments.append(open_segment(path))
        numbers.append(number)
        places.append(place)
    return _texts(segments, numbers, places)


def texts_in_memory(texts: Any) -> Texts:
    """Give plain texts, row by row: a polars Series, or an Arrow array of large strings, which is not copied."""
    if isinstance(texts, pl.Series):
        texts = texts.fill_null("").to_arrow(compat_level=pl.CompatLevel.oldest())
    chunks = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
    numbers = [np.full(len(chunk), i, np.uint32) for i, chunk in enumerate(chunks)]
    return _texts([segment_of(c) for c in chunks], numbers, [np.arange(len(c), dtype=np.uint32) for c in chunks])


def _texts(segments: Sequence[Segment], numbers: list[Any], places: list[Any]) -> Texts:
    addresses = np.stack([s.addresses for s in segments]) if segments else np.zeros((0, FIELDS), np.int64)
    return Texts(
        tuple(segments),
        addresses,
        np.concatenate([np.zeros(0, np.uint32), *numbers]),
        np.concatenate([np.zeros(0, np.uint32), *places]),
    )
