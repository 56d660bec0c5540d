"""Verify: recompute from the objects what a manifest claims, and list every difference."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from schemas.dataset import Dataset
from schemas.errors import SftError
from schemas.objects import Checked, check_columns, check_object
from schemas.record import content_hash, lineage_id
from schemas.stages import STAGES

_TEXT_STATED = ["id", "source", "source_key", "messages", "context", "content_hash"]
_EDIT_STATED = ["row", "messages", "context", "content_hash", "before_hash"]


def verify(dataset: Dataset, *, deep: bool = False) -> list[str]:
    """List what is wrong with a version; an empty list means that all of it holds.

    Always: every object is there and its bytes give its name (an object that was read whole before and has not been
    touched since is not read again), columns and row numbers fit, ids are unique, rows entered = kept + rejected in
    every stage, and what a trainer sees is what the manifest says. `deep` reads every byte again, recomputes every id
    and content hash, and checks that every edit was made to the text that it covers.
    """
    problems = list(_objects(dataset, None if deep else Checked(dataset.root)))
    if problems:  # joining objects that are missing or broken would only say the same again, less clearly
        return problems
    try:
        problems += _alignment(dataset)
        if not problems:
            problems += _rows(dataset)
            problems += _counts(dataset)
            problems += _hashes(dataset) if deep else ()
    except (SftError, pl.exceptions.PolarsError) as error:
        problems.append(str(error))
    return problems


def _objects(dataset: Dataset, checked: Checked | None) -> Iterator[str]:
    for file in dataset.manifest.files:
        try:
            path = check_object(dataset.root, file, checked)
            check_columns(path, file)
            rows = _height(path)
            size = path.stat().st_size
            if (rows, size) != (file.rows, file.bytes):
                yield f"object {file.path}: {rows} rows, {size} bytes; the manifest says {file.rows}, {file.bytes}"
        except (SftError, pl.exceptions.PolarsError) as error:
            yield str(error)


def _height(path: Path) -> int:
    return int(pl.scan_ipc(path).select(pl.len()).collect().item())


def _alignment(dataset: Dataset) -> Iterator[str]:
    for shard in dataset.shards:
        where = f"source {shard.source} shard {shard.number}"
        for stage, path in shard.annotations.items():
            if (rows := _height(path)) != shard.rows:
                yield f"{where}: stage {stage} has {rows} opinions about {shard.rows} rows"
        for stage, path in shard.overlays.items():
            row = pl.scan_ipc(path).select("row").collect().to_series()
            if not row.is_sorted() or row.n_unique() != row.len() or (row.len() and int(row[-1]) >= shard.rows):
                yield f"{where}: the overlay of {stage} is not in row order, or points past the end"


def _rows(dataset: Dataset) -> Iterator[str]:
    ids = dataset.scan(["id"]).collect(engine="streaming").to_series()
    if (twice := ids.len() - ids.n_unique()) > 0:
        yield f"{twice} ids occur more than once"


def _counts(dataset: Dataset) -> Iterator[str]:
    manifest = dataset.manifest
    found = {c.stage: c for c in dataset.counts()}
    stated = {c.stage: c for c in manifest.counts}
    for stage in dict.fromkeys([*found, *stated]):
        if found.get(stage) != stated.get(stage):
            yield f"stage {stage}: the objects give {found.get(stage)}, the manifest says {stated.get(stage)}"
    entered = dataset.rows
    for count in manifest.counts:
        if count.entered != entered or count.entered != count.kept + sum(count.rejected.values()):
            yield f"stage {count.stage}: {count.entered} rows entered, {count.kept} kept, {count.rejected} rejected"
        entered = count.kept
    if dataset.train_visible() != manifest.train_visible:
        yield "what a trainer would see is not what the manifest says (train_visible)"


def _hashes(dataset: Dataset) -> Iterator[str]:
    """Recompute the id and the content hash of every row, as ingested and after each overlay.

    A stage that is stale says itself that the text below its overlay may be another one.
    """
    stale = dataset.stale()
    for shard in dataset.shards:
        texts: list[str] = []
        for batch in _batches(pl.scan_ipc(shard.text).select(_TEXT_STATED)):
            for row in batch.iter_rows(named=True):
                texts.append(row["content_hash"])
                where = f"source {shard.source} row {row['source_key']}"
                if lineage_id(row["source"], row["source_key"]) != row["id"]:
                    yield f"{where}: its id does not follow from its source and key"
                if content_hash(row["messages"], row["context"]) != row["content_hash"]:
                    yield f"{where}: its content does not give its content hash"
        for stage in (stage for stage in STAGES if stage in shard.overlays):
            for batch in _batches(pl.scan_ipc(shard.overlays[stage]).select(_EDIT_STATED)):
                for row in batch.iter_rows(named=True):
                    where = f"source {shard.source} shard {shard.number} row {row['row']}: overlay of {stage}"
                    if content_hash(row["messages"], row["context"]) != row["content_hash"]:
                        yield f"{where} altered"
                    if stage not in stale and row["before_hash"] != texts[row["row"]]:
                        yield f"{where} was made for another text than the one below it"
                    texts[row["row"]] = row["content_hash"]


def _batches(frame: pl.LazyFrame, rows: int = 4096) -> Iterator[pl.DataFrame]:
    yield from frame.collect().iter_slices(rows)
