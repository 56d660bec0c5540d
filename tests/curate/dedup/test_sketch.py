"""Contracts of words and sketches: compiled code cuts and hashes as plain Python does, and signs as datasketch does."""

import unicodedata
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest
from datasketch import MinHash
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.dedup.band import band_recall, choose_bands
from curate.dedup.letters import ALONE, letters
from curate.dedup.plain import near_duplicates
from curate.dedup.sketch import Sketches, signatures, sketch
from curate.dedup.texts import texts_in_memory
from schemas.config import DedupConfig
from schemas.errors import ConfigError
from tests.curate.dedup.reference import alone, gram_hash, grams, jaccard, tokens, word_hash

ASSIGNED = st.characters(exclude_categories=["Cn", "Co", "Cs"])
UNICODE = st.text(ASSIGNED, max_size=60)
MIXED = st.lists(
    st.sampled_from(["Hello", "WORLD", "straße", "Ünïcode", "你好", "ไทย", "a+b", "==", "= =", "don't", "Σίσυφος"])
    | st.text(ASSIGNED, min_size=1, max_size=4)
).map(" ".join)
TEXTS = st.lists(UNICODE | MIXED, min_size=1, max_size=5)


def sketched(texts: list[str], *, ngram: int = 5, threads: int = 1) -> Sketches:
    config = DedupConfig(ngram=ngram)
    with ThreadPoolExecutor(threads) as workers:
        return sketch(texts_in_memory(pl.Series(texts, dtype=pl.String)), range(len(texts)), config, (21, 6), workers)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \t\n\u3000\u00a0", []),
        ("Hello, World!", ["hello", ",", "world", "!"]),
        ("a+b a - b", ["a", "+", "b", "a", "-", "b"]),
        ("x == y; x = = y", ["x", "==", "y", ";", "x", "=", "=", "y"]),
        ("-----\n---", ["-----", "---"]),
        ("naïve e\u0301tude", ["naïve", "e\u0301tude"]),  # marks belong to their letters
        ("soft\u00adhyphen zero\u200bwidth", ["softhyphen", "zero", "width"]),
        ("你好, world", ["你", "好", ",", "world"]),
        ("ภาษาไทย", list("ภาษาไทย")),
        ("カタカナ한국어 말", [*"カタカナ", "한국어", "말"]),
        ("ΣΊΣΥΦΟΣ Straße İ", ["σίσυφοσ", "straße", "i̇"[:0] + "İ"]),
    ],
)
def test_words_of_known_texts(text: str, words: list[str]) -> None:
    assert list(tokens(text)) == words
    assert sketched([text]).words.tolist() == [len(words)]


def test_scripts_without_spaces_are_those_of_their_names() -> None:
    kinds = letters().kinds
    written = [chr(p) for p in range(len(kinds)) if unicodedata.category(chr(p))[0] in "LMN"]
    assert [c for c in written if kinds[ord(c)] == ALONE] == [c for c in written if alone(c)]


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.integers(1, 7))
def test_signatures_are_datasketchs(texts: list[str], ngram: int) -> None:
    """The same 32-bit n-gram hashes give, bit for bit, the signature that datasketch gives."""
    config = DedupConfig(ngram=ngram, seed=7, num_perm=64)
    made = signatures(texts_in_memory(pl.Series(texts, dtype=pl.String)), config)
    for row, text in enumerate(texts):
        words = [word_hash(token) for token in tokens(text)]
        reference = MinHash(num_perm=64, seed=7, hashfunc=int)
        n = min(ngram, len(words))
        reference.update_batch(
            [gram_hash(words[i : i + n]) & 0xFFFFFFFF for i in range(len(words) - n + 1 if n else 0)]
        )
        assert made[row].tolist() == reference.hashvalues.tolist()


@settings(max_examples=150, deadline=None)
@given(MIXED, MIXED, st.integers(1, 6))
def test_the_similarity_is_that_of_word_ngrams(one: str, other: str, n: int) -> None:
    a, b = (grams(list(tokens(text)), n) for text in (one, other))
    found = near_duplicates(pl.Series([one, other]), DedupConfig(ngram=n, threshold=0.05))
    expected = jaccard(a, b)
    if not found.height:
        assert expected < 0.9  # a pair this far above the threshold is never missed
    else:
        assert found.rows() == [(1, 0, expected)]


def test_the_number_of_threads_changes_nothing() -> None:
    texts = [f"row {i} says {i * i} things" for i in range(20_000)]
    one, two = sketched(texts), sketched(texts, threads=3)
    assert all(np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(two).values(), strict=True))


# bands ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("threshold", "bands"), [(0.9, (12, 10)), (0.8, (21, 6)), (0.7, (32, 4)), (0.5, (42, 3)), (1.0, (2, 64))]
)
def test_bands_are_the_longest_that_find_99_of_100_pairs(threshold: float, bands: tuple[int, int]) -> None:
    assert choose_bands(threshold, 0.99, 128) == bands
    assert band_recall(threshold, *bands) >= 0.99
    longer = bands[1] + 1
    assert longer > 64 or band_recall(threshold, 128 // longer, longer) < 0.99


def test_bands_that_cannot_reach_the_recall_are_an_error_with_a_remedy() -> None:
    with pytest.raises(ConfigError, match="num_perm"):
        choose_bands(0.05, 0.999, 16)


def test_bands_find_pairs_at_the_threshold_as_often_as_asked() -> None:
    """300 pairs of random words with a similarity of 0.8: 98% ± 3 standard deviations (2.4%) share a band."""
    draw = np.random.default_rng(7)
    texts: list[str] = []
    for _ in range(300):
        words = [f"w{n}" for n in draw.integers(0, 1 << 60, 99)]
        texts += [" ".join(words[:88]), " ".join(words[11:])]
    bands = sketched(texts, ngram=1).bands[:21]
    assert jaccard(*(grams(text.split(), 1) for text in texts[:2])) == pytest.approx(0.8, abs=0.03)
    found = sum(bool((bands[:, i] == bands[:, i + 1]).any()) for i in range(0, len(texts), 2))
    assert found >= 300 * 0.98 - 6
