"""Bands: MinHash signatures, cut into bands, find the pairs that may be alike (datasketch's MinHashLSH).

A pair of similarity s agrees in all r values of a band with probability s^r, so b bands find it with probability
1 - (1 - s^r)^b. The bands are chosen for recall at the threshold; what they find is only a candidate. datasketch's own
choice balances false positives against false negatives, and at 0.9 misses two thirds of the pairs at the threshold.
"""

from collections.abc import Iterable, Iterator
from typing import cast

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray

from curate.dedup.shingle import Hashes
from schemas.errors import ConfigError

Signature = NDArray[np.uint32]
"""The minima of one row: shape (num_perm,)."""

_LOW = np.uint64(0xFFFFFFFF)


def band_recall(similarity: float, bands: int, rows: int) -> float:
    """Give the probability that a pair of this similarity shares at least one band (Leskovec et al., MMDS 3.4)."""
    return 1.0 - (1.0 - similarity**rows) ** bands


def choose_bands(threshold: float, recall: float, num_perm: int) -> tuple[int, int]:
    """Give (bands, rows per band): the longest bands that still find `recall` of the pairs at the threshold.

    Long bands let few other pairs through. All permutations are used. Raises ConfigError where even bands of one row
    find too little.
    """
    for rows in range(num_perm // 2, 0, -1):  # datasketch wants two bands at least
        bands = num_perm // rows
        if band_recall(threshold, bands, rows) >= recall:
            return bands, rows
    raise ConfigError(
        f"dedup: recall {recall:g} at threshold {threshold:g}",
        f"not possible with {num_perm} permutations",
        remedy="raise num_perm or the threshold",
    )


def signatures(sets: Iterable[Hashes], num_perm: int, seed: int) -> Iterator[Signature]:
    """Give the MinHash signatures of sets of n-grams: datasketch's affine32 scheme over the low half of each hash."""
    low = ((grams & _LOW).tolist() for grams in sets)
    for made in MinHash.generator(low, num_perm=num_perm, seed=seed, hashfunc=int):
        yield made.hashvalues


class Candidates:
    """An index of signatures by band; grows while rows are kept."""

    def __init__(self, bands: int, rows: int, num_perm: int) -> None:
        self._index = MinHashLSH(params=(bands, rows), num_perm=num_perm)
        self._probe = MinHash(num_perm=num_perm)  # one object for all signatures: making one costs more than a query

    def add(self, number: int, signature: Signature) -> None:
        """Add a row by its number."""
        self._probe.hashvalues = signature
        self._index.insert(number, self._probe, check_duplication=False)

    def near(self, signature: Signature) -> list[int]:
        """Give the numbers of the rows that share a band, in order."""
        self._probe.hashvalues = signature
        found = cast("list[int]", self._index.query(self._probe))
        return sorted(found)
