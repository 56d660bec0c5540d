"""Repetition: a character, some words or a sentence over and over, as a model writes that has got stuck.

All rows are read at once: words become 64-bit hashes in one flat array, in which a loop of n words is a stretch that is
equal to itself n words further on.
"""

import re

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.rules.rule import Example, Rule, blank_but, review, shown

_CHARACTERS = 12
"""Times the same letter or mark in a row; longer cries and laughs are rare, and lines and numbers do not count."""
_LOOPS = {1: 6, 2: 5, 3: 4, 4: 4, 5: 4, 6: 3, 7: 3, 8: 3}
"""Words in a loop, and how often it must come in a row: choruses come twice or three times, with verses between."""
_SENTENCES = 5
"""Times the same sentence of four words or more; a chorus comes four times in a long song."""
_PART = 0.2
"""Of all its sentences and lines; less is a quiz or a form, whose lines are alike."""
_CHAR_RUN = re.compile(rf"([^\W\d_]|[!?,;:])\1{{{_CHARACTERS - 1},}}")
_WORD_RUN = re.compile(r"(?<!\S)((?:\S+\s+){0,7}?\S+)(?:\s+\1){2,}(?!\S)")

_SPOKEN = re.compile(r"[\"'(“‘]*[^\W\d_]{2}[\w'’-]*[.,;:!?\"')”’]*")
"""A word that is said, and no number, cell of a table, tag or note of music."""

CHUNK_ROWS = 16_384


def _long_runs(texts: pl.Series) -> pl.Series:
    """Say which texts hold a run of a character; candidates are found by their bytes, which may be equal in passing."""
    filled = texts.fill_null("")
    data = np.frombuffer("".join(filled).encode(), np.uint8)
    sizes = filled.str.len_bytes().to_numpy().astype(np.int64)
    found = np.zeros(len(texts), bool)
    if len(data) > _CHARACTERS:
        same = data[1:] == data[:-1]
        reach = same.copy()
        step, length = 1, 1
        while length < _CHARACTERS - 1:  # reach[i]: the next `length` pairs are all equal
            step = min(length, _CHARACTERS - 1 - length)
            reach = reach[:-step] & reach[step:]
            length += step
        at = np.flatnonzero(reach)
        rows = np.searchsorted(np.cumsum(sizes), at, side="right")
        for row in np.unique(rows):
            found[row] = bool(_CHAR_RUN.search(filled[int(row)]))
    return pl.Series(texts.name, found)


def _loops(texts: pl.Series) -> pl.Series:
    """Say which texts hold words that come over and over (`_LOOPS`)."""
    return pl.concat([_chunk_loops(texts.slice(at, CHUNK_ROWS)) for at in range(0, max(len(texts), 1), CHUNK_ROWS)])


def _chunk_loops(texts: pl.Series) -> pl.Series:
    words = texts.fill_null("").str.replace_all("\n", " ", literal=True).str.split(" ")
    sizes = words.list.len().to_numpy().astype(np.int64)
    flat = words.explode(empty_as_null=False, keep_nulls=False)
    hashes: NDArray[np.uint64] = flat.hash(0).to_numpy()
    row = np.repeat(np.arange(len(texts)), sizes)
    found = np.zeros(len(texts), bool)
    for size, times in _LOOPS.items():
        need = size * (times - 1)  # so many words in a row equal the one `size` further on
        if len(hashes) <= need:
            continue
        same = (hashes[size:] == hashes[:-size]) & (row[size:] == row[:-size])
        breaks = np.flatnonzero(~same)
        edges = np.concatenate([[-1], breaks, [len(same)]])
        long = np.flatnonzero(np.diff(edges) - 1 >= need)
        for at in edges[long] + 1:
            piece = flat.slice(int(at), size).to_list()
            if sum(bool(_SPOKEN.fullmatch(word)) for word in piece) * 2 > len(piece):
                found[row[at]] = True
    return pl.Series(texts.name, found)


_ENDS = r"[.!?…]+[\"”']?\s+|\n+"


def _repeats(text: pl.Expr) -> pl.Expr:
    """Say whether a sentence of four words or more comes `_SENTENCES` times, and is a good part of the text."""
    parts = text.str.replace_all(_ENDS, "\n").str.split("\n")
    long = parts.list.eval(
        pl.element().filter(pl.element().str.contains(r"\p{L}{2}.*\s\p{L}.*\s.*\s")).str.strip_chars()
    )
    most = long.list.eval(pl.element().unique_counts().max()).list.first()
    return (most >= _SENTENCES) & (most >= parts.list.len() * _PART)


def _piece(pattern: re.Pattern[str]) -> pl.Expr:
    """Show what repeats."""

    def run(texts: pl.Series) -> pl.Series:
        found = [(text, pattern.search(text)) for text in texts]
        return pl.Series(texts.name, [match[0] if match else text for text, match in found], dtype=pl.String)

    return pl.col("answer").map_batches(run, return_dtype=pl.String)


_answer = pl.col("answer")
_sung = ~pl.col("composed").str.contains_any(
    ["song", "lyric", "chorus", "repeat", "poem", "chant"], ascii_case_insensitive=True
)
_many = blank_but(pl.col("answer_count") >= 4 * _SENTENCES, "answer")

RULES: list[Rule] = [
    review(
        "repeated_characters",
        _answer.map_batches(_long_runs, return_dtype=pl.Boolean),
        shown(_piece(_CHAR_RUN)),
        origin="data-juicer: character repetition",
        python=True,
        hit=Example(answer="It was sooooooooooooooooo long."),
        near=Example(answer="It was sooooooo long, 0.333333333333333 of a day. ____________________"),
    ),
    review(
        "repeated_words",
        pl.col("answer").map_batches(_loops, return_dtype=pl.Boolean) & _sung,
        shown(_piece(_WORD_RUN)),
        origin="open-instruct: n-gram repetition",
        python=True,
        hit=Example(answer="The bay is very very very very very very wide."),
        near=Example(answer="The bay is very very very wide, and 0 0 0 0 0 0 0 0 boats are there."),
    ),
    review(
        "repeated_sentences",
        _repeats(_many) & _sung,
        shown("answer"),
        origin="open-instruct: sentence repetition",
        hit=Example(answer="It rains in the bay. We wait for it. " * 5),
        near=Example(answer="It rains in the bay. We wait for it. " * 4),
    ),
]
