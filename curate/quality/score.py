"""The score stage: what scorers say about the rows that are kept, and one score made of several columns.

It rejects nothing of itself (a scorer may, where its settings say so). Scorers cost time or money, so they are asked
only about texts that their ledger does not know; what they said is kept with the version, as an index object for each
scorer and shard. The manifest names each scorer, what it was, and the weights of the combined score.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import polars as pl

from curate.quality.combine import combined, weighable
from curate.quality.ledger import TEXT, open_ledger
from curate.quality.scorer import RETRY, ROW_COLUMNS, Learner, Scorer
from curate.stage import IndexOutput, Note, Output, Progress, ShardOutput, Stage
from curate.store import Store
from schemas.config import ScoreConfig
from schemas.dataset import Dataset, Shard
from schemas.errors import ConfigError
from schemas.record import VERDICT_SCHEMA, check_schema
from schemas.stages import ANNOTATION_COLUMNS

_OWN = ANNOTATION_COLUMNS["score"]
_FACTS = ("id", "source", "content_hash", "quality")

ASKS = {"difficulty": "difficulty", "judge": "judge", "embedding": "embed", "reviews": "from_reviews"}
"""Each scorer, and the setting that asks for it."""


class PinnedScore(ScoreConfig):
    """The settings as the manifest has them: with who the scorers were, exactly."""

    scorers: dict[str, dict[str, Any]]
    """Each scorer by name: the key of its ledger, and its provenance (model, digest, versions)."""


def score_stage(scorers: Sequence[Scorer], learner: Learner | None = None) -> Stage:
    """Make the stage from its scorers; without any it makes the combined score from the columns that are there.

    `learner`: who learns from reviews, where the settings ask for it.
    """

    def run(dataset: Dataset, config: Any, progress: Progress) -> Iterator[Output]:
        return _run(dataset, config, progress, scorers, learner)

    def pin(dataset: Dataset, config: Any) -> PinnedScore:
        return _pin(dataset, config, [*scorers, *([learner] if learner else [])])

    return Stage("score", 2, ScoreConfig, run, pin=pin)


def _pin(dataset: Dataset, config: ScoreConfig, scorers: Sequence[Scorer | Learner]) -> PinnedScore:
    """Check that every column with a weight is there or will be, and write down who scores."""
    settings = {name: getattr(config, name) for name, field in ScoreConfig.model_fields.items() if not field.exclude}
    models = {scorer.name: str(scorer.provenance["model"]) for scorer in scorers}
    for name, asks in ASKS.items():
        if name not in models and settings[asks]:
            raise ConfigError(f"score, {asks}", "no scorer was made for it", remedy="hand score_stage its scorers")
        if asks != "from_reviews":
            settings[asks] = models.get(name)
    settings["weights"] = _available(dataset, config, {name for scorer in scorers for name in scorer.columns})
    who = {scorer.name: {"key": scorer.key, **scorer.provenance} for scorer in scorers}
    return PinnedScore.model_construct(**settings, scorers=who)


def _available(dataset: Dataset, config: ScoreConfig, made: set[str]) -> dict[str, float]:
    """Give the weights of columns that there are; the default ones may be without, those that were asked for not."""
    ran = {stage.name for stage in dataset.manifest.stages}
    known = weighable()
    for name in config.weights:
        stage = known.get(name)
        if stage is None:
            raise ConfigError("score, weights", f"{name} is no column of numbers", f"some of {', '.join(known)}")
        if stage == "score" and name not in made:
            remedy = "name the scorer in the same command: texts that it knows are not scored again"
            raise ConfigError("score, weights", f"{name}, which no scorer of this run gives", remedy=remedy)
        if stage == "signals" and stage not in ran and "weights" in config.model_fields_set:
            raise ConfigError(
                "score, weights", f"{name}, but signals has not run", remedy="run sft curate signals first"
            )
    return {n: weight for n, weight in config.weights.items() if known[n] == "score" or known[n] in ran}


@dataclass
class _Meter:
    """Turns texts that each of several scorers has done into rows of progress."""

    progress: Progress
    scorers: int
    done: int = 0
    told: int = 0

    def add(self, rows: int) -> None:
        """Count rows that one scorer has done."""
        self.done += rows
        now = self.done // self.scorers
        self.progress(now - self.told)
        self.told = now


def _run(
    dataset: Dataset, config: PinnedScore, progress: Progress, scorers: Sequence[Scorer], learner: Learner | None
) -> Iterator[Output]:
    """Ask the scorers about what they do not know, have the learner score all rows, then make the columns.

    Reads: ROW_COLUMNS, kept, the columns of `weights`. Adds: the columns of the scorers, score.
    """
    needed = [*_FACTS, "tools", *(n for n in config.weights if n not in _OWN and n not in _FACTS), "kept"]
    rows = dataset.scan(needed, before_stage="score").collect(engine="streaming").with_row_index("row")
    judged = rows.filter("kept").pipe(_name_texts)
    meter = _Meter(progress, max(1, len(scorers) + (learner is not None)))
    yield from _left_out(dataset, [*scorers, *([learner] if learner else [])])
    opinions: list[pl.DataFrame] = []
    for scorer in scorers:
        opinions.append((yield from _opinion(dataset, scorer, judged, meter)))  # noqa: PERF401 # no comprehension can yield from
    if learner is not None:
        opinions.append((yield from _learnt(dataset, learner, meter)))
    table = pl.concat([judged, *(o.drop(list(VERDICT_SCHEMA), strict=False) for o in opinions)], how="horizontal")
    verdicts = [o for o in opinions if "verdict" in o.columns]
    table = table.with_columns(
        *(pl.coalesce([o[name] for o in verdicts]).alias(name) for name in VERDICT_SCHEMA if verdicts),
        combined(config.weights),
    )
    yield from map(Note, _remarks(table, config))
    columns = pl.Schema({**VERDICT_SCHEMA, **_OWN})
    given = table.select("row", *(n if n in table.columns else pl.lit(None, columns[n]).alias(n) for n in columns))
    whole = rows.select("row").join(given, on="row", how="left", maintain_order="left").drop("row")
    for shard, start in _places(dataset):
        yield ShardOutput(shard, whole.slice(start, shard.rows))
    progress(dataset.rows - meter.told)


def _places(dataset: Dataset) -> Iterator[tuple[Shard, int]]:
    """Give each shard with the position of its first row in the dataset."""
    start = 0
    for shard in dataset.shards:
        yield shard, start
        start += shard.rows


def _opinion(
    dataset: Dataset, scorer: Scorer, judged: pl.DataFrame, meter: _Meter
) -> Generator[Output, None, pl.DataFrame]:
    """Have one scorer's say about all rows that are judged; yields what is kept for the next run, and notes."""
    judged = judged.with_columns(text=pl.col("text" if scorer.reads_tools else TEXT))
    scored = failed = 0
    with open_ledger(Store(dataset.root), dataset, scorer) as ledger:
        if ledger.lost:
            lost = "objects with scores in the store that are damaged or gone"
            yield Note(f"{scorer.name}: {lost}: {ledger.lost:,}; texts of theirs are asked about again")
        asked = ledger.unknown(judged.select("row", pl.col("text").alias(TEXT)))
        for shard, start in _places(dataset):
            unknown = asked.filter(_within(shard, start))
            meter.add(shard.rows - unknown.height)
            left = unknown.height
            for piece in scorer.score(_rows(shard, start, unknown)) if left else ():
                ledger.add(piece)
                again = int(piece[RETRY].sum()) if RETRY in piece.columns else 0
                scored, failed, left = scored + piece.height - again, failed + again, left - piece.height
                meter.add(piece.height)
            meter.add(left)
        known = ledger.known
    # Written at the end: until the version is committed nothing names them, and gc takes what is old and has no name.
    for shard, start in _places(dataset):
        own = judged.filter(_within(shard, start))
        yield IndexOutput(ledger.index(own["text"]), shard=shard, made_from=scorer.key)
    before = judged["text"].n_unique() - asked.height
    yield Note(_told(scorer, known=before, scored=scored, failed=failed, left=asked.height - scored - failed))
    facts = judged.select(*_FACTS, "text").join(
        known, left_on="text", right_on=TEXT, how="left", maintain_order="left", coalesce=True
    )
    made = scorer.finish(facts.drop("text"))
    if made.height != judged.height:
        raise AssertionError(f"scorer {scorer.name}: {made.height} opinions about {judged.height} rows")
    check_schema(made.drop(list(VERDICT_SCHEMA), strict=False).schema, scorer.columns, f"scorer {scorer.name}")
    yield from map(Note, scorer.notes())
    return made


