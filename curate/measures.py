"""Measures: what the kept rows of a version hold, as distributions that people can look at and that can be compared.

    tokens   of the turns and the context, estimated from characters as `curate.tokens` does
    turns, words (of the answer), quality, score    numbers, where the stages have run
    language, task                                  names, where the stages have run

Rows are measured shard by shard; a few bytes of each row are held, its text never.
"""

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from curate.tokens import CHARACTERS_PER_TOKEN
from schemas.dataset import Dataset, Shard
from schemas.stages import STAGES

NUMBERS = {"tokens": "tokens", "turns": "turns", "words": "response_words", "quality": "quality", "score": "score"}
"""Measures that are numbers, and their columns."""
NAMES = {"language": "language", "task": "task"}
"""Measures that are names, and their columns."""

MEASURES = (*NUMBERS, *NAMES)
ALL = "all"
"""Stands for all sources together."""

BUCKETS = 25
"""Buckets of a histogram: what a chart a hand wide shows; the rule of Rice, 2 n^(1/3), gives 25 for 2,000 rows."""

FEW_VALUES = 25
"""Whole numbers up to which each has a bucket of its own."""

SKEWED = 5
"""Largest value by median above which buckets grow with the value: with equal ones most rows would stand in a few."""

_KEPT = pl.Schema(
    {
        "source": pl.Categorical(),
        "split": pl.Categorical(),
        "tokens": pl.UInt32,
        **{name: pl.Float32 for name in NUMBERS if name != "tokens"},
        **dict.fromkeys(NAMES, pl.Categorical()),
    }
)

Texts = MutableMapping[Path, pl.Series]
"""Tokens of the rows of text objects as they were ingested, by path: versions that share a text share its count."""


