"""The preview: what dedup would leave out, for a person to look at before anything is committed.

It runs the search that the stage runs and writes nothing. Of the rows that it found, it reads the texts of those alone
that it shows: the largest clusters, and the pairs on both sides of the threshold.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.dedup.against import open_other, pin
from curate.dedup.band import band_recall, choose_bands
from curate.dedup.guard import MOST_CLUSTERS, BlastRadiusError, check_rows, guard, sources_of
from curate.dedup.index import Index, indexes_of, opened
from curate.dedup.letters import letters
from curate.dedup.opinion import Side, said
from curate.dedup.search import Found, prepared, workers_of
from curate.dedup.texts import texts_in_memory
from curate.dedup.words import MATERIAL, read_row, row_bytes
from curate.stage import Progress, no_progress
from curate.summary import SourceCount
from schemas.config import DedupConfig
from schemas.dataset import Dataset, Shard, open_dataset
from schemas.record import ROLE_NAMES

FEW = 3
"""Rows of a cluster or a group that are shown beside its first one."""

_CURVE = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
"""Similarities at which the recall of the bands is told, besides the threshold."""

_SHOWN = ("id", "source", "source_file", "source_row", "messages", "context")


@dataclass(frozen=True)
class Turn:
    """What one role says; `context` is the material that stands beside the messages."""

    role: str
    text: str


@dataclass(frozen=True)
class Row:
    """A row as a person reads it, and where it stands; `version` names the other dataset's, where it is from there."""

    id: str
    source: str
    source_file: str
    source_row: int
    version: str | None
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Likeness:
    """Jaccard similarities of n-grams: of the whole records, of what is asked and answered, of the answers."""

    record: float
    exchange: float
    answer: float


@dataclass(frozen=True)
class Pair:
    """A row, and the kept row that it is compared with. `exact`: they say the same word for word."""

    row: Row
    of: Row
    exact: bool
    likeness: Likeness


@dataclass(frozen=True)
class Cluster:
    """A kept row and those that go with it: how many, and some of them, the least alike first."""

    kept: Row
    size: int
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Group:
    """Rows that all stay and belong together, by their first one: how many besides it, and some of them."""

    first: Row
    size: int
    others: tuple[Row, ...]


@dataclass(frozen=True)
class Recall:
    """The probability that a pair of some similarity is found."""

    similarity: float
    probability: float


@dataclass(frozen=True)
class Preview:
    """What dedup would do.

    `going`: the pairs of the lowest similarity of which a row goes. `staying`: pairs just below the threshold.
    `parted`: pairs that reach it as whole records, while what is asked or what is answered does not; both rows stay.
    `stopped`: what the guard would say.
    """

    name: str
    seq: int
    against: str | None
    threshold: float
    said: str
    by_source: dict[str, SourceCount]
    bands: int
    band_rows: int
    recall: tuple[Recall, ...]
    clusters: tuple[Cluster, ...]
    going: tuple[Pair, ...]
    staying: tuple[Pair, ...]
    parted: tuple[Pair, ...]
    conflicts: tuple[Group, ...]
    answers: tuple[Group, ...]
    stopped: str | None

    def to_json(self) -> dict[str, Any]:
        """Give the preview as plain values."""
        return asdict(self)


