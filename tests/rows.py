"""Rows for tests: small sources and stores made from plain Python values."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from curate.stage import run_stage
from curate.stages import stage
from curate.store import Store
from curate.version import Draft, commit_version
from schemas.config import Config
from schemas.dataset import Dataset
from schemas.manifest import FileEntry, Source
from schemas.record import TEXT_SCHEMA, VERDICT_SCHEMA, content_hash, lineage_id

Pair = tuple[str, str]


def messages(*turns: Pair) -> list[dict[str, Any]]:
    return [{"role": role, "content": content, "name": None, "tool_calls": None} for role, content in turns]


def text_frame(rows: Sequence[Mapping[str, Any]], source: str) -> pl.DataFrame:
    """Text rows; each row gives at least `messages`, as (role, content) pairs."""
    full: list[dict[str, Any]] = []
    for i, row in enumerate(rows):
        turns = messages(*row["messages"])
        key = row.get("key", f"k{i}")
        full.append(
            {
                "id": lineage_id(source, key),
                "source": source,
                "source_key": key,
                "source_file": f"{source}.jsonl",
                "source_row": i + 1,
                "messages": turns,
                "context": row.get("context"),
                "content_hash": content_hash(turns, row.get("context")),
            }
        )
    missing = {name: dtype for name, dtype in TEXT_SCHEMA.items() if not full or name not in full[0]}
    frame = pl.DataFrame(full, schema={n: t for n, t in TEXT_SCHEMA.items() if n not in missing})
    return frame.with_columns(**{n: pl.lit(None, dtype=t) for n, t in missing.items()}).select(list(TEXT_SCHEMA))


def put_source(
    store: Store, rows: Sequence[Mapping[str, Any]], source: str, *, shard_rows: int = 1000
) -> list[FileEntry]:
    """Write a source's text shards and their ingest annotations."""
    frame = text_frame(rows, source)
    files: list[FileEntry] = []
    for number, part in enumerate(frame.iter_slices(shard_rows)):
        verdict = pl.DataFrame({"verdict": [None] * part.height, "detail": [None] * part.height}, schema=VERDICT_SCHEMA)
        files.append(store.put(part, role="text", stage="ingest", source=source, shard=number))
        files.append(store.put(verdict, role="annotation", stage="ingest", source=source, shard=number))
    return files


def question(prompt: str, response: str, **more: Any) -> dict[str, Any]:
    return {"messages": [("user", prompt), ("assistant", response)], **more}


def dataset_of(
    root: Path, sources: Mapping[str, Sequence[Mapping[str, Any]]], *, name: str = "d", shard_rows: int = 1000
) -> Dataset:
    """Commit a dataset with these sources and open it."""
    store = Store(root)
    parent = store.latest(name)
    draft = Draft.of(parent) if parent else Draft(name)
    for source, rows in sources.items():
        draft = draft.with_source(
            Source(name=source, format="test"), put_source(store, rows, source, shard_rows=shard_rows)
        )
    return Dataset(commit_version(store, draft, parent, "test").manifest, root)


def staged(dataset: Dataset, name: str, **settings: Any) -> Dataset:
    """Run a stage and commit it."""
    store, known = Store(dataset.root), stage(name)
    config: Config = known.config(**settings)
    draft = Draft.of(dataset.manifest).with_stage(run_stage(store, dataset, known, config), known.features)
    return Dataset(commit_version(store, draft, dataset.manifest, name).manifest, dataset.root)
