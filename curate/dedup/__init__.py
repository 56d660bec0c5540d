"""Dedup: of rows that say the same, one stays, and every other one names it.

Alike, a near-duplicate: at or above the threshold are the Jaccard similarities of

    the whole records,
    what is asked and answered, without the material (system prompt, context, tool results), and
    the answers alone.

One long text with two questions about it passes the first test and fails the second; one question with two answers
passes the first and fails the third. The latter, prompts alike and answers not, is a conflict: both rows stay, for a
person to look at, under one `conflict_id`, the id of the group's first row. Rows that give the same answer to different
prompts stay as well, under one `answer_id`.

The walk: letters -> words -> sketch (an index object for each shard) -> bucket -> cluster -> opinion.
"""

from collections.abc import Iterator

import polars as pl

from curate.dedup.against import open_other, pin
from curate.dedup.band import choose_bands
from curate.dedup.growth import Known, grow, known
from curate.dedup.guard import guard
from curate.dedup.index import indexes_of, opened
from curate.dedup.opinion import Side, opinions, places, said
from curate.dedup.search import Search, prepared, workers_of
from curate.stage import IndexOutput, Note, Output, Progress, ShardOutput, Stage
from schemas.config import DedupConfig
from schemas.dataset import Dataset
from schemas.errors import CorruptObjectError
from schemas.manifest import reads_digest
from schemas.stages import before

VERSION = 2


def run(dataset: Dataset, config: DedupConfig, progress: Progress) -> Iterator[Output]:
    """Find the duplicates among all rows that are kept so far."""
    if not dataset.shards:
        return
    other = open_other(dataset, config)
    shape = choose_bands(config.threshold, config.recall, config.num_perm)
    with workers_of() as workers:
        indexes = []
        for shard, output in zip(dataset.shards, indexes_of(dataset, "dedup", config, shape, workers), strict=True):
            yield output
            indexes.append(opened(dataset, output))
            progress(shard.rows // 2)
        if other:
            indexes += [opened(other, output) for output in indexes_of(other, None, config, shape, workers)]
        search = prepared(dataset, other, indexes, config, bands=shape[0], workers=workers, progress=progress)
        last = _last(dataset, search)
        found = (grow(search, last) if last else None) or search.run()
        progress(search.rest)
    guard(dataset.shards, search.judged, found.duplicates, config)
    sides = [Side(dataset.shards)]
    if other:
        sides.append(Side(other.shards, f"{other.manifest.name}@{other.manifest.seq}"))
    named = places(sides, found.named())
    made = opinions(dataset.shards, found, named, search.own_rows)
    for shard, opinion in zip(dataset.shards, made, strict=True):
        yield ShardOutput(shard, opinion)
    yield IndexOutput(pl.DataFrame({"capped": [found.capped]}))
    yield Note(said(found, search.own_rows))


def _last(dataset: Dataset, search: Search) -> Known | None:
    """Give what the last run found, where all that has happened since is that rows were added; None otherwise."""
    try:
        return known(dataset, search) if _is_growth(dataset, search.config) else None
    except CorruptObjectError:  # what the last run wrote is damaged, and is made anew
        return None


def _is_growth(dataset: Dataset, config: DedupConfig) -> bool:
    """Whether rows were added since dedup ran last, by the same settings, and nothing else that it read has changed.

    Rows with more look-alikes than are compared are decided by which of them come first, so there is no growth there.
    """
    entry = dataset.manifest.stage("dedup")
    before_that = before("dedup")
    mine = {(f.source, f.shard) for f in dataset.manifest.files_of("dedup") if f.role == "annotation"}
    if entry is None or config.against or (entry.version, entry.config) != (VERSION, config.model_dump(mode="json")):
        return False
    read = [f for f in dataset.manifest.files if f.source is None or (f.source, f.shard) in mine]
    if reads_digest(read, "dedup", before_that) != entry.reads:
        return False
    counts = [f for f in dataset.manifest.files_of("dedup") if f.role == "index" and f.source is None]
    return all(pl.read_ipc(dataset.path(f))["capped"].sum() == 0 for f in counts)


STAGE = Stage("dedup", VERSION, DedupConfig, run, features=("shard-index",), pin=pin)