def preview(
    dataset: Dataset, config: DedupConfig, progress: Progress = no_progress, *, clusters: int = 5, samples: int = 5
) -> Preview:
    """Search as the stage does; give the largest clusters, and so many samples of each kind.

    Raises what the stage raises, but for the guard's BlastRadiusError, whose line is in `stopped`.
    """
    check_rows(dataset)
    config = pin(dataset, config)
    other = open_other(dataset, config)
    shape = choose_bands(config.threshold, config.recall, config.num_perm)
    with workers_of() as workers:
        indexes: list[Index] = []
        for shard, output in zip(dataset.shards, indexes_of(dataset, "dedup", config, shape, workers), strict=True):
            indexes.append(opened(dataset, output))
            progress(shard.rows // 2)
        if other:
            indexes += [opened(other, output) for output in indexes_of(other, None, config, shape, workers)]
        search = prepared(dataset, other, indexes, config, bands=shape[0], workers=workers, progress=progress)
        found = search.run()
        progress(search.rest)
    stopped = None
    try:
        guard(dataset.shards, search.judged, found.duplicates, config)
    except BlastRadiusError as error:
        stopped = str(error)
    chosen = _choose(found, config.threshold, clusters, samples)
    rows = read_rows(_sides(dataset.shards, other), [row for star in chosen.all for row in star.rows])

    def pairs(stars: Sequence[_Star]) -> tuple[Pair, ...]:
        return tuple(pair for star in stars for pair in _pairs(star, rows, config.ngram))

    def groups(stars: Sequence[_Star]) -> tuple[Group, ...]:
        return tuple(Group(rows[s.of], s.size, tuple(rows[row] for row in s.links["row"])) for s in stars)

    return Preview(
        name=dataset.manifest.name,
        seq=dataset.manifest.seq,
        against=f"{other.manifest.name}@{other.manifest.seq}" if other else None,
        threshold=config.threshold,
        said=said(found, search.own_rows),
        by_source=_by_source(dataset.shards, search.judged, found.duplicates, search.own_rows),
        bands=shape[0],
        band_rows=shape[1],
        recall=tuple(Recall(s, band_recall(s, *shape)) for s in sorted({*_CURVE, config.threshold})),
        clusters=_clusters(chosen.clusters, rows, config.ngram),
        going=pairs(chosen.going),
        staying=pairs(chosen.staying),
        parted=pairs(chosen.parted),
        conflicts=groups(chosen.conflicts),
        answers=groups(chosen.answers),
        stopped=stopped,
    )


def stopped_by(error: BlastRadiusError, root: Path) -> tuple[Cluster, ...]:
    """Read the clusters for which the guard stopped. `root`: the store, where the other dataset lies too."""
    against = error.config.against
    other = open_dataset(against.rpartition(":")[0], root) if against else None
    stars = _largest(error.duplicates, MOST_CLUSTERS, FEW)
    rows = read_rows(_sides(error.shards, other), [row for star in stars for row in star.rows])
    return _clusters(stars, rows, error.config.ngram)


# what is shown --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Star:
    """A row and some of those that are linked to it. `size`: how many are. `links`: row, of, jaccard, exact."""

    of: int
    size: int
    links: pl.DataFrame

    @property
    def rows(self) -> list[int]:
        return [self.of, *self.links["row"]]


@dataclass(frozen=True)
class _Chosen:
    clusters: list[_Star]
    going: list[_Star]
    staying: list[_Star]
    parted: list[_Star]
    conflicts: list[_Star]
    answers: list[_Star]

    @property
    def all(self) -> list[_Star]:
        return [*self.clusters, *self.going, *self.staying, *self.parted, *self.conflicts, *self.answers]


def _choose(found: Found, threshold: float, clusters: int, samples: int) -> _Chosen:
    near, misses = found.duplicates.filter(~pl.col("exact")), found.misses
    below = pl.col("jaccard") < float(np.float32(threshold))  # as near misses are kept
    return _Chosen(
        clusters=_largest(found.duplicates, clusters, FEW),
        going=_samples(near, samples, highest=False),
        staying=_samples(misses.filter(below), samples, highest=True),
        parted=_samples(misses.filter(~below), samples, highest=True),
        conflicts=_largest(found.conflicts, samples, FEW),
        answers=_largest(found.answers, samples, FEW),
    )


def _largest(links: pl.DataFrame, most: int, few: int) -> list[_Star]:
    """Give the largest stars, each with a few links, the least alike first; ties by the number of the row."""
    largest = links.group_by("of").len("size").sort("size", "of", descending=[True, False]).head(most)
    inside = links.filter(pl.col("of").is_in(largest["of"].implode())).sort("jaccard", "row")
    return [_Star(of, size, inside.filter(pl.col("of") == of).head(few)) for of, size in largest.iter_rows()]


def _samples(links: pl.DataFrame, most: int, *, highest: bool) -> list[_Star]:
    """Give links in order of similarity, one for each kept row, so that one cluster does not stand for all."""
    order = links.sort("jaccard", "row", descending=[highest, False]).unique("of", keep="first", maintain_order=True)
    return [_Star(order["of"][i], 1, order[i]) for i in range(min(most, order.height))]


def _clusters(stars: Iterable[_Star], rows: Mapping[int, Row], ngram: int) -> tuple[Cluster, ...]:
    return tuple(Cluster(rows[star.of], star.size, _pairs(star, rows, ngram)) for star in stars)


def _pairs(star: _Star, rows: Mapping[int, Row], ngram: int) -> tuple[Pair, ...]:
    return tuple(
        Pair(rows[row], rows[of], exact, likeness(rows[row], rows[of], ngram))
        for row, of, _, exact in star.links.iter_rows()
    )


def _by_source(
    shards: Sequence[Shard], judged: Sequence[int], duplicates: pl.DataFrame, own_rows: int
) -> dict[str, SourceCount]:
    """Count, for each source, the rows that are judged, and those that would go by reason."""
    counts = (
        duplicates.select(
            source=sources_of(shards, duplicates["row"]),
            reason=pl.concat_str(
                pl.when(pl.col("of") < own_rows).then(pl.lit("duplicate:")).otherwise(pl.lit("overlap:")),
                pl.when("exact").then(pl.lit("exact")).otherwise(pl.lit("near")),
            ),
        )
        .group_by("source", "reason")
        .len()
        .sort("source", "reason")
    )
    made: dict[str, SourceCount] = {}
    for source in sorted({shard.source for shard in shards}):
        rows = sum(n for n, shard in zip(judged, shards, strict=True) if shard.source == source)
        rejected = {reason: n for name, reason, n in counts.iter_rows() if name == source}
        made[source] = SourceCount(rows, rows - sum(rejected.values()), rejected)
    return made


# rows as people read them ---------------------------------------------------------------------------------------------


def _sides(shards: Sequence[Shard], other: Dataset | None) -> list[Side]:
    sides = [Side(shards)]
    if other:
        sides.append(Side(other.shards, f"{other.manifest.name}@{other.manifest.seq}"))
    return sides


def read_rows(sides: Sequence[Side], rows: Iterable[int]) -> dict[int, Row]:
    """Read rows by their number over all sides: the dataset's as dedup sees them, the other one's as they stand."""
    wanted = pl.Series("row", sorted(set(rows)), dtype=pl.Int64)
    found: dict[int, Row] = {}
    first = 0
    for side in sides:
        for shard in side.shards:
            own = wanted.filter(wanted.is_between(first, first + shard.rows, closed="left")) - first
            if len(own):
                view = shard.view(_SHOWN, before_stage=None if side.version else "dedup")
                read = view.with_row_index("row").filter(pl.col("row").is_in(own.implode())).collect()
                found.update({first + row["row"]: _row(row, side.version) for row in read.iter_rows(named=True)})
            first += shard.rows
    return found


def _row(row: Mapping[str, Any], version: str | None) -> Row:
    """Give a row with its turns in the order in which a model reads them: the context after the first question."""
    turns: list[Turn] = []
    context = [Turn("context", row["context"])] if row["context"] else []
    for message in row["messages"] or []:
        said = "\n".join(text for text in (message["content"], message["tool_calls"]) if text)
        turns.append(Turn(message["role"] or "", said))
        if _role(turns[-1]) == "user" and context:
            turns.append(context.pop())
    place = (row["id"], row["source"], row["source_file"], row["source_row"])
    return Row(*place, version, (*turns, *context))


def likeness(row: Row, of: Row, ngram: int) -> Likeness:
    """Compare two rows part by part, word for word as the search does."""
    ours, theirs = _parts(row, ngram), _parts(of, ngram)
    return Likeness(*(len(a & b) / len(a | b) if a | b else 1.0 for a, b in zip(ours, theirs, strict=True)))


def _parts(row: Row, ngram: int) -> Iterator[set[bytes]]:
    """Give the n-grams of the whole record, of what is asked and answered, of what is answered."""
    asked = [turn.text for turn in row.turns if _role(turn) == "user"]
    answer = [turn.text for turn in row.turns if _role(turn) == "assistant"]
    given = [turn.text for turn in row.turns if _role(turn) not in ("assistant", "context")]
    given += [turn.text for turn in row.turns if turn.role == "context"]
    for texts in ((*given, *answer), (*asked, *answer), answer):
        words = _words("\n".join(texts))
        n = min(ngram, len(words))
        yield {words[at : at + n].tobytes() for at in range(len(words) - n + 1)} if n else set()


def _role(turn: Turn) -> str:
    return ROLE_NAMES.get(turn.role.lower(), turn.role.lower())


def _words(text: str) -> NDArray[np.uint64]:
    texts = texts_in_memory(pl.Series([text]))  # held: its buffers are read by address
    place = texts.addresses[0]
    words = np.empty(row_bytes(place, 0) + 1, np.uint64)
    count, _ = read_row(place, 0, MATERIAL, *letters(), words, 0)
    del texts
    return words[:count]
