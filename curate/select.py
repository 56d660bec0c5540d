"""Select: which of the kept rows stay, by score and budget, and how often each is seen.

Everything happens in one order, whatever the order of the options:

1. `--commercial` leaves out the rows of sources whose licence does not clearly allow commercial use: no budget is spent
   on them.
2. `--sample` draws rows of a source by chance; the others are gone before anything else looks at them.
3. The rows are put in order: by `--by` (highest first), or as a `--control` says; ties go by id, rows without a value
   stand last.
4. They are walked in that order. A row is left out where a `--quota` of its source or task is full, or with `--diverse`
   where it is too similar to a row that was taken; else it is taken, until the budget (`--top`, `--rows` or `--tokens`)
   is spent. The first row that does not fit ends the walk, so that what is taken is the top of the order.
5. `--weight` says how often a row that was taken is seen in an epoch.

Chance is a hash of the seed and the row's id: neither the order of rows and shards nor added rows reshuffle it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import floor

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.key import answer_text
from curate.licences import not_commercial
from curate.stage import Note, Output, Progress, ShardOutput, Stage
from curate.target import Target, read_targets
from curate.tokens import CHARACTERS_PER_TOKEN, Counter
from curate.walk import BUDGET, QUOTA, SIMILAR, TAKEN, Cap, Walk, walk
from schemas.config import SelectConfig
from schemas.dataset import Dataset, Shard
from schemas.errors import ConfigError
from schemas.record import VERDICT_SCHEMA
from schemas.stages import ANNOTATION_COLUMNS, before

TASK_SIGNALS = 2
"""Version of the stage signals from which on it knows the task and the language of a row."""

MOST_WEIGHT = 1_000_000
"""Bound of a weight, and its inverse: beyond, the product of two could leave what the column holds (Float32)."""

_NUMBERS = tuple(
    name
    for stage in before("select")
    for name, dtype in ANNOTATION_COLUMNS.get(stage, pl.Schema()).items()
    if dtype == pl.Float32
)
"""The columns that can order rows."""


@dataclass(frozen=True)
class Asked:
    """The settings, read against the dataset."""

    quotas: list[Target]
    samples: list[Target]
    weights: list[Target]
    column: str | None
    """The column that orders the rows, its minus removed; null for a control, and where nothing needs an order."""
    descending: bool

    @property
    def needs_task(self) -> bool:
        """Whether a quota or a weight is about a task."""
        return any(target.column == "task" for target in (*self.quotas, *self.weights))


def pin(dataset: Dataset, config: SelectConfig) -> SelectConfig:
    """Name the column that orders the rows, and the tokenizer by its digest. Raises ConfigError for what cannot be."""
    asked = _read(dataset, config)
    digest = config.tokenizer_sha256
    if config.tokenizer:
        found = Counter(config.tokenizer).digest
        if digest not in (None, found):
            raise ConfigError(
                f"select, tokenizer {config.tokenizer}", f"is another one, {found}", f"tokenizer_sha256 {digest}"
            )
        digest = found
    by = asked.column and ("" if asked.descending else "-") + asked.column
    return config.model_copy(update={"by": by, "tokenizer_sha256": digest})


def _read(dataset: Dataset, config: SelectConfig) -> Asked:
    sources = sorted(source.name for source in dataset.manifest.sources)
    column = None
    ordered = config.top or config.rows or config.tokens or config.quota or config.diverse
    if ordered and not config.control:
        column = (config.by or _default_column(dataset)).removeprefix("-")
        _check_column(dataset, column)
    asked = Asked(
        quotas=read_targets("quota", config.quota, sources),
        samples=read_targets("sample", config.sample, sources, tasks=False),
        weights=read_targets("weight", config.weight, sources),
        column=column,
        descending=not (config.by or "").startswith("-"),
    )
    for name, targets, least in (
        ("quota", asked.quotas, 0),
        ("sample", asked.samples, 0),
        ("weight", asked.weights, 1),
    ):
        for target in targets:
            if (
                not np.isfinite(target.number)
                or target.number < 0
                or (least and not 1 / MOST_WEIGHT <= target.number <= MOST_WEIGHT)
            ):
                remedy = "leave rows out with --quota or --sample" if name == "weight" else ""
                expected = f"a number above 0, at most {MOST_WEIGHT:,}" if name == "weight" else "a number, 0 or above"
                raise ConfigError(f"select, {name} {target.word}", "is out of range", expected, remedy)
            if name != "weight" and (target.number > 1 if target.is_share else target.number != int(target.number)):
                raise ConfigError(
                    f"select, {name} {target.word}",
                    "is no number of rows and no share",
                    "2000, or a share from 0.0 to 1.0",
                )
    if asked.needs_task:
        check_signals(dataset, "select")
    return asked


def _default_column(dataset: Dataset) -> str:
    if dataset.manifest.stage("score"):
        return "score"
    if dataset.manifest.stage("signals"):
        return "quality"
    raise ConfigError(
        f"select {dataset.manifest.name}",
        "nothing orders the rows: neither score nor signals ran",
        "a column for --by, or --control random",
        f"run sft curate signals {dataset.manifest.name}",
    )


def _check_column(dataset: Dataset, column: str) -> None:
    where = f"select, by {column}"
    if column not in _NUMBERS:
        raise ConfigError(where, "no such column of numbers", f"one of {', '.join(_NUMBERS)}")
    stage = next(s for s in before("select") if column in ANNOTATION_COLUMNS.get(s, ()))
    if dataset.manifest.stage(stage) is None:
        raise ConfigError(where, f"{stage} has not run", remedy=f"run sft curate {stage} {dataset.manifest.name}")


def check_signals(dataset: Dataset, who: str) -> None:
    """Raise ConfigError where the version does not know the task and language of its rows."""
    entry = dataset.manifest.stage("signals")
    if entry is None or entry.version < TASK_SIGNALS:
        found = "signals has not run" if entry is None else "its signals are of an earlier release and know no tasks"
        name = dataset.manifest.name
        raise ConfigError(f"{who} {name}", found, remedy=f"run sft curate signals {name}")


def chance(ids: pl.Series, seed: int) -> NDArray[np.uint64]:
    """Give each id its place in [0, 2^64), the same for the same seed: splitmix64 over 64 bits of it and the seed."""
    first = ids.str.head(16).str.to_integer(base=16, dtype=pl.UInt64).to_numpy()
    salt = np.array([(seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64], np.uint64)
    return _mix(first ^ _mix(salt))


_ORDER = np.uint64(0xD6E8FEB86659FD93)
"""Makes the place in the random order another one than that in a sample."""


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def read_rows(shards: Sequence[Shard], config: SelectConfig, asked: Asked, progress: Progress) -> pl.DataFrame:
    """Read what select needs of every kept row, in the order of ids.

    Reads: id, source, content_hash, messages, context, task, kept, and the column that orders the rows.
    Adds: shard, row, tokens, length (characters of the answer), place (chance), value (null: none).
    """
    counter = Counter(config.tokenizer)
    own = ["id", "source", "content_hash"] + (["task"] if asked.needs_task else [])
    value = pl.lit(None, pl.Float64) if asked.column is None else pl.col(asked.column).cast(pl.Float64).fill_nan(None)
    parts: list[pl.DataFrame] = []
    for number, shard in enumerate(shards):
        columns = [*own, "messages", "context", "kept", *([asked.column] if asked.column else [])]
        frame = shard.view(columns, before_stage="select").with_row_index("row").filter("kept").collect()
        lengths = frame.select(
            pl.lit(number, pl.UInt32).alias("shard"), "row", *own, value=value, length=answer_text().str.len_chars()
        )
        parts.append(lengths.with_columns(counter.count(frame)))
        progress(shard.rows)
    rows = pl.concat(parts).sort("id")
    return rows.with_columns(pl.Series("place", chance(rows["id"], config.seed), dtype=pl.UInt64))


def draw(rows: pl.DataFrame, samples: Sequence[Target]) -> pl.DataFrame:
    """Draw rows of the sources that are sampled. Reads: source, place. Adds: verdict, detail (null: drawn).

    A number of rows are those with the lowest places; a share are those below it, each decided for itself, so that
    about that share is drawn and rows that are added change nothing for the others.
    """
    verdict, detail = pl.lit(None, pl.String), pl.lit(None, pl.String)
    for target in samples:
        rank = pl.col("place").rank("ordinal").over("source")
        drawn = pl.col("place") < int(target.number * 2**64) if target.is_share else rank <= target.number
        drawn = pl.lit(value=True) if target.is_share and target.number == 1 else drawn
        out = target.members() & ~drawn
        total = rows.filter(target.members()).height
        left = rows.filter(out).height
        verdict = pl.when(out).then(pl.lit("select:not_sampled")).otherwise(verdict)
        detail = pl.when(out).then(pl.lit(f"{total - left:,} of {total:,} rows are drawn")).otherwise(detail)
    return rows.with_columns(verdict=verdict, detail=detail)


def in_order(rows: pl.DataFrame, config: SelectConfig, asked: Asked) -> pl.DataFrame:
    """Put the rows in the order in which they are walked. Reads: id, value, place, length."""
    match config.control:
        case "random":
            # A place of its own: rows that a share drew all have low places, and would stand before all other sources.
            order = pl.Series(_mix(rows["place"].to_numpy() ^ _ORDER), dtype=pl.UInt64)
            return rows.sort(order, "id")
        case "longest":
            return rows.sort("length", "id", descending=[True, False])
        case None:
            return rows.sort("value", "id", descending=[asked.descending, False], nulls_last=True)


def choose(
    rows: pl.DataFrame, config: SelectConfig, asked: Asked, vectors: pl.DataFrame | None
) -> tuple[pl.DataFrame, Walk]:
    """Walk the rows, which are in order. Reads: tokens, source, task, content_hash. Adds: verdict, detail.

    `vectors`: content_hash, vector (unit length); null without --diverse.
    """
    budget = _budget(rows.height, config)
    by_tokens = config.tokens is not None
    costs = rows["tokens"] if by_tokens else pl.Series(np.ones(rows.height, np.int64))
    whole = rows.height if budget is None else budget
    caps = [
        Cap(
            members=rows.select(target.members().fill_null(value=False)).to_series().to_numpy(),
            most=floor(target.number * whole + 1e-9) if target.is_share else int(target.number),
            by_cost=target.is_share,
        )
        for target in asked.quotas
    ]
    directions = None
    if vectors is not None:
        directions = rows.join(vectors, on="content_hash", how="left", maintain_order="left")["vector"]
    walked = walk(costs.to_numpy(), budget, caps, directions, config.max_similarity)
    if budget and rows.height and not walked.taken.any() and walked.reason[0] == BUDGET:
        raise ConfigError(
            f"select, tokens {config.tokens:,}",
            f"the first row has {costs[0]:,}",
            "a budget that holds at least one row",
        )
    places = walked.which.clip(0)
    reason = pl.Series("reason", walked.reason)
    spent = "select:not_in_top" if config.top is not None else "select:over_budget"
    words = pl.Series([target.word for target in asked.quotas] or [""])
    verdicts = {TAKEN: None, QUOTA: "select:quota", SIMILAR: "select:too_similar", BUDGET: spent}
    decided = rows.with_columns(
        reason,
        verdict=reason.replace_strict(verdicts, return_dtype=pl.String),
        full=words.gather(np.where(walked.reason == QUOTA, places, 0)),
        like=rows["id"].gather(np.where(walked.reason == SIMILAR, places, 0)) if rows.height else rows["id"],
        similarity=pl.Series(walked.similarity, dtype=pl.Float64).round(4),
    )
    detail = (
        pl.when(pl.col("reason") == QUOTA)
        .then(pl.format("quota {} is full", "full"))
        .when(pl.col("reason") == SIMILAR)
        .then(pl.format("similarity {} with {}", "similarity", "like"))
        .when(pl.col("reason") == BUDGET)
        .then(_below(rows.filter(walked.taken), config, asked))
    )
    return decided.with_columns(detail=detail).drop("reason", "full", "like", "similarity"), walked


def _budget(rows: int, config: SelectConfig) -> int | None:
    """Give the budget: tokens where these were asked for, else rows; null for none."""
    if config.top is not None:
        return max(1, floor(config.top * rows + 1e-9))
    return config.rows if config.tokens is None else config.tokens


def _below(taken: pl.DataFrame, config: SelectConfig, asked: Asked) -> pl.Expr:
    """Tell a row's value and the last one that was taken. Reads: value, length."""
    match config.control:
        case "random":
            return pl.lit("after the cut in the random order")
        case "longest":
            cut = taken["length"].min() if taken.height else "none"
            return pl.format("answer of {} characters, cut at {}", "length", pl.lit(str(cut)))
        case None:
            last = taken["value"].tail(1).round(4).cast(pl.String).fill_null("none").to_list()
            cut = last[0] if last else "none"
            own = pl.col("value").round(4).cast(pl.String).fill_null("none")
            return pl.format("{} {}, cut at {}", pl.lit(asked.column), own, pl.lit(cut))


