"""Sketches: what is kept of a row's text to find its like: MinHash bands and hashes of whole texts. Compiled.

Signatures are datasketch's: its permutations, its affine32 scheme (`a*h + b mod 2^32` over a MurmurHash3 finaliser of
the low half of each n-gram's hash), bit for bit. A signature lives as long as its row is worked on: what stays is a
hash for each band. Three texts of a row are sketched:

    exchange   what is asked and answered, without the material; the whole record where that is compared alone
    asked      what is asked
    answer     what is answered

A text whose part is empty falls back on the wider one: no question, on the prompt; no words in the exchange, on the
record.
"""

# pyright: reportMissingParameterType=false, reportUnknownParameterType=false
# compiled functions take the types of their arguments at the call; those that Python code calls are typed.

from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from datasketch import MinHash
from numpy.typing import NDArray

from curate.dedup.compiled import compiled, inlined
from curate.dedup.letters import letters
from curate.dedup.texts import Texts
from curate.dedup.words import ASSISTANT, MATERIAL, USER, fold, has_material, read_row, roll, row_bytes
from schemas.config import DedupConfig

PARTS = ("exchange", "asked", "answer")

_FULL = np.uint32(0xFFFFFFFF)
_16, _13 = np.uint32(16), np.uint32(13)
_C1, _C2 = np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)
_32 = np.uint64(32)
_BANDS = np.uint64(0x9E3779B97F4A7C15)
CHUNK_ROWS = 4096
"""Rows that a thread takes at a time."""


class Permutations(NamedTuple):
    """datasketch's permutations: odd multipliers and offsets, uint32, (num_perm,) each."""

    a: NDArray[np.uint32]
    b: NDArray[np.uint32]


def permutations(num_perm: int, seed: int) -> Permutations:
    """Take the permutations from datasketch itself."""
    drawn: Any = MinHash(num_perm=num_perm, seed=seed).permutations
    return Permutations(np.asarray(drawn[0], np.uint32), np.asarray(drawn[1], np.uint32))


@dataclass(frozen=True)
class Sketches:
    """The sketches of rows, column by column; each array has one entry for each row.

    `bands`: (parts * bands, rows), 0 where a row has too few words. `key_hi`, `key_lo`: a hash of the whole record.
    """

    bands: NDArray[np.uint32]
    key_hi: NDArray[np.uint64]
    key_lo: NDArray[np.uint64]
    words: NDArray[np.uint32]
    answer_chars: NDArray[np.uint32]

    @classmethod
    def empty(cls, rows: int, bands: int, parts: int) -> "Sketches":
        """Make room for the sketches of rows."""
        return cls(
            np.zeros((parts * bands, rows), np.uint32),
            np.zeros(rows, np.uint64),
            np.zeros(rows, np.uint64),
            np.zeros(rows, np.uint32),
            np.zeros(rows, np.uint32),
        )


@inlined
def _finalise(h):
    h ^= h >> _16
    h = np.uint32(h * _C1)
    h ^= h >> _13
    h = np.uint32(h * _C2)
    return h ^ (h >> _16)


@inlined
def _hash(words, at, n):
    """Give the hash of an n-gram as the permutations take it: 32 bits, finalised."""
    return _finalise(np.uint32(roll(words, at, n) & np.uint64(0xFFFFFFFF)))


@inlined
def _permuted(a, b, h):
    return np.uint32(np.uint32(a * h) + b)


@compiled
def _minima(words, start, stop, n, a, b, minima):
    """Lower the minima by the n-grams that begin in [start, stop), four at a time: each is fetched less often."""
    at = start
    while at + 4 <= stop:
        h, i, j, k = _hash(words, at, n), _hash(words, at + 1, n), _hash(words, at + 2, n), _hash(words, at + 3, n)
        for p in range(len(a)):
            low = min(_permuted(a[p], b[p], h), _permuted(a[p], b[p], i))
            other = min(_permuted(a[p], b[p], j), _permuted(a[p], b[p], k))
            minima[p] = min(minima[p], min(low, other))  # noqa: PLW3301 # flat, it is not compiled to vector code
        at += 4
    while at < stop:
        h = _hash(words, at, n)
        for p in range(len(a)):
            minima[p] = min(minima[p], _permuted(a[p], b[p], h))
        at += 1


@compiled
def _sketch(words, start, stop, ngram, a, b, minima):
    """Fill `minima` with the signature of the words [start, stop)."""
    minima[:] = _FULL
    n = min(ngram, stop - start)
    if n:
        _minima(words, start, stop - n + 1, n, a, b, minima)


