"""Signals: cheap measures of each row, and a heuristic quality made from three of them. Signals never reject.

Two are words: `language`, which the answer is written in (`curate.language`; null where that is not certain), and
`task`, what the prompt asks for (`curate.task`). The others are numbers.

    quality = length · variety · text, each between 0 and 1

    length   log(1 + response_words) / log(1 + good_response_words), at most 1. Longer answers teach more (the 1,000
             longest responses are a baseline that is hard to beat: zhao24b, PMLR 235); the logarithm leaves a right
             answer of one word above 0.
    variety  1 - repetition / max_repetition, at least 0. data-juicer's `alpaca-cot-en-refine` drops rows above 0.6.
    text     (alphanumeric - min_alphanumeric) / (good_alphanumeric - min_alphanumeric), between 0 and 1. The same
             recipe drops rows below 0.1. It is the share of letters and digits among the characters that are not blank,
             so that tables and indented code lose nothing for their layout.

It orders rows for a person or a budget; it says nothing about truth.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.key import answer_text, key_text
from curate.language import detect
from curate.stage import Output, Progress, ShardOutput, Stage
from curate.task import classify
from schemas.config import SignalsConfig
from schemas.dataset import Dataset, Shard
from schemas.record import VERDICT_SCHEMA, prompt_text
from schemas.stages import ANNOTATION_COLUMNS

WINDOW = 10
"""Bytes in a piece of text that may repeat (data-juicer counts pieces of 10 characters, which are bytes in English)."""

CHUNK_BYTES = 8 << 20
"""Bytes of text that `repetition` works on at a time, which takes about 30 times as much memory."""

_OWN = ANNOTATION_COLUMNS["signals"]


def repetition(texts: pl.Series) -> pl.Series:
    """Give the share of a text's 10-byte pieces, at every position, that it has had before; 0 for shorter texts.

    data-juicer's measure counts the most frequent pieces only, which needs a sorted table for every row; both are 0
    for a text without repeats and near 1 for one that loops.
    """
    sizes = texts.str.len_bytes().fill_null(0).to_numpy().astype(np.int64)
    shares = np.zeros(len(texts))
    edges = np.flatnonzero(np.diff(np.cumsum(sizes) // CHUNK_BYTES)) + 1
    for start, end in pairwise([0, *edges.tolist(), len(texts)]):
        data = np.frombuffer("".join(texts.slice(start, end - start).drop_nulls()).encode(), np.uint8)
        shares[start:end] = _repeated(data, sizes[start:end])
    return pl.Series("repetition", shares, dtype=pl.Float32)


def _repeated(data: NDArray[np.uint8], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give the share of repeated pieces of several texts, which stand end to end in `data`."""
    pieces = np.maximum(sizes - WINDOW + 1, 0)
    if not pieces.any():
        return np.zeros(len(sizes))
    rolled = np.zeros(len(data) - WINDOW + 1, np.uint64)
    for i in range(WINDOW):
        rolled = rolled * np.uint64(0x9E3779B97F4A7C15) + data[i : i + len(rolled)]
    begins, before = np.cumsum(sizes) - sizes, np.cumsum(pieces) - pieces
    at = np.arange(pieces.sum()) + np.repeat(begins - before, pieces)
    counted = (
        pl.DataFrame({"row": np.repeat(np.arange(len(sizes)), pieces), "piece": rolled[at]})
        .group_by("row")
        .agg(pl.col("piece").n_unique())
    )
    distinct = np.zeros(len(sizes))
    distinct[counted["row"].to_numpy()] = counted["piece"].to_numpy()
    return 1 - np.divide(distinct, pieces, out=np.ones(len(sizes)), where=pieces > 0)


def measures(answer: pl.Expr) -> dict[str, pl.Expr]:
    """Give the measures that polars can express. Reads: messages, context."""
    characters = answer.str.count_matches(r"\S")
    words = answer.pipe(key_text).str.split(" ").list.filter(pl.element() != "")
    return {
        "prompt_words": prompt_text().str.count_matches(r"\S+"),
        "response_words": answer.str.count_matches(r"\S+"),
        "turns": pl.col("messages").list.len(),
        "alphanumeric": answer.str.count_matches(r"[\p{L}\p{M}\p{N}]") / characters.clip(1),
        "distinct_words": words.list.n_unique() / words.list.len().clip(1),
    }


def quality(config: SignalsConfig) -> pl.Expr:
    """Give the heuristic quality (see above). Reads: response_words, repetition, alphanumeric."""
    length = pl.col("response_words").log1p() / float(np.log1p(config.good_response_words))
    variety = 1 - pl.col("repetition") / config.max_repetition
    span = config.good_alphanumeric - config.min_alphanumeric
    text = (pl.col("alphanumeric") - config.min_alphanumeric) / span
    return length.clip(0, 1) * variety.clip(0, 1) * text.clip(0, 1)


def measure_shard(shard: Shard, config: SignalsConfig) -> pl.DataFrame:
    """Give the annotation of one shard.

    Reads: messages, context, category, kept. Adds: verdict, detail, and the signals, all null for
    rows that are not judged.
    """
    rows = (
        shard.view(["messages", "context", "category", "kept"], before_stage="signals").with_row_index("row").collect()
    )
    judged = rows.filter("kept").with_columns(answer=answer_text())
    judged = (
        judged.with_columns(classify(judged), detect(judged["answer"]))
        .with_columns(**measures(pl.col("answer")))
        .with_columns(pl.col("answer").map_batches(repetition, return_dtype=pl.Float32).alias("repetition"))
        .with_columns(quality=quality(config))
        .select("row", *(pl.col(name).cast(dtype) for name, dtype in _OWN.items()))
    )
    nothing = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in VERDICT_SCHEMA.items()]
    return rows.select("row", *nothing).join(judged, on="row", how="left", maintain_order="left").drop("row")


def run(dataset: Dataset, config: SignalsConfig, progress: Progress) -> Iterator[Output]:
    """Measure every row that is kept so far."""
    for shard in dataset.shards:
        yield ShardOutput(shard, measure_shard(shard, config))
        progress(shard.rows)


STAGE = Stage("signals", 2, SignalsConfig, run)