def weigh(asked: Asked) -> pl.Expr:
    """Give the weight of a row; null, which means 1, where none was asked for. Reads: source, task."""
    if not asked.weights:
        return pl.lit(None, pl.Float32)
    product = pl.lit(1.0)
    for target in asked.weights:
        product *= pl.when(target.members()).then(target.number).otherwise(1.0)
    return product.cast(pl.Float32)


def run(dataset: Dataset, config: SelectConfig, progress: Progress) -> Iterator[Output]:
    """Select among all rows that are kept so far."""
    asked = _read(dataset, config)
    if not dataset.shards:
        return
    vectors = _vectors(dataset) if config.diverse else None
    rows = read_rows(dataset.shards, config, asked, progress)
    barred = not_commercial(dataset.manifest.sources) if config.commercial else {}
    is_barred = pl.col("source").is_in(list(barred))
    why = pl.col("source").replace_strict(barred, default=None, return_dtype=pl.String)
    left_out = rows.filter(is_barred).with_columns(verdict=pl.lit("select:licence"), detail=why)
    rows = draw(rows.filter(~is_barred), asked.samples)
    out, drawn = rows.filter(pl.col("verdict").is_not_null()), rows.filter(pl.col("verdict").is_null())
    walked = None
    if asked.column or config.control:
        drawn, walked = choose(in_order(drawn, config, asked), config, asked, vectors)
    decided = pl.concat([left_out, out, drawn.select(out.columns)])
    decided = decided.with_columns(weight=pl.when(pl.col("verdict").is_null()).then(weigh(asked)))
    for number, shard in enumerate(dataset.shards):
        own = decided.filter(pl.col("shard") == number).select("row", *VERDICT_SCHEMA, "weight")
        every = pl.DataFrame({"row": pl.arange(shard.rows, dtype=pl.UInt32, eager=True)})
        yield ShardOutput(shard, every.join(own, on="row", how="left", maintain_order="left").drop("row"))
    for name, reason in barred.items():
        yield Note(f"licence: {left_out.filter(source=name).height:,} rows of {name} are left out: {reason}")
    yield from _notes(decided, config, asked, walked)