@dataclass(frozen=True)
class Histogram:
    """How many rows lie between edges: `counts[i]` in [edges[i], edges[i + 1]), the last one with its end.

    `rows` were measured, `unknown` have no value. Quartiles are of the values themselves, not of the buckets.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    rows: int
    unknown: int
    mean: float | None
    quartiles: tuple[float, float, float] | None


@dataclass(frozen=True)
class Shares:
    """How many rows have each value (a language, a task), the most frequent first."""

    counts: Mapping[str, int]
    rows: int
    unknown: int


@dataclass(frozen=True)
class Measured:
    """The kept rows of a version, measured: source, split, and a column for each measure (null where unknown)."""

    rows: pl.DataFrame
    _by_source: dict[str, pl.DataFrame] = field(default_factory=dict[str, pl.DataFrame], repr=False)

    @property
    def sources(self) -> list[str]:
        """Name the sources that have kept rows."""
        return sorted(self.rows["source"].cast(pl.String).unique().to_list())

    def of(self, source: str) -> pl.DataFrame:
        """Give the rows of one source, or of all (`ALL`)."""
        if source == ALL:
            return self.rows
        if source not in self._by_source:
            self._by_source[source] = self.rows.filter(pl.col("source") == source)
        return self._by_source[source]

    def known(self, measure: str) -> bool:
        """Whether any row has a value."""
        return self.rows[measure].null_count() < self.rows.height

    def tokens(self, by: str) -> dict[str, tuple[int, int]]:
        """Give (rows, tokens) for each value of a column; rows without one are left out."""
        told = self.rows.drop_nulls(by).group_by(by).agg(pl.len(), pl.col("tokens").cast(pl.Int64).sum()).rows()
        return {str(name): (rows, tokens) for name, rows, tokens in sorted(told)}


def measure(dataset: Dataset, texts: Texts | None = None) -> Measured:
    """Measure the kept rows of a version; with `texts`, text that was counted before is not read again.

    Reads: messages, context, source, split, kept, turns, response_words, quality, score, language, task.
    """
    texts = {} if texts is None else texts
    columns = {**NUMBERS, **NAMES}
    columns.pop("tokens")
    parts: list[pl.DataFrame] = []
    for shard in dataset.shards:
        told = shard.view([*columns.values(), "split", "kept"]).collect()
        named = told.select("split", "kept", **{name: pl.col(column) for name, column in columns.items()})
        whole = named.with_columns(_tokens(shard, texts), source=pl.lit(shard.source))
        parts.append(whole.filter("kept").select(pl.col(n).cast(t) for n, t in _KEPT.items()))
    return Measured(pl.concat([pl.DataFrame(schema=_KEPT), *parts]))


def _tokens(shard: Shard, texts: Texts) -> pl.Series:
    """Count the rows of a shard as they stand after all stages: the ingested text, then what overlays rewrote."""
    if shard.text not in texts:
        texts[shard.text] = _estimated(pl.scan_ipc(shard.text).select("messages", "context"))
    tokens = texts[shard.text]
    for stage in (stage for stage in STAGES if stage in shard.overlays):  # the last one has the last word
        overlay = pl.scan_ipc(shard.overlays[stage]).select("row", "messages", "context")
        edited = overlay.select("row", tokens=_estimate()).collect()
        tokens = tokens.clone().scatter(edited["row"], edited["tokens"])
    return tokens


def _estimated(rows: pl.LazyFrame) -> pl.Series:
    return rows.select(tokens=_estimate()).collect(engine="streaming").to_series()


def _estimate() -> pl.Expr:
    """Estimate tokens exactly as `curate.tokens.Counter` does, from lengths alone. Reads: messages, context."""
    turn = pl.element().struct
    answers = turn.field("role") == "assistant"
    content, calls = (turn.field(name).str.len_chars().cast(pl.Int64) for name in ("content", "tool_calls"))
    both = (content.is_not_null() & calls.is_not_null()).cast(pl.Int64)  # a line break stands between them
    said = pl.when(answers).then(content.fill_null(0) + calls.fill_null(0) + both + 1)
    asked = pl.when(~answers).then(content + 1)
    lengths = pl.col("messages").list
    parts = (lengths.eval(part).list.sum().fill_null(0) for part in (said, asked))
    turns = sum((pl.max_horizontal(part - 1, 0) for part in parts), pl.lit(0, pl.Int64))
    context = pl.when(pl.col("context").is_not_null()).then(pl.col("context").str.len_chars().cast(pl.Int64) + 1)
    characters = turns + context.fill_null(0) + 1
    return (characters / CHARACTERS_PER_TOKEN).ceil().clip(1).cast(pl.UInt32)


def edges(values: Iterable[pl.Series]) -> tuple[float, ...]:
    """Choose the edges of buckets that hold all values of several series, so that their histograms can be laid over
    each other.

    Few whole numbers have a bucket each. What reaches far (`SKEWED`) has buckets that grow by a constant factor, the
    rest equal ones; edges of counts are whole numbers. No values: no edges.
    """
    known = [series.drop_nulls() for series in values]
    held = pl.concat([pl.Series("v", [], pl.Float64), *(series.cast(pl.Float64).alias("v") for series in known)])
    if held.is_empty():
        return ()
    low, high, median = (float(held.quantile(q) or 0.0) for q in (0, 1, 0.5))
    whole = bool((held == held.round()).all())
    if whole and high - low < FEW_VALUES:
        return tuple(float(n) for n in range(int(low), int(high) + 2))
    if 0 <= low <= high <= 1:
        return tuple(n / BUCKETS for n in range(BUCKETS + 1))
    found = np.linspace(low, high, BUCKETS + 1)
    if whole and low >= 0 and high > SKEWED * max(median, 1.0):
        found = np.geomspace(max(low, 1.0), high + 1, BUCKETS + 1)
        found[0] = low
    found = np.unique(np.ceil(found) if whole else found)
    return tuple(float(edge) for edge in found) if len(found) > 1 else (low, low + 1)


def histogram(values: pl.Series, at: Sequence[float]) -> Histogram:
    """Count values between edges that hold all of them (`edges`)."""
    known = values.drop_nulls().cast(pl.Float64)
    counts = np.histogram(known.to_numpy(), bins=np.asarray(at))[0] if len(at) > 1 else np.zeros(0, np.int64)
    quartiles = [known.quantile(q, "linear") for q in (0.25, 0.5, 0.75)]
    mean = known.mean()
    return Histogram(
        edges=tuple(at),
        counts=tuple(int(n) for n in counts),
        rows=len(known),
        unknown=len(values) - len(known),
        mean=float(mean) if isinstance(mean, float) else None,
        quartiles=None if quartiles[0] is None else tuple(float(q or 0.0) for q in quartiles),  # pyright: ignore[reportArgumentType] # three of them
    )


def shares(values: pl.Series) -> Shares:
    """Count names, the most frequent first, ties by name."""
    known = values.drop_nulls().cast(pl.String).alias("value")
    counts = known.value_counts(name="n").sort("n", "value", descending=[True, False])
    return Shares({str(v): int(n) for v, n in counts.iter_rows()}, len(known), len(values) - len(known))
