"""`sft curate score`: makes the scorers that the settings ask for, and shows what they said.

The language model of the difficulty is the trainer's, and the ledger is the curator's, so that they meet here.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from cli.extras import needs_torch, quiet_transformers
from cli.render import number, out, say, table
from curate.quality.scorer import Learner, Scorer
from schemas.config import ScoreConfig
from schemas.dataset import Dataset
from schemas.errors import ModelError
from schemas.record import Record, record_of

if TYPE_CHECKING:
    from curate.pipeline import Makers
    from curate.quality.distribution import Scores
    from train.evaluation.difficulty import DifficultyModel


SHORT_ID = 8
"""Hex digits of a row's id in a table: `sft why` takes them, and they leave room for the numbers."""


def makers(config: ScoreConfig | None) -> "Makers":
    """Give what makes the score stage, where the settings ask for a scorer; without one the stage needs nobody."""
    from curate.quality.score import ASKS, score_stage

    if config is None or not any(getattr(config, setting) for setting in ASKS.values()):
        return {}
    return {"score": lambda dataset, settings: score_stage(*_made(dataset, settings))}


def _made(dataset: Dataset, config: ScoreConfig) -> tuple[list[Scorer], Learner | None]:
    """Make who scores: what is learnt from reviews first, as that costs little and tells early of too few of them."""
    learner = None
    if config.from_reviews:
        from curate.review.learn import make_learner

        learner = make_learner(dataset)
    return make_scorers(dataset, config), learner


def make_scorers(dataset: Dataset, config: ScoreConfig) -> list[Scorer]:
    """Make the scorers that the settings ask for, in the order in which they are asked."""
    scorers: list[Scorer] = []
    if config.difficulty is not None:
        scorers.append(_difficulty(dataset, config, config.difficulty))
    if config.judge is not None:
        from curate.quality.judge import make_judge

        scorers.append(make_judge(config))
    if config.embed is not None:
        from curate.quality.embed import make_embedder

        scorers.append(make_embedder(config))
        quiet_transformers()
    return scorers


def _difficulty(dataset: Dataset, config: ScoreConfig, model: str) -> "DifficultyScorer":
    needs_torch("sft curate score --difficulty")
    from schemas.train_config import TINY, TrainConfig
    from train.evaluation.difficulty import DifficultyModel

    quiet_transformers()
    settings = {"model": model, "max_tokens": config.max_tokens, "precision": config.precision, "device": config.device}
    say(f"difficulty: {'building' if model == TINY else 'loading'} {model}")
    records = _records(dataset) if model == TINY else ()
    train_config = TrainConfig.model_validate(settings)
    try:
        return DifficultyScorer(DifficultyModel.load(train_config, records, batch_tokens=config.batch_tokens))
    except ModelError as error:  # the loader is the trainer's, where the option has another name
        where = error.where.replace("--model", "--difficulty")
        raise ModelError(where, error.found, error.expected, error.remedy) from error


def _records(dataset: Dataset) -> tuple[Record, ...]:
    """Read the rows that the score stage judges: `tiny` is built from them."""
    columns = ["id", "source", "messages", "context", "tools", "kept"]
    rows = dataset.scan(columns, before_stage="score").filter("kept").collect(engine="streaming")
    return tuple(record_of(row) for row in rows.iter_rows(named=True))


class DifficultyScorer:
    """Perplexity and IFD by a language model, as a scorer. What has none is kept with the reason, and counted."""

    name = "difficulty"
    reads_tools = True
    columns = pl.Schema({"perplexity": pl.Float32, "ifd": pl.Float32})
    kept = pl.Schema({**columns, "refusal": pl.String})

    def __init__(self, model: "DifficultyModel") -> None:
        self._model = model
        self._refused: Counter[str] = Counter()

    @property
    def key(self) -> str:
        """What a score depends on: weights, tokenizer, template, lengths, precision."""
        return self._model.key

    @property
    def provenance(self) -> dict[str, Any]:
        """Say the same for people."""
        return self._model.provenance

    def score(self, rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """Measure rows in pieces; see Scorer."""
        texts = dict(zip(rows["id"], rows["content_hash"], strict=True))
        for piece in self._model.measure([record_of(row) for row in rows.iter_rows(named=True)]):
            columns = {
                "content_hash": [texts[found.id] for found in piece],
                "perplexity": [found.perplexity for found in piece],
                "ifd": [found.ifd for found in piece],
                "refusal": [found.refusal for found in piece],
            }
            yield pl.DataFrame(columns, schema={"content_hash": pl.String, **self.kept})

    def finish(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Give perplexity and ifd; count the refusals by reason. See Scorer."""
        self._refused = Counter(text.partition(":")[0] for text in rows["refusal"].drop_nulls())
        return rows.select(list(self.columns))

    def notes(self) -> Sequence[str]:
        """Say what has no difficulty and why, and what the model had to say."""
        refused = ", ".join(
            f"{REFUSALS.get(reason, reason)} ({number(n)})" for reason, n in self._refused.most_common()
        )
        return [*self._model.notes, *([f"rows without a difficulty: {refused}"] if refused else [])]


REFUSALS = {
    "overlong": "longer than --max-tokens or the model's context",
    "no_targets": "no answer to measure",
    "special_token": "the text spells out a special token",
    "rewritten": "the chat template changes the text",
    "template": "the chat template does not fit the conversation",
    "not_finite": "the model gives no finite loss",
    "certain": "the answer alone is certain, so it has no IFD",
}
"""Why a row has no difficulty, in words."""


def report(dataset: Dataset, quiet: bool) -> dict[str, Any]:
    """Show the columns of a version's scores, and how they go together; give the same as plain values."""
    from curate.quality.distribution import describe

    entry = dataset.manifest.stage("score")
    weights: dict[str, float] = entry.config["weights"] if entry else {}
    found = describe(dataset, tuple(weights))
    if not quiet:
        _show(found, weights)
    learnt: dict[str, Any] = {}
    if entry and entry.config.get("from_reviews"):
        from curate.review.learn import report as reported

        learnt = {"learning": reported(dataset)}
    return {"weights": weights, **learnt, **found.to_json()}


def _show(found: "Scores", weights: dict[str, float]) -> None:
    from curate.quality.distribution import matrix

    if not found.distributions:
        return
    ends = ["lowest row", "highest row"]
    numbers = ["#rows", "#without", "#mean", "#lowest", "#25%", "#median", "#75%", "#highest"]
    rows = [
        (
            d.column,
            number(d.rows),
            number(d.without),
            *(f"{value:.3g}" for value in (d.mean, d.lowest, *d.quartiles, d.highest)),
            d.lowest_row[:SHORT_ID],
            d.highest_row[:SHORT_ID],
        )
        for d in found.distributions
    ]
    table("Scores of the kept rows", ["column", *numbers, *ends], rows)
    names = [d.column for d in found.distributions]
    if found.correlations:
        lines = list(matrix(found.correlations))
        table("Do they order rows alike? (Spearman)", ["", *(f"#{name}" for name in names[:-1])], lines)
    if "score" in names:
        out("score = weighted mean of ranks: " + ", ".join(f"{name} {weight:g}" for name, weight in weights.items()))
