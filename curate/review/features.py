"""Features: what a classifier sees of a row: measures of its text, and the words that the answer says and ends with.

    text ──> MEASURES ──> standardised, clipped at ±REACH; and their squares, as both too little and too much is bad
       └───> words and pairs of words of the answer, hashed; and of its last words, where boilerplate stands

Everything comes from the text alone, so that a model can be applied to any row without running a stage first.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer

from curate.key import answer_text
from curate.signals import repetition
from schemas.record import prompt_text

FEATURES_VERSION = 1
"""Goes up whenever the same text would have other features."""

BUCKETS = 1 << 18
"""Places that words are hashed to, for the answer and for its end each: few of 300 answers' 30,000 pairs collide."""

ENDING = 8
"""Words and marks at the end of an answer that are looked at by themselves (with them, AUC on planted defects of style
rose from 0.91 to 0.95; bench/learning.py)."""

REACH = 4.0
"""Standard deviations at which a measure is cut off: one odd row decides nothing."""

SQUARES_REACH = 3.0
"""The same of squares."""

SQUARES, WORDS, ENDINGS = 0.5, 3.0, 2.0
"""How much the squares, the words and the endings count beside the measures: their scale before the penalty, which is
the same for all. Measured on real rows with planted defects, 300 reviews; half or twice as much moves AUC by 0.01."""

CHUNK_ROWS = 20_000
"""Rows whose words are hashed at a time (a row of 200 words takes 6 kB)."""

_TOKEN = r"(?u)\w+|[^\w\s]"  # noqa: S105 # a word or a mark
_TOKENS = re.compile(_TOKEN)


def _share(pattern: str) -> pl.Expr:
    """Root of the share of the answer's characters that match: rare marks count more than in proportion."""
    return (pl.col("answer").str.count_matches(pattern) / pl.col("answer").str.len_chars().clip(1)).sqrt()


def _holds(pattern: str) -> pl.Expr:
    return pl.col("answer").str.contains(pattern).cast(pl.Float64)


def _distinct(column: str) -> pl.Expr:
    """Give the words of four letters and more, each once: they carry the topic."""
    return pl.col(column).str.to_lowercase().str.extract_all(r"\w{4,}").list.unique()


_COMMON = pl.col("asked").list.set_intersection(pl.col("said")).list.len()
_ASKED, _SAID = pl.col("asked").list.len().clip(1), pl.col("said").list.len().clip(1)

_MEASURES: dict[str, pl.Expr] = {
    "prompt_length": pl.col("prompt").str.count_matches(r"\S+").log1p(),
    "answer_length": pl.col("answer").str.count_matches(r"\S+").log1p(),
    "context_length": pl.col("context").fill_null("").str.count_matches(r"\S+").log1p(),
    "turns": pl.col("messages").list.len().log1p(),
    "prompt_words_answered": _COMMON / _ASKED,
    "answer_words_asked": _COMMON / _SAID,
    "topic_overlap": _COMMON / (_ASKED * _SAID).sqrt(),
    "distinct_words": _SAID / pl.col("answer").str.count_matches(r"\w{4,}").clip(1),
    "letters_and_digits": _share(r"[\p{L}\p{M}\p{N}]"),
    "capitals": _share(r"\p{Lu}"),
    "digits": _share(r"\d"),
    "exclamation_marks": _share("!"),
    "question_marks": _share(r"\?"),
    "commas": _share(","),
    "full_stops": _share(r"\."),
    "line_ends": _share("\n"),
    "ends_a_sentence": _holds(r"[.!?:;)\"”\]`。！？]\s*$"),
    "starts_with_capital": _holds(r"^\s*\p{Lu}"),
    "has_list": _holds(r"(?m)^\s*(\d+[.)]|[-*•])\s"),
    "has_code": _holds(r"```|;\n|\bdef "),
}

MEASURES = (*_MEASURES, "repetition")
"""The measures by name: lengths as log(1 + words), shares as roots, yes or no as 1 or 0."""

Matrix = sparse.csr_matrix
Numbers = NDArray[np.float64]


def measure(rows: pl.DataFrame) -> pl.DataFrame:
    """Measure rows. Reads: messages, context. Gives: the answer, and MEASURES as float64, without nulls."""
    texts = rows.select("messages", "context", prompt=prompt_text().fill_null(""), answer=answer_text().fill_null(""))
    said = texts.with_columns(asked=_distinct("prompt"), said=_distinct("answer"))
    measured = said.select("answer", **_MEASURES)
    again = repetition(measured["answer"]).cast(pl.Float64).alias("repetition")
    return measured.with_columns(pl.col(list(_MEASURES)).cast(pl.Float64).fill_null(0.0).fill_nan(0.0), again)


def scales(measured: pl.DataFrame) -> tuple[Numbers, Numbers]:
    """Give mean and standard deviation of each measure; the deviation of one that does not vary is 1."""
    numbers = measured.select(MEASURES).to_numpy()
    deviations = numbers.std(axis=0)
    return numbers.mean(axis=0), np.where(deviations > 1e-9, deviations, 1.0)


def matrix(measured: pl.DataFrame, means: Numbers, deviations: Numbers) -> Iterator[Matrix]:
    """Give the features of rows, CHUNK_ROWS at a time: (rows, WIDTH), sparse. Reads: answer, MEASURES."""
    for chunk in measured.iter_slices(CHUNK_ROWS):
        standard = (chunk.select(MEASURES).to_numpy() - means) / deviations
        squares = np.clip((standard**2 - 1) / np.sqrt(2), -SQUARES_REACH, SQUARES_REACH)
        answers = chunk["answer"].to_list()
        ends = [" ".join(_TOKENS.findall(answer)[-ENDING:]) for answer in answers]
        parts = (
            sparse.csr_matrix(np.clip(standard, -REACH, REACH)),
            sparse.csr_matrix(squares * SQUARES),
            _hashed(answers, 2) * WORDS,
            _hashed(ends, 3) * ENDINGS,
        )
        yield sparse.csr_matrix(sparse.hstack(parts))


WIDTH = 2 * len(MEASURES) + 2 * BUCKETS
"""Columns of the matrix: measures, squares, words and pairs of the answer, words, pairs and triples of its end."""


def _hashed(texts: Sequence[str], longest: int) -> Matrix:
    """Hash the n-grams of words up to a length: which there are, each row of unit length."""
    hashing = HashingVectorizer(
        n_features=BUCKETS,
        alternate_sign=False,
        norm="l2",
        binary=True,
        ngram_range=(1, longest),
        token_pattern=_TOKEN,
    )
    return sparse.csr_matrix(hashing.transform(texts))
