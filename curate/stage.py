"""A stage: what it gives, and how its outcome becomes objects of a version.

A stage is a function over a dataset that yields, for every text shard in order, one annotation (and an overlay where it
rewrites text). It judges the rows that every earlier stage kept (`view(…, before_stage=NAME)`, column `kept`), and
leaves the others null. It reads only the columns that it needs.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from curate.store import Store
from schemas.config import Config
from schemas.dataset import Dataset, Shard
from schemas.manifest import FileEntry, StageEntry, digest
from schemas.record import OVERLAY_SCHEMA, VERDICT_SCHEMA, check_schema
from schemas.stages import ANNOTATION_COLUMNS

Progress = Callable[[int], None]
"""Called with the number of rows that are done since the last call."""


_WRITERS = 2


def no_progress(_rows: int) -> None:
    """Report to nobody."""


@dataclass(frozen=True)
class ShardOutput:
    """A stage's opinion about one shard: an annotation with a row for every row, and a sparse overlay or none."""

    shard: Shard
    annotation: pl.DataFrame
    overlay: pl.DataFrame | None = None


@dataclass
class IndexOutput:
    """What a stage keeps for its next run: for a shard, or for all of them, such as the ledger of the split.

    `made_from` digests what it was made from; `path` is where it lies, as soon as it is written.
    """

    frame: pl.DataFrame
    shard: Shard | None = None
    made_from: str | None = None
    path: Path | None = None


@dataclass(frozen=True)
class Note:
    """A sentence for the person who runs the stage."""

    text: str


Output = ShardOutput | IndexOutput | FileEntry | Note
"""A FileEntry is an object that is there already, and is taken over as it is."""


def as_it_is(_dataset: Dataset, config: Any) -> Any:
    """Pin nothing: the settings name nothing outside the dataset."""
    return config


@dataclass(frozen=True)
class Stage:
    """A stage as the pipeline knows it. `version` goes up whenever the same input would give another output.

    `pin` checks the names in the settings and makes exact what they name outside the dataset, before anything runs.
    `remembers`: what it gives depends on its own earlier indexes.
    """

    name: str
    version: int
    config: type[Config]
    run: Callable[[Dataset, Any, Progress], Iterator[Output]]
    features: tuple[str, ...] = ()
    pin: Callable[[Dataset, Any], Any] = as_it_is
    remembers: bool = False


@dataclass(frozen=True)
class StageResult:
    """A finished stage: its manifest entry, its objects, and what it has to say."""

    entry: StageEntry
    files: tuple[FileEntry, ...]
    notes: tuple[str, ...] = field(default=())
    cached: bool = False


def run_stage(
    store: Store,
    dataset: Dataset,
    stage: Stage,
    config: Config,
    progress: Progress = no_progress,
    *,
    fresh: bool = False,
) -> StageResult:
    """Run one stage over a dataset and write its objects; the outcome of the very same run is taken from the cache.

    `fresh` runs it in any case. Nothing is committed here: `curate.version` does that.
    """
    config = stage.pin(dataset, config)
    settings = config.model_dump(mode="json")
    reads = dataset.reads(stage.name, settings)
    given = {name: getattr(config, name) for name in type(config).model_fields}  # guards too
    past = _own_past(dataset, stage.name) if stage.remembers else []
    key = digest([stage.name, stage.version, given, reads, past])
    if not fresh and (known := _recall(store, key)):
        return known
    start = time.perf_counter()
    written: list[Future[list[FileEntry]]] = []
    notes: list[str] = []
    with ThreadPoolExecutor(_WRITERS) as writer:  # shards are written while the next ones are judged
        for output in stage.run(dataset, config, progress):
            match output:
                case Note(text):
                    notes.append(text)
                case FileEntry():
                    written.append(writer.submit(list, [output]))
                case IndexOutput():
                    written.append(writer.submit(_put_index, store, stage.name, output))
                    written[-1].result()  # the stage reads it
                case ShardOutput():
                    written.append(writer.submit(_put_shard, store, stage.name, output))
                    if len(written) > _WRITERS:
                        written[-_WRITERS - 1].result()  # no more are held, and none is judged in vain when one fails
    files = [file for future in written for file in future.result()]
    entry = StageEntry(
        name=stage.name,
        version=stage.version,
        config=settings,
        reads=reads,
        seconds=round(time.perf_counter() - start, 3),
    )
    result = StageResult(entry, tuple(files), tuple(notes))
    store.remember(key, files, {"entry": entry.model_dump(mode="json"), "notes": notes})
    return result


def _own_past(dataset: Dataset, stage: str) -> list[Any]:
    """Give what a stage may read of its own earlier result: its indexes (the ledger of split) and their settings."""
    indexes = [f.sha256 for f in dataset.manifest.files_of(stage) if f.role == "index"]
    entry = dataset.manifest.stage(stage)
    return [indexes, entry.config] if indexes and entry else []


def _recall(store: Store, key: str) -> StageResult | None:
    known = store.recall(key)
    if known is None:
        return None
    files, facts = known
    return StageResult(StageEntry.model_validate(facts["entry"]), files, tuple(facts["notes"]), cached=True)


def _put_index(store: Store, stage: str, output: IndexOutput) -> list[FileEntry]:
    source, number = (output.shard.source, output.shard.number) if output.shard else (None, None)
    file = store.put(output.frame, role="index", stage=stage, source=source, shard=number, made_from=output.made_from)
    output.path = store.root / file.path
    return [file]


def _put_shard(store: Store, stage: str, output: ShardOutput) -> list[FileEntry]:
    """Check the laws (same rows, known columns) and write the objects of one shard."""
    shard, annotation, overlay = output.shard, output.annotation, output.overlay
    where = f"stage {stage}, source {shard.source}, shard {shard.number}"
    if annotation.height != shard.rows:
        raise AssertionError(f"{where}: {annotation.height} opinions about {shard.rows} rows")
    expected = pl.Schema({**VERDICT_SCHEMA, **ANNOTATION_COLUMNS.get(stage, {})})
    if stage in ANNOTATION_COLUMNS:
        check_schema(annotation.schema, expected, where)
        annotation = annotation.select(list(expected))
    rejected = annotation.get_column("verdict").value_counts(sort=True).drop_nulls().sort("verdict")
    statistics = dict(rejected.iter_rows())
    put = partial(store.put, stage=stage, source=shard.source, shard=shard.number)
    files = [put(annotation, role="annotation", statistics=statistics)]
    if overlay is not None and overlay.height:
        check_schema(overlay.schema, OVERLAY_SCHEMA, f"{where}, overlay")
        overlay = overlay.select(list(OVERLAY_SCHEMA)).sort("row")
        files.append(put(overlay, role="overlay"))
    return files
