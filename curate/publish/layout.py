"""The layout of the Hugging Face hub: `data/SPLIT-00000-of-00001.parquet`, and beside it what is said of the data.

The files of a version are the same bytes each time, for one release of pyarrow. Parquet pages are cut where the content
says so (content-defined chunking), so that storage which knows equal pieces keeps one copy of what two versions share.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from curate.folder import new_folder
from curate.publish.ai_act import summary_json, summary_markdown
from curate.publish.card import card
from curate.publish.croissant import croissant, missing_fields
from curate.publish.facts import DataFile, Facts, facts_of
from curate.publish.rows import Shape, published, shape_of
from schemas.about import About
from schemas.dataset import Dataset
from schemas.errors import ConfigError
from schemas.objects import file_sha256
from schemas.stages import SPLITS

SHARD_BYTES = 256 << 20
"""A Parquet file ends with the row group by which it reaches this size; larger ones are slow to browse and resume."""
ROW_GROUP_BYTES = 32 << 20
"""Bytes in memory of a row group: readers that want one row load that much."""

SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}
"""Our splits as the hub calls them. A version without splits is published as one, train."""


@dataclass(frozen=True)
class Published:
    """What was written, and what only a person could have said."""

    files: tuple[Path, ...]
    rows: int
    facts: Facts
    notices: tuple[str, ...]


def publish(
    dataset: Dataset,
    to: Path,
    *,
    about: About | None = None,
    splits: tuple[str, ...] | None = None,
    page: str | None = None,
    revision: str = "main",
) -> Published:
    """Write the kept rows of a version, and all that is said of them, into the new folder `to`.

    `splits`: those that are wanted (None: all); `page`, `revision`: where on the hub it will lie, for the addresses in
    croissant.json (None: beside it). Raises ConfigError for a folder that is in use, splits that are not there, rows
    that have none, an `about` that names a source which is not there, and a version without kept rows.
    """
    about = about or About()
    wanted = _splits(dataset, splits)
    _check(dataset, about)
    with new_folder(to) as folder:
        shape = shape_of(dataset)
        files = tuple(file for split in wanted for file in _write_split(dataset, shape, split, folder))
        if not files:
            raise ConfigError(f"dataset {dataset.manifest.name!r}", "no kept rows to publish", "one at least")
        facts = facts_of(dataset, about, files, shape, splits=wanted, page=page, revision=revision)
        described = croissant(facts)
        texts = {
            "README.md": card(facts),
            "croissant.json": json.dumps(described, indent=1, ensure_ascii=False) + "\n",
            "data-card.json": json.dumps(facts.to_json(), indent=1, ensure_ascii=False) + "\n",
            "ai-act-summary.md": summary_markdown(facts),
            "ai-act-summary.json": json.dumps(summary_json(facts), indent=1, ensure_ascii=False) + "\n",
        }
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
    names = [*texts, *(file.name for file in files)]
    notices = [f"croissant.json lacks what its specification requires: {', '.join(missing_fields(described))}"]
    notices = notices if missing_fields(described) else []
    notices += [f"not stated, so left out: {', '.join(facts.missing)}"] if facts.missing else []
    return Published(tuple(to / name for name in names), sum(f.rows for f in files), facts, tuple(notices))


def _splits(dataset: Dataset, splits: tuple[str, ...] | None) -> tuple[str | None, ...]:
    """Give the splits to write; (None,) where the version has none."""
    m = dataset.manifest
    split_ran = any("split" in shard.annotations for shard in dataset.shards)
    unknown = [name for name in splits or () if name not in SPLITS]
    if unknown:
        raise ConfigError(f"split {unknown[0]!r}", "no such split", f"one of {', '.join(SPLITS)}")
    if not split_ran:
        if splits:
            remedy = f"run `sft curate split {m.name}` first"
            raise ConfigError(f"dataset {m.name!r}", "not split yet", "a split", remedy)
        return (None,)
    without = sum(
        shard.view(["kept", "split"])
        .filter(pl.col("kept") & pl.col("split").is_null())
        .select(pl.len())
        .collect()
        .item()
        for shard in dataset.shards
    )
    if without:
        rows = "1 kept row has" if without == 1 else f"{without:,} kept rows have"
        found = f"{rows} no split: they came after the split was made"
        raise ConfigError(f"{m.name}@{m.seq}", found, "a split for each", f"run `sft curate split {m.name}` first")
    return tuple(name for name in SPLITS if splits is None or name in splits)


def _check(dataset: Dataset, about: About) -> None:
    sources = [source.name for source in dataset.manifest.sources]
    unknown = sorted(set(about.sources) - set(sources))
    if unknown:
        raise ConfigError(f"about: sources.{unknown[0]}", "no such source", f"one of {', '.join(sources)}")


def _write_split(dataset: Dataset, shape: Shape, split: str | None, folder: Path) -> list[DataFile]:
    """Write the Parquet files of one split; none where it has no rows."""
    name = SPLIT_NAMES[split or "train"]
    (folder / "data").mkdir(exist_ok=True)
    written: list[tuple[Path, int]] = []
    writer: pq.ParquetWriter | None = None
    for group in _row_groups(dataset, shape, split):
        if writer is None:
            path = folder / "data" / f"{name}-{len(written):05d}.parquet"
            writer = pq.ParquetWriter(
                path, shape.schema, compression="zstd", write_page_index=True, use_content_defined_chunking=True
            )
            written.append((path, 0))
        writer.write_table(group, row_group_size=group.num_rows)
        path, rows = written[-1]
        written[-1] = (path, rows + group.num_rows)
        if path.stat().st_size >= SHARD_BYTES:
            writer.close()
            writer = None
    if writer is not None:
        writer.close()
    files: list[DataFile] = []
    for number, (path, rows) in enumerate(written):
        final = path.with_name(f"{name}-{number:05d}-of-{len(written):05d}.parquet")
        path.rename(final)
        memory = sum(pq.read_metadata(final).row_group(i).total_byte_size for i in range(_groups(final)))
        size = final.stat().st_size
        files.append(DataFile(f"data/{final.name}", name, rows, size, memory, file_sha256(final)))
    return files


def _groups(path: Path) -> int:
    return pq.read_metadata(path).num_row_groups


def _row_groups(dataset: Dataset, shape: Shape, split: str | None) -> Iterator[Any]:
    """Gather tables until they fill a row group."""
    held: list[Any] = []
    size = 0
    for shard in dataset.shards:
        for table in published(shard, shape, split=split):
            held.append(table)
            size += table.nbytes
            if size >= ROW_GROUP_BYTES:
                yield pa.concat_tables(held).combine_chunks()
                held, size = [], 0
    if held:
        yield pa.concat_tables(held).combine_chunks()
