"""One score from several columns: a weighted mean of ranks.

Each column is brought to 0 … 1 by the rank that a row has among the rows that are judged (equal values share the mean
of their ranks), so that words, perplexities and grades can be weighed against each other and no outlier decides. A
negative weight takes the rank from the other end. The result is 0 … 1 as well:

    score = Σ |weight| · rank / Σ |weight|        rank = position / (rows - 1), or 1 - that for a negative weight

A row that lacks one of the columns has no score: a mean over the columns that it happens to have would place a row by
what is not known about it.
"""

from collections.abc import Mapping

import polars as pl

from schemas.stages import ANNOTATION_COLUMNS

_OWN = ANNOTATION_COLUMNS["score"]


def weighable() -> dict[str, str]:
    """Give the columns that may have a weight, each with the stage that makes it: all numbers of signals and score."""
    stages = {name: stage for stage in ("signals", "score") for name in ANNOTATION_COLUMNS[stage]}
    return {n: stage for n, stage in stages.items() if ANNOTATION_COLUMNS[stage][n].is_numeric() and n != "score"}


def rank(column: str) -> pl.Expr:
    """Rank of each value among those that are not null, from 0 (lowest) to 1 (highest); a lone value has 0.5."""
    last = pl.col(column).count() - 1
    place = pl.col(column).rank("average") - 1
    return pl.when(last > 0).then(place / last).otherwise(pl.when(pl.col(column).is_not_null()).then(0.5))


def combined(weights: Mapping[str, float]) -> pl.Expr:
    """Give the combined score (see above), null where one of its columns is. Reads: the columns of `weights`."""
    if not weights:
        return pl.lit(None, dtype=_OWN["score"]).alias("score")
    total = sum(abs(weight) for weight in weights.values())
    parts = [abs(weight) * (rank(name) if weight > 0 else 1 - rank(name)) for name, weight in weights.items()]
    return (pl.sum_horizontal(parts, ignore_nulls=False) / total).cast(_OWN["score"]).alias("score")