def _vectors(dataset: Dataset) -> pl.DataFrame:
    from curate.quality.embed import stored_vectors  # noqa: PLC0415 # what embeds is imported only where it is needed

    found = stored_vectors(dataset)
    if found is None:
        name = dataset.manifest.name
        raise ConfigError(
            f"select {name}, diverse",
            "the version has no embeddings",
            remedy=f"run sft curate score {name} --embed MODEL",
        )
    return found


def _notes(decided: pl.DataFrame, config: SelectConfig, asked: Asked, walked: Walk | None) -> Iterator[Note]:
    """Tell what was taken: rows, tokens, the cut, each source, each quota, and what to compare it with."""
    taken = decided.filter(pl.col("verdict").is_null())
    if not (config.commercial or asked.samples or asked.weights or walked):
        yield Note("no budget, quota or sample was asked for: all rows stay")
        return
    how = {"random": "by chance", "longest": "the longest answers first", None: f"by {config.by or asked.column}"}
    counted = "counted" if config.tokenizer else f"estimated, {CHARACTERS_PER_TOKEN} characters each"
    cut = _cut(taken, config, asked) if walked else ""
    yield Note(
        f"{taken.height:,} of {decided.height:,} rows, {taken['tokens'].sum():,} of {decided['tokens'].sum():,} tokens "
        f"({counted}){', ' + how[config.control] if walked else ''}{cut}"
    )
    parts = decided.group_by("source").agg(
        rows=pl.len(),
        taken=pl.col("verdict").is_null().sum(),
        tokens=pl.col("tokens").filter(pl.col("verdict").is_null()).sum(),
    )
    said = [f"{s} {t:,} of {n:,} rows ({k:,} tokens)" for s, n, t, k in parts.sort("source").iter_rows()]
    yield Note(f"by source: {'; '.join(said)}")
    budget = _budget(len(walked.reason), config) if walked else None
    if walked and budget and (taken["tokens"].sum() if config.tokens else taken.height) < budget and not walked.cut_off:
        yield Note(f"the rows ended before the budget of {budget:,} {'tokens' if config.tokens else 'rows'} was spent")
    for target in asked.quotas:
        own = decided.filter(target.members())
        yield Note(f"quota {target.word}: {own['verdict'].null_count():,} of {own.height:,} rows taken")
    if missing := decided["value"].null_count() if asked.column else 0:
        chosen = taken["value"].null_count()
        yield Note(f"{missing:,} rows have no {asked.column} and stand below all others; {chosen:,} of them are taken")
    if walked and walked.unknown:
        yield Note(f"{walked.unknown:,} rows have no vector and were compared with none")
    for target in asked.weights:
        yield Note(f"weight {target.word}: {taken.filter(target.members()).height:,} rows")
    if asked.column and (config.top or config.rows or config.tokens):
        yield Note(
            f"controls at equal tokens: --control random --tokens {taken['tokens'].sum()}, and --control longest"
        )


def _cut(taken: pl.DataFrame, config: SelectConfig, asked: Asked) -> str:
    values = taken["length"] if config.control else taken["value"].drop_nulls()
    if config.control == "random" or not len(values):
        return ""
    last = values.min() if asked.descending or config.control else values.max()
    return f", down to {last:,} characters" if config.control else f", cut at {last:.4g}"


STAGE = Stage("select", 1, SelectConfig, run, pin=pin)
