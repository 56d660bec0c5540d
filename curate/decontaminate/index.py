"""The index: n-grams of the evaluation items, and which of them may start a comparison.

The size of an n-gram goes by the item: 2 words for items under 10, 3 under 20, 5 under 40, the configured 8 from there
on. With a tenth of the words changed, an item keeps a run of that many words in nearly every case (20 words, 2 changed:
the longest of the three runs has 6 or more; 40 words, 4 changed: 8 or more), and one is enough to be looked at.

An n-gram that stands in many items ("which of the following is") starts nothing, since it says nothing about any of
them; an item that has only such keeps its rarest ones, so that every item can be found.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.decontaminate.overlap import (
    WHOLE_WORDS,
    Lookup,
    Memory,
    cut_texts,
    fill_table,
    hash_texts,
    list_grams,
    mark_beginnings,
)
from curate.dedup.letters import IGNORED, SPACE, SYMBOL, Letters, letters
from curate.dedup.texts import texts_in_memory
from schemas.config import DecontaminateConfig

SIZES = ((10, 2), (20, 3), (40, 5))
"""Words of an item below which its n-grams have so many words."""
LEAST_COMMON = 10
"""N-grams in so many items are never too common to start a comparison: in a small set, a share of them is nothing."""
SPARED = 3
"""N-grams that an item keeps though they stand in many items."""
SHORT_COVERAGE = 0.75
"""Share of its words that a short item needs: half of one is a phrase that anybody may write."""
TELLING_WORDS = 8
"""Words in common that tell by themselves, where they are the share that is asked for (Tülu 3 matches 8-grams)."""

_INSIDE_WORDS = "'’ʼ`´-‐‑"
"""Apostrophes and hyphens join what stands around them: "don't", "well-known"."""
_CHUNK = 8_192


@dataclass(frozen=True)
class Index:
    """The items that are searched for. `texts` has one line for each different text, `names` the items that have it.

    `texts`: text, words, size (of its n-grams). `names`: number (of the text), eval, item. `short`: the items
    with too few words to be searched for: eval, item.
    """

    lookup: Lookup
    letters: Letters
    texts: pl.DataFrame
    names: pl.DataFrame
    short: pl.DataFrame

    @property
    def grams(self) -> int:
        """How many different n-grams there are."""
        return len(self.lookup.posted) - 1

    def memory(self) -> Memory:
        """Make the working memory of one thread: 8 bytes for each n-gram, 24 for each item."""
        items = self.texts.height
        return Memory(
            np.zeros(1, np.int64),
            np.zeros(self.grams, np.uint32),
            np.zeros(self.grams, np.uint32),
            np.zeros(items, np.int64),
            np.zeros(items, np.int64),
            np.zeros(items, np.int64),
        )


def plain_letters() -> Letters:
    """Give the letters of dedup with punctuation left out: symbols part words, apostrophes and hyphens do not."""
    kinds, folds = letters()
    kinds = np.where(kinds == SYMBOL, np.uint8(SPACE), kinds)
    kinds[[ord(c) for c in _INSIDE_WORDS]] = IGNORED
    return Letters(kinds, folds)


def need_of(words: NDArray[np.int64], coverage: float) -> NDArray[np.int64]:
    """Give how many words prompts and responses must share with items of so many: (items, 2).

    In general `coverage` of them. Short items need more, up to TELLING_WORDS: in a prompt SHORT_COVERAGE of their
    words, in a response all, since answers are full of short questions and phrases that were never copied. Items of
    WHOLE_WORDS or fewer need all.
    """
    share = np.ceil(coverage * words - 1e-9).astype(np.int64)
    short = np.where(words <= WHOLE_WORDS, 1.0, SHORT_COVERAGE)
    asked = np.minimum(np.ceil(short * words - 1e-9).astype(np.int64), TELLING_WORDS)
    return np.stack([np.maximum(share, asked), np.maximum(share, np.minimum(words, TELLING_WORDS))], axis=1)


def build_index(items: pl.DataFrame, config: DecontaminateConfig) -> Index:
    """Make the index of items. Reads: eval, item, text. Texts that are equal after case and punctuation are one."""
    known = plain_letters()
    flat, starts = _cut(items["text"], known)
    hashes = np.zeros(items.height, np.uint64)
    hash_texts(flat, starts, hashes)
    all_items = items.with_columns(words=np.diff(starts), hash=hashes)
    long_enough = pl.col("words") >= config.min_words
    searched = all_items.filter(long_enough)
    texts = searched.unique("hash", keep="first", maintain_order=True).with_row_index("number")
    names = searched.join(texts.select("number", "hash"), on="hash", maintain_order="left")
    flat, starts = _cut(texts["text"], known)
    size = np.full(texts.height, config.ngram, np.int64)
    for below, n in reversed(SIZES):
        size[texts["words"].to_numpy() < below] = min(n, config.ngram)
    lookup = _lookup(flat, starts, size, config)
    return Index(
        lookup,
        known,
        texts.select("text", "words", size=pl.Series(size)),
        names.select("number", "eval", "item"),
        all_items.filter(~long_enough).select("eval", "item"),
    )


def _cut(texts: pl.Series, known: Letters) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Cut texts into word hashes, some thousand texts at a time: (all words, where each text's words begin)."""
    parts: list[NDArray[np.uint64]] = []
    starts = np.zeros(len(texts) + 1, np.int64)
    for at in range(0, len(texts), _CHUNK):
        some = texts.slice(at, _CHUNK)
        places = texts_in_memory(some.rechunk())
        words = np.zeros(int(some.str.len_bytes().sum()) + 1, np.uint64)
        bounds = np.zeros(len(some) + 1, np.int64)
        count = cut_texts(places.addresses, places.segment, places.index, known.kinds, known.folds, words, bounds)
        starts[at + 1 : at + len(some) + 1] = starts[at] + bounds[1:]
        parts.append(words[:count].copy())
    return np.concatenate([np.zeros(0, np.uint64), *parts]), starts


