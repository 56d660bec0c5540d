"""Decontaminate: rows of the training data that hold items of evaluation sets, with the evidence.

An item is found where its words stand in a row in the same order, whatever stands for case and punctuation, some words
changed or missing: `coverage` is the share of the item's words that row and item have in common so, in runs of two and
more. Prompts (all turns that the model is given, and the context) and responses are searched apart.

A match that rests on templates alone is none: every n-gram that item and row share stands in many rows, and the item
does not stand there in full. How many there were is told.

The walk: evals (files -> items) -> index (items -> n-grams) -> overlap (rows -> matches) -> evidence -> annotation.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.decontaminate.evals import pin, read_allowed, read_sets
from curate.decontaminate.evidence import WHERE, Allowed, shown, spans_of
from curate.decontaminate.index import Index, build_index
from curate.decontaminate.overlap import COLUMNS, ITEM, ROW, SHARED, START, STOP, Memory, rarest, search_rows
from curate.decontaminate.overlap import WHERE as WHERE_COLUMN
from curate.dedup.search import workers_of
from curate.dedup.texts import Texts, texts_of
from curate.stage import Note, Output, Progress, ShardOutput, Stage
from schemas.config import DecontaminateConfig
from schemas.dataset import Dataset, Shard
from schemas.record import VERDICT_SCHEMA
from schemas.stages import ANNOTATION_COLUMNS

EXAMPLES = 5
"""Rows that are shown to the person who runs the stage."""
MOST_MATCHES = 10
"""Matches that a row lists, those of the highest coverage."""
LEAST_COMMON_ROWS = 10
"""An n-gram in fewer rows than this is never too common, however few rows there are."""
LEAST_WORDS, LONG_WORDS, MOST_MISSING = 7, 20, 0.2
"""An item of LEAST_WORDS or more, of which so large a share (and one word) is missing at most, is nearly whole: a tenth
of the words changed, and what may stand alone between two changes. It is found however common its n-grams are; one
under LONG_WORDS only if few rows nearly hold it, or it is a pattern ("Which of the 7 lamps is lit?")."""
_FIRST_FOUND = 4_096

_OWN = ANNOTATION_COLUMNS["decontaminate"]
_SCHEMA = pl.Schema({**VERDICT_SCHEMA, **_OWN})
_MATCH = ("eval", "item", "coverage", "where", "text")

Ints = NDArray[np.int64]


@dataclass
class _Search:
    """The search of one dataset: an index, the threads with their memories, and what was found, shard by shard."""

    index: Index
    workers: Executor
    memories: Sequence[Memory]
    found: list[Ints] = field(default_factory=list[Ints])
    rows: int = 0
    judged: int = 0

    def shard(self, shard: Shard) -> None:
        """Search the rows of a shard that are kept so far. Reads: messages, context, kept."""
        judged = shard.view(["kept"], before_stage="decontaminate").collect()["kept"].to_numpy()
        texts = texts_of([(shard, "decontaminate")])
        bounds = np.linspace(0, shard.rows, len(self.memories) + 1).astype(np.int64).tolist()
        parts = self.workers.map(partial(self._part, texts, judged), self.memories, bounds[:-1], bounds[1:])
        self.found.append(np.concatenate(list(parts)))
        texts.let_go()
        self.rows += shard.rows
        self.judged += int(judged.sum())

    def _part(self, texts: Texts, judged: NDArray[np.bool_], memory: Memory, first: int, last: int) -> Ints:
        """Search the rows [first, last) of a shard in one thread."""
        found = np.zeros((_FIRST_FOUND, COLUMNS), np.int64)
        at, count = first, 0
        while True:
            count, at = search_rows(
                texts.addresses, texts.segment, texts.index, judged, at, last, self.rows + 1, *self.index.letters,
                self.index.lookup, memory, found, count,
            )  # fmt: skip
            if at == last:
                return found[:count]
            found = np.concatenate([found, np.zeros_like(found)])


def run(dataset: Dataset, config: DecontaminateConfig, progress: Progress) -> Iterator[Output]:
    """Search every row that is kept so far for the items of all evaluation sets."""
    if not config.eval:
        for shard in dataset.shards:
            yield ShardOutput(shard, pl.DataFrame([[None] * shard.rows] * len(_SCHEMA), schema=_SCHEMA))
            progress(shard.rows)
        yield Note("no evaluation set is named (--eval, or eval = [...] in the recipe): nothing was searched for")
        return
    items, notes = read_sets(config)
    index = build_index(items, config)
    with workers_of() as workers:
        search = _Search(index, workers, [index.memory() for _ in range(pl.thread_pool_size())])
        for shard in dataset.shards:
            search.shard(shard)
            progress(shard.rows)
    report = _Report(index, config, search)
    for shard, found in zip(dataset.shards, search.found, strict=True):
        yield ShardOutput(shard, report.shard(shard, found))
    yield from map(Note, [*_about(items, index, config), *notes, *report.notes()])


class _Report:
    """What becomes of the matches: templates and allowed ones go, the others are evidence."""

    def __init__(self, index: Index, config: DecontaminateConfig, search: _Search) -> None:
        self._index, self._config = index, config
        self._rows_of = np.sum([memory.gram_rows for memory in search.memories], axis=0, dtype=np.int64)
        self._most = max(LEAST_COMMON_ROWS, config.common_rows * search.judged)
        self._words = index.texts["words"].to_numpy().astype(np.int64)
        near = [found[self._nearly_whole(found), ITEM] for found in search.found]
        self._near_rows = np.bincount(np.concatenate([np.zeros(0, np.int64), *near]), minlength=len(self._words))
        self._allowed = Allowed(read_allowed(config), index.letters)
        self._templates = self._excused = self._matched = 0
        self._by_eval: Counter[str] = Counter()
        self._examples: list[str] = []

    def shard(self, shard: Shard, found: Ints) -> pl.DataFrame:
        """Give the annotation of a shard. Reads: messages, context, kept. Adds: verdict, detail, matches."""
        found = found[np.lexsort((found[:, WHERE_COLUMN], found[:, ROW]))]
        told = self._told(shard, found)
        self._templates += int((~told).sum())
        matches = self._matches(shard, found[told])
        self._matched += matches["row"].n_unique()
        self._by_eval.update(dict(matches.unique(["row", "eval"])["eval"].value_counts().iter_rows()))
        verdict = pl.lit("contaminated:eval") if self._config.action == "reject" else pl.lit(None, pl.String)
        by_row = matches.group_by("row", maintain_order=True).agg(
            verdict=verdict, detail=_detail(), matches=pl.struct(list(_MATCH)).head(MOST_MATCHES)
        )
        rows = (
            shard.view(["kept", "source", "source_row"], before_stage="decontaminate").with_row_index("row").collect()
        )
        nothing = pl.when("kept").then(pl.lit([], dtype=_OWN["matches"]))
        joined = rows.join(by_row, on="row", how="left", maintain_order="left")
        some = joined.filter(pl.col("detail").is_not_null()).head(EXAMPLES - len(self._examples))
        self._examples += [f"{s}:{n}  {d}" for s, n, d in some.select("source", "source_row", "detail").iter_rows()]
        return joined.select("verdict", "detail", pl.coalesce(pl.col("matches").cast(_OWN["matches"]), nothing))

    def _told(self, shard: Shard, found: Ints) -> NDArray[np.bool_]:
        """Whether each match rests on more than templates: nearly the whole item, or an n-gram not in many rows."""
        least = np.full(len(found), np.iinfo(np.int64).max)
        texts = texts_of([(shard, "decontaminate")])
        sizes = self._index.texts["size"].to_numpy()
        rarest(
            texts.addresses, texts.segment, texts.index, *self._index.letters, self._index.lookup, sizes, self._rows_of,
            found, least,
        )  # fmt: skip
        asked = self._words[found[:, ITEM]]
        whole, near = found[:, SHARED] == asked, self._nearly_whole(found)
        few = (asked >= LONG_WORDS) | (self._near_rows[found[:, ITEM]] <= self._most)
        return whole | (near & few) | (least <= self._most)

    def _nearly_whole(self, found: Ints) -> NDArray[np.bool_]:
        asked = self._words[found[:, ITEM]]
        missing = asked - found[:, SHARED]
        return (asked >= LEAST_WORDS) & (missing > 0) & (missing <= np.maximum(1, MOST_MISSING * asked))

    def _matches(self, shard: Shard, found: Ints) -> pl.DataFrame:
        """Give the matches that are not allowed: row and what a match has; the best of each row first."""
        lines = pl.DataFrame(
            {"row": found[:, ROW].astype(np.uint32), "number": found[:, ITEM].astype(np.uint32)}
        ).with_columns(
            coverage=pl.Series(found[:, SHARED] / self._words[found[:, ITEM]]),
            where=pl.Series([WHERE[at] for at in found[:, WHERE_COLUMN]], dtype=pl.String),
            text=pl.Series(self._shown(shard, found), dtype=pl.String),
        )
        named = lines.join(self._index.names, on="number", maintain_order="left")
        item_texts = self._index.texts["text"]
        excused = [
            self._allowed.excuses(eval_, item, text, item_texts[number])
            for eval_, item, text, number in named.select("eval", "item", "text", "number").iter_rows()
        ]
        self._excused += sum(excused)
        kept = named.filter(~pl.Series(excused, dtype=pl.Boolean))
        return kept.sort("row", -pl.col("coverage"), "eval", "item", "where")

    def _shown(self, shard: Shard, found: Ints) -> list[str]:
        texts = shard.view(["messages", "context"], before_stage="decontaminate").with_row_index("row")
        near = texts.filter(pl.col("row").is_in(np.unique(found[:, ROW]).tolist())).collect()
        rows = {row["row"]: row for row in near.iter_rows(named=True)}
        told: list[str] = []
        last, cut = (-1, -1), []
        for r, where, start, stop in found[:, [ROW, WHERE_COLUMN, START, STOP]].tolist():
            if (r, where) != last:  # a row that holds a whole evaluation set is cut into words once
                last, cut = (r, where), spans_of(rows[r], where, self._index.letters)
            told.append(shown(cut, start, stop))
        return told

    def notes(self) -> Iterator[str]:
        """Say what was found, and what was left out of it."""
        counts = ", ".join(f"{n:,} of {name}" for name, n in sorted(self._by_eval.items()))
        yield f"rows that hold evaluation items: {self._matched:,}" + (f" ({counts})" if counts else "")
        yield from (f"  {example}" for example in self._examples)
        if self._matched > len(self._examples):
            yield f"  … and {self._matched - len(self._examples):,} more; `sft why` tells each"
        if self._excused:
            yield f"{self._excused:,} matches are excused by the allow-list"
        if self._templates:
            yield (
                f"{self._templates:,} look-alikes are templates and were left out: all that they share with an item "
                f"stands in more than {self._most:,.0f} rows"
            )


def _detail() -> pl.Expr:
    """Say in one line what a row holds, by the first of its matches. Reads: eval, item, coverage, where, text."""
    share = (pl.col("coverage") * 100).round().cast(pl.Int64).cast(pl.String) + "% of "
    place = share + pl.col("eval") + " " + pl.col("item") + " in the " + pl.col("where")
    more = pl.when(pl.len() > 1).then(pl.format(", and {} more", pl.len() - 1)).otherwise(pl.lit(""))
    return (place + ': "' + pl.col("text") + '"').first() + more


def _about(items: pl.DataFrame, index: Index, config: DecontaminateConfig) -> Iterator[str]:
    """Say what was searched for."""
    counts = items.group_by("eval", maintain_order=True).len().iter_rows()
    yield f"searched for {items.height:,} evaluation items: " + ", ".join(f"{name} {n:,}" for name, n in counts)
    if index.short.height:
        some = ", ".join(f"{e} {i}" for e, i in index.short.head(5).iter_rows())
        more = ", …" if index.short.height > 5 else ""
        yield (
            f"{index.short.height:,} items have fewer than {config.min_words} words and cannot be searched for: "
            f"{some}{more}"
        )


STAGE = Stage("decontaminate", 1, DecontaminateConfig, run, pin=pin)
