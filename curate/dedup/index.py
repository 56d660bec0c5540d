"""The index of a shard: its sketches, as an object of the version, so that the next run need not sketch it again."""

import mmap
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.dedup.sketch import PARTS, permutations, sketch
from curate.dedup.texts import map_object, texts_of
from curate.key import key_hash
from curate.stage import IndexOutput
from schemas.config import DedupConfig
from schemas.dataset import Dataset, Shard
from schemas.errors import CorruptObjectError
from schemas.manifest import FileEntry, digest
from schemas.stages import before

VERSION = 2
"""Goes up whenever the same text would give another sketch."""

FACTS = pl.Schema(
    {
        "id_hi": pl.UInt64,
        "id_lo": pl.UInt64,
        "key_hi": pl.UInt64,
        "key_lo": pl.UInt64,
        "tools": pl.UInt64,
        "answer_chars": pl.UInt32,
        "words": pl.UInt32,
    }
)
"""The 32 hex digits of the id as two halves; hashes of the whole record and of its tools; characters of the answer,
words of the record."""


def band_name(part: int, band: int) -> str:
    """Give the column of a band."""
    return f"{PARTS[part]}_{band:03}"


def made_from(dataset: Dataset, shard: Shard, config: DedupConfig, shape: tuple[int, int], stage: str | None) -> str:
    """Digest what a shard's index depends on: the text as it stands before a stage, and how it is sketched."""
    stages = before(stage)
    mine = [f for f in dataset.manifest.files if (f.source, f.shard) == (shard.source, shard.number)]
    texts = [[f.role, f.stage, f.sha256] for f in mine if f.role in ("text", "overlay") and f.stage in stages]
    drawn = [numbers.tolist() for numbers in permutations(config.num_perm, config.seed)]  # datasketch may draw others
    return digest([VERSION, config.compare, config.ngram, drawn, shape, sorted(texts)])


def indexes_of(
    dataset: Dataset, stage: str | None, config: DedupConfig, shape: tuple[int, int], workers: Executor
) -> Iterator[FileEntry | IndexOutput]:
    """Give the index of each shard, in order: the one that the version holds, or else a new one."""
    known = {f.made_from: f for f in dataset.manifest.files_of("dedup") if f.role == "index"}
    for shard in dataset.shards:
        key = made_from(dataset, shard, config, shape, stage)
        if key in known and _is_whole(dataset, known[key]):
            yield known[key]
        else:
            yield IndexOutput(make_index(shard, stage, config, shape, workers), shard, key)


def _is_whole(dataset: Dataset, file: FileEntry) -> bool:
    try:
        return dataset.path(file).exists()
    except CorruptObjectError:  # it can be made anew, so it is
        return False


def opened(dataset: Dataset, output: FileEntry | IndexOutput) -> "Index":
    """Open an index: from the store where it lies there, else from memory."""
    if isinstance(output, FileEntry):
        return open_index(dataset.path(output))
    return open_index(output.path) if output.path else in_memory(output.frame)


def make_index(
    shard: Shard, stage: str | None, config: DedupConfig, shape: tuple[int, int], workers: Executor
) -> pl.DataFrame:
    """Sketch the rows of a shard as they stand before a stage.

    Reads: id, messages, context, tools. Adds: the columns of FACTS, and one for each band of each part (uint32).
    """
    texts = texts_of([(shard, stage)])
    made = sketch(texts, range(shard.rows), config, shape, workers)
    texts.let_go()
    frame = pl.scan_ipc(shard.text).select("id", "tools").collect()
    half = [pl.col("id").str.slice(at, 16).str.to_integer(base=16, dtype=pl.UInt64) for at in (0, 16)]
    bands = {
        band_name(part, band): made.bands[part * shape[0] + band]
        for part in range(len(PARTS))
        for band in range(shape[0])
    }
    return frame.select(
        half[0].alias("id_hi"),
        half[1].alias("id_lo"),
        key_hi=made.key_hi,
        key_lo=made.key_lo,
        tools=_tools(frame["tools"]),
        answer_chars=made.answer_chars,
        words=made.words,
    ).with_columns(**{name: pl.Series(values) for name, values in bands.items()})


def _tools(texts: pl.Series) -> pl.Series:
    """Hash definitions of tools: 0 for a row without any."""
    if texts.null_count() == len(texts):
        return pl.zeros(len(texts), pl.UInt64, eager=True)
    distinct = texts.drop_nulls().unique()
    hashes = key_hash(distinct).str.head(16).str.to_integer(base=16, dtype=pl.UInt64)
    return texts.replace_strict(distinct, hashes, default=0, return_dtype=pl.UInt64)


@dataclass(frozen=True)
class Index:
    """An index that is mapped: its columns are read as they are asked for."""

    rows: int
    mapped: mmap.mmap | None
    batch: Any

    def column(self, name: str) -> NDArray[Any]:
        """Give a column without copying it."""
        return self.batch.column(name).to_numpy()

    def addresses(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Give where columns lie, and after them which of them has 64 bits; their number where none has."""
        columns = [self.batch.column(name) for name in names]
        wide = next((i for i, column in enumerate(columns) if column.type.bit_width == 64), len(names))
        return np.array([*(c.buffers()[1].address + c.offset * c.type.bit_width // 8 for c in columns), wide], np.int64)

    def let_go(self) -> None:
        """Let the system take back the mapped pages."""
        if self.mapped is not None:
            self.mapped.madvise(mmap.MADV_DONTNEED)


def open_index(path: Path) -> Index:
    """Map an index object."""
    mapped, batch = map_object(path)
    return Index(batch.num_rows, mapped, batch)


def in_memory(frame: pl.DataFrame) -> Index:
    """Give an index that no version holds."""
    table = frame.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    return Index(frame.height, None, table.combine_chunks().to_batches()[0] if frame.height else table)


def column_of(indexes: Sequence[Index], name: str) -> NDArray[Any]:
    """Give one column of many indexes, end to end."""
    column = np.concatenate([index.column(name) for index in indexes])
    for index in indexes:
        index.let_go()
    return column
