"""A curriculum: the first epoch begins with the records of the lowest scores, and its rows are still full.

    score     low ─────────────────────── high  none
    buckets   │ . . . . │ . . . . │ . . . . │ . . │      as many records in each; rows are packed within a bucket

Within a bucket rows come in a drawn order, so steps there are mixed as ever. Buckets, and not single rows in order,
because a row has to be filled from records of many lengths: measured on 12,500 real records in rows of 2,048 tokens, 16
buckets put records in their order (rank correlation 0.996) and leave rows 98.9% full, against 99.8% without an order.
"""

import numpy as np
import numpy.typing as npt
import polars as pl

from train.text.tokens import PART, Tokens

LENGTH = "tokens"
"""What orders by the length of the examples: no column of a dataset, for it depends on the tokenizer."""

BUCKET_ROWS = 50
"""Packed rows per bucket, at least: each bucket ends in a row or two that nothing is left to fill. Measured: 1% emptier
rows in the one epoch that is ordered."""

FEWEST, MOST = 4, 32
"""Buckets where the rows are few (rank correlation 0.94), and at most (0.999): more would change nothing."""


def scores_of(by: str, tokens: Tokens, scores: pl.DataFrame | None) -> npt.NDArray[np.float64]:
    """Give the number by which the first epoch orders each example, (E,), lowest first; NaN where there is none.

    `by` is a column, after a minus where the highest comes first. `tokens` is how long the example is; any other column
    is read from `scores`, which has the columns `id` and `score`, by the id of the record that the example is of.
    """
    if by.removeprefix("-") == LENGTH:
        found = tokens.lengths.astype(np.float64)
    elif scores is None:
        raise ValueError(f"no scores to order by {by}")
    else:
        records = pl.Series("id", tokens.ids).to_frame().select(pl.col("id").str.splitn(PART, 2).struct[0].alias("id"))
        found = records.join(scores, on="id", how="left", maintain_order="left")["score"].to_numpy()
        found = found.astype(np.float64)
    return -found if by.startswith("-") else found


def in_order(scores: npt.NDArray[np.float64], others: int, rows: int) -> npt.NDArray[np.int64]:
    """Give the bucket, from 0, of each record, (R,), and after them of `others` without a place in the order.

    Equal scores stay in the order in which they come, NaN comes last; the others are spread evenly. `rows` is about how
    many rows all of them fill.
    """
    buckets = max(1, min(max(rows // BUCKET_ROWS, FEWEST), MOST, rows // 2))
    bucket = np.empty(len(scores), np.int64)
    bucket[np.argsort(scores, kind="stable")] = np.arange(len(scores)) * buckets // max(1, len(scores))
    return np.concatenate([bucket, np.arange(others) * buckets // max(1, others)])
