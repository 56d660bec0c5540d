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

from curate.dedup.against import open_other, pin
from curate.dedup.band import choose_bands
from curate.dedup.guard import guard
from curate.dedup.index import indexes_of, opened
from curate.dedup.opinion import Side, opinions, places, said
from curate.dedup.search import prepared, workers_of
from curate.stage import Note, Output, Progress, ShardOutput, Stage
from schemas.config import DedupConfig
from schemas.dataset import Dataset


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
        found = search.run()
    guard(dataset.shards, search.judged, found.duplicates, config)
    sides = [Side(dataset.shards)]
    if other:
        sides.append(Side(other.shards, f"{other.manifest.name}@{other.manifest.seq}"))
    named = places(sides, found.named())
    made = opinions(dataset.shards, found, named, search.own_rows)
    for shard, opinion in zip(dataset.shards, made, strict=True):
        yield ShardOutput(shard, opinion)
    yield Note(said(found, search.own_rows))


STAGE = Stage("dedup", 2, DedupConfig, run, features=("shard-index",), pin=pin)
