"""The stages, in their fixed order, and the columns that each adds to the joined view.

Every stage's annotation begins with `verdict` and `detail` (schemas.record.VERDICT_SCHEMA); the columns here follow.
"""

import polars as pl

STAGES = (
    "ingest",
    "normalize",
    "rules",
    "pii",
    "signals",
    "dedup",
    "decontaminate",
    "score",
    "select",
    "split",
    "review",
)

SPLITS = ("train", "val", "test")

ANNOTATION_COLUMNS: dict[str, pl.Schema] = {
    "ingest": pl.Schema(),
    "normalize": pl.Schema(),
    "rules": pl.Schema({"flags": pl.List(pl.String)}),
    "pii": pl.Schema(
        {"entities": pl.List(pl.Struct({"kind": pl.String, "turn": pl.UInt32, "start": pl.UInt32, "end": pl.UInt32}))}
    ),
    "signals": pl.Schema(
        {
            "prompt_words": pl.Float32,
            "response_words": pl.Float32,
            "turns": pl.Float32,
            "alphanumeric": pl.Float32,
            "distinct_words": pl.Float32,
            "repetition": pl.Float32,
            "quality": pl.Float32,
            "language": pl.String,
            "task": pl.String,
        }
    ),
    "dedup": pl.Schema(
        {
            "cluster_id": pl.String,
            "duplicate_of": pl.String,
            "jaccard": pl.Float32,
            "conflict_id": pl.String,
            "answer_id": pl.String,
        }
    ),
    "decontaminate": pl.Schema(
        {
            "matches": pl.List(
                pl.Struct(
                    {
                        "eval": pl.String,
                        "item": pl.String,
                        "coverage": pl.Float32,
                        "where": pl.String,
                        "text": pl.String,
                    }
                )
            )
        }
    ),
    "score": pl.Schema(
        {
            "perplexity": pl.Float32,
            "ifd": pl.Float32,
            "judge": pl.Float32,
            "judge_reason": pl.String,
            "judge_error": pl.String,
            "diversity": pl.Float32,
            "nearest": pl.String,
            "learned": pl.Float32,
            "score": pl.Float32,
        }
    ),
    "select": pl.Schema({"weight": pl.Float32}),
    "split": pl.Schema({"split": pl.String}),
    "review": pl.Schema(
        {
            "override": pl.String,
            "review_status": pl.String,
            "rating": pl.Float32,
            "labels": pl.List(pl.String),
            "reviewers": pl.List(pl.String),
            "agreement": pl.Float32,
            "reviewed_at": pl.String,
            "corrected_by": pl.List(pl.String),
        }
    ),
}
"""Columns after verdict and detail, for the stages whose columns are known here. A stage that is not listed adds the
columns that its objects hold."""


def before(stage: str | None) -> tuple[str, ...]:
    """Give the stages that come before `stage`; all of them for None."""
    return STAGES if stage is None else STAGES[: STAGES.index(stage)]