def _lookup(
    words: NDArray[np.uint64], starts: NDArray[np.int64], size: NDArray[np.int64], config: DecontaminateConfig
) -> Lookup:
    grams = np.zeros(len(words), np.uint64)
    owners, places = np.zeros(len(words), np.int32), np.zeros(len(words), np.int32)
    count = list_grams(words, starts, size, grams, owners, places)
    entries = pl.DataFrame({"gram": grams[:count], "item": owners[:count], "place": places[:count]})
    entries = entries.unique(["gram", "item"], keep="first", maintain_order=True)
    entries = entries.with_columns(items=pl.len().over("gram"))
    rank = pl.col("items").rank("ordinal").over("item")
    most = max(config.common_items * len(size), LEAST_COMMON)
    entries = entries.filter((pl.col("items") <= most) | (rank <= SPARED)).sort("gram", "item")
    starting = entries["gram"].rle()
    distinct = starting.struct.field("value").to_numpy()
    posted = np.concatenate([[0], np.cumsum(starting.struct.field("len").to_numpy())]).astype(np.int64)
    keys = np.zeros(_power(2 * len(distinct)), np.uint64)
    numbers = np.full(len(keys), -1, np.int32)
    bits = np.zeros(_power(16 * len(distinct)) // 64, np.uint64)
    fill_table(distinct, keys, numbers, bits)
    owners, places, sizes = entries["item"].to_numpy(), entries["place"].to_numpy(), np.unique(size)
    mark_beginnings(words, starts, owners, places, size, sizes, bits)
    return Lookup(
        sizes=sizes,
        keys=keys,
        numbers=numbers,
        bits=bits,
        short=bool((np.diff(starts) <= WHOLE_WORDS).any()),
        posted=posted,
        owners=owners,
        places=places,
        words=words,
        starts=starts,
        need=need_of(np.diff(starts), config.coverage),
    )


def _power(least: int) -> int:
    """Give the power of two that is `least` or more, and 64 or more."""
    return 1 << max(6, (least - 1).bit_length())