def _learnt(dataset: Dataset, learner: Learner, meter: _Meter) -> Generator[Output, None, pl.DataFrame]:
    """Have what was learnt score all rows that are judged; yields the model, which the version keeps, and notes."""
    yield Store(dataset.root).put(learner.model, role="model", stage="score", made_from=learner.key)
    made = learner.learned(dataset, meter.add)
    check_schema(made.schema, learner.columns, f"learner {learner.name}")
    yield from (Note(f"{learner.name}: {note}") for note in learner.notes())
    return made


def _within(shard: Shard, start: int) -> pl.Expr:
    """Whether a row of the dataset lies in a shard that begins at `start`. Reads: row."""
    return pl.col("row").is_between(start, start + shard.rows, closed="left")


def _rows(shard: Shard, start: int, unknown: pl.DataFrame) -> pl.DataFrame:
    """Read the rows whose text is unknown. Reads: ROW_COLUMNS. Gives them with the name of the text as content_hash."""
    own = unknown.select(pl.col("row") - start, TEXT)
    found = shard.view(ROW_COLUMNS, before_stage="score").drop(TEXT).with_row_index("row")
    return found.join(own.lazy(), on="row", how="inner", maintain_order="left").select(ROW_COLUMNS).collect()


def _told(scorer: Scorer, *, known: int, scored: int, failed: int, left: int) -> str:
    counts = {"scored": scored, "known from before": known}
    later = {"failed and are asked again in the next run": failed, "left for the next run": left}
    told = [f"{n:,} {what}" for what, n in {**counts, **{what: n for what, n in later.items() if n}}.items()]
    return f"{scorer.name} ({scorer.provenance['model']}): texts: {', '.join(told)}"