@compiled
def _band(minima, bands, band_rows, column, i, out):
    """Write the hash of each band of a signature: never 0."""
    for band in range(bands):
        h = _BANDS + np.uint64(band)
        for k in range(band * band_rows, (band + 1) * band_rows):
            h = (h ^ np.uint64(minima[k])) * _BANDS
            h ^= h >> _32
        out[column + band, i] = max(np.uint32(1), np.uint32(h >> _32))


@compiled
def _sketch_rows(
    addresses, segment, index, first, last, ngram, a, b, bands, band_rows, whole, kinds, folds,
    out, key_hi, key_lo, n_words, answer_chars, at,
):  # fmt: skip
    """Sketch rows [first, last) into the columns from `at` on."""
    words = np.empty(1 << 12, np.uint64)
    prompt, answer, both = np.empty_like(a), np.empty_like(a), np.empty_like(a)
    for row in range(first, last):
        i = at + row - first
        place, r = addresses[segment[row]], np.int64(index[row])
        room = 2 * row_bytes(place, r)
        if room > len(words):
            words = np.empty(2 * room, np.uint64)
        p, _ = read_row(place, r, USER | MATERIAL, kinds, folds, words, 0)
        w, chars = read_row(place, r, ASSISTANT, kinds, folds, words, p)
        key_hi[i], key_lo[i] = fold(words, p, w)
        n_words[i], answer_chars[i] = w, chars
        if w == 0:
            continue
        start, material = 0, has_material(place, r)
        end = w
        if material:  # what is asked and answered, once more, after the record
            start = w
            asked, _ = read_row(place, r, USER, kinds, folds, words, w)
            end, _ = read_row(place, r, ASSISTANT, kinds, folds, words, asked)
            if asked == w:  # nothing is asked: the prompt stands for it
                start, asked, end = 0, p, w
        else:
            asked = p
        _sketch(words, start, asked, ngram, a, b, prompt)
        if end > asked:
            _sketch(words, asked, end, ngram, a, b, answer)
        if whole and material:
            _sketch(words, 0, w, ngram, a, b, both)
        elif asked == end:
            both[:] = prompt
        elif asked - start >= ngram and end - asked >= ngram:  # the n-grams of both, and those that reach across
            both[:] = np.minimum(prompt, answer)
            _minima(words, asked - ngram + 1, asked, ngram, a, b, both)
        else:
            _sketch(words, start, end, ngram, a, b, both)
        _band(both, bands, band_rows, 0, i, out)
        if len(out) > bands and asked > start:
            _band(prompt, bands, band_rows, bands, i, out)
        if len(out) > bands and end - asked >= ngram:  # shorter ones ("Yes") are the same for no reason worth a report
            _band(answer, bands, band_rows, 2 * bands, i, out)


@compiled
def _sign_rows(addresses, segment, index, first, last, ngram, a, b, kinds, folds, out):
    words = np.empty(1 << 12, np.uint64)
    for row in range(first, last):
        place, r = addresses[segment[row]], np.int64(index[row])
        room = row_bytes(place, r)
        if room > len(words):
            words = np.empty(2 * room, np.uint64)
        count, _ = read_row(place, r, USER | MATERIAL, kinds, folds, words, 0)
        count, _ = read_row(place, r, ASSISTANT, kinds, folds, words, count)
        _sketch(words, 0, count, ngram, a, b, out[row])


def signatures(texts: Texts, config: DedupConfig) -> NDArray[np.uint32]:
    """Give the whole records' MinHash signatures: uint32, (rows, num_perm), equal to datasketch's."""
    out = np.empty((len(texts.segment), config.num_perm), np.uint32)
    place = texts.addresses, texts.segment, texts.index
    _sign_rows(*place, 0, len(out), config.ngram, *permutations(config.num_perm, config.seed), *letters(), out)
    return out


def sketch(
    texts: Texts,
    rows: range,
    config: DedupConfig,
    shape: tuple[int, int],
    workers: Executor,
    *,
    parts: int = len(PARTS),
) -> Sketches:
    """Sketch rows. `shape` is (bands, rows per band), `parts` is 1 for the first one alone."""
    first, last = rows.start, rows.stop
    bands, band_rows = shape
    made = Sketches.empty(last - first, bands, parts)
    columns = made.bands, made.key_hi, made.key_lo, made.words, made.answer_chars
    place = texts.addresses, texts.segment, texts.index
    a, b = permutations(config.num_perm, config.seed)
    tables, whole = letters(), config.compare == "record"

    def work(start: int) -> None:
        stop = min(start + CHUNK_ROWS, last)
        shape_of = config.ngram, a, b, bands, band_rows, whole
        _sketch_rows(*place, start, stop, *shape_of, *tables, *columns, start - first)

    for _ in workers.map(work, range(first, last, CHUNK_ROWS)):
        pass
    return made
