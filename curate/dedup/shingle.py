"""Shingles: a text as the set of its word n-grams, each n-gram a 64-bit hash.

Words are hashed once each and n-grams are rolled from word hashes, so a text is an array of integers from here on;
64 bits make the Jaccard similarity of two sets exact for all purposes (the chance that any two of a billion n-grams
share a hash is 3%, and such a pair would move one similarity by a fraction of a percent).
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, the multiplier of Fibonacci hashing
_HALF = np.uint64(32)


@dataclass(frozen=True)
class Words:
    """The word hashes of many texts, end to end: text i is `values[starts[i]:starts[i + 1]]`."""

    values: Hashes
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def of(self, i: int) -> Hashes:
        """Give the word hashes of text i, in reading order."""
        return self.values[self.starts[i] : self.starts[i + 1]]


def word_hashes(keys: pl.Series) -> Words:
    """Hash the words of texts in key form (`curate.key.key_text`: lower case, single spaces)."""
    lists = keys.str.split(" ").list.filter(pl.element() != "")
    words = lists.explode(empty_as_null=False, keep_nulls=False).alias("word")
    distinct = words.unique()
    raw = b"".join(hashlib.blake2b(word.encode(), digest_size=8).digest() for word in distinct)
    table = pl.DataFrame({"word": distinct, "hash": np.frombuffer(raw, "<u8").astype(np.uint64)})
    values = words.to_frame().join(table, on="word", how="left", maintain_order="left")["hash"].to_numpy()
    starts = np.concatenate([[0], np.cumsum(lists.list.len().to_numpy())]).astype(np.int64)
    return Words(values, starts)


def join_words(parts: list[Words]) -> Words:
    """Put the texts of several parts one after the other."""
    sizes = [np.diff(part.starts) for part in parts]
    starts = np.concatenate([[0], np.cumsum(np.concatenate([np.zeros(0, np.int64), *sizes]))]).astype(np.int64)
    return Words(np.concatenate([np.zeros(0, np.uint64), *(part.values for part in parts)]), starts)


def shingles(words: Hashes, ngram: int) -> Hashes:
    """Give the set of n-grams of a text as a sorted array; n = min(ngram, number of words); empty without words."""
    n = min(ngram, len(words))
    if n == 0:
        return words
    rolled = np.zeros(len(words) - n + 1, np.uint64)
    for k in range(n):
        rolled = (rolled ^ words[k : k + len(rolled)]) * _MIX
        rolled ^= rolled >> _HALF
    return np.unique(rolled)


def jaccard(one: Hashes, other: Hashes) -> float:
    """Give the Jaccard similarity of two sets, exactly; two empty sets are alike."""
    if not len(one) and not len(other):
        return 1.0
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)