def _left_out(dataset: Dataset, scorers: Sequence[Scorer | Learner]) -> Iterator[Note]:
    """Say which scorers the version had that are not asked now: their columns go."""
    entry = dataset.manifest.stage("score")
    had: dict[str, dict[str, Any]] = entry.config.get("scorers", {}) if entry else {}
    gone = [f"{name} ({who['model']})" for name, who in had.items() if name not in {s.name for s in scorers}]
    if gone:
        yield Note(
            f"the version had scores of {', '.join(gone)}, this run leaves them out; "
            "name them in the same command to keep them: what they have scored is not scored again"
        )


def _remarks(table: pl.DataFrame, config: PinnedScore) -> Iterator[str]:
    """Say what a person should know of the columns before relying on them."""
    if not config.weights:
        yield "no combined score: it is made of quality, and signals has not run"
    elif missing := table["score"].null_count():
        lacks = {name: table[name].null_count() for name in config.weights}
        named = ", ".join(f"{name} ({n:,})" for name, n in lacks.items() if n)
        yield f"{missing:,} of {table.height:,} rows have no combined score, as they lack {named}"
    if "ifd" in table.columns and (useless := table.filter(pl.col("ifd") >= 1).height):
        first = " and would come first by these weights" if config.weights.get("ifd", 0) > 0 else ""
        yield f"{useless:,} rows have an IFD of 1 or more: their prompt does not help to answer{first}"


def _name_texts(rows: pl.DataFrame) -> pl.DataFrame:
    """Name each text with its tools. Reads: row, content_hash, tools. Adds: text (content_hash where no tools are)."""
    equipped = rows.filter(pl.col("tools").is_not_null()).select("row", TEXT, "tools")
    names = [blake2b(f"{text} {tools}".encode(), digest_size=16).hexdigest() for _, text, tools in equipped.iter_rows()]
    named = equipped.select("row", pl.Series("text", names, pl.String))
    return rows.join(named, on="row", how="left", maintain_order="left").with_columns(
        pl.coalesce("text", TEXT).alias("text")
    )


STAGE = score_stage(())
