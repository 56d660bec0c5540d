"""Buckets: the rows that share a band, and so may be alike.

Rows go by rank, their place in the order of preference. Most rows share a band with no other; what follows is made for
those alone that do.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curate.dedup.scratch import Scratch

_32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
NONE = -1


@dataclass(frozen=True)
class Buckets:
    """Which members share which bands.

    `ranks`: (members,), ascending. `of`: (members, bands), the bucket of each member by band, or NONE. `starts`:
    (buckets,), where each bucket begins in an array of `slots`.
    """

    ranks: NDArray[np.uint32]
    of: NDArray[np.int32]
    starts: NDArray[np.int64]
    slots: int


def shared(hashes: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Give the ranks of rows that share a hash with another, bucket by bucket, and the sizes of the buckets.

    `hashes`: by rank, 0 for none.
    """
    keys = hashes.astype(np.uint64) << _32
    keys |= np.arange(len(hashes), dtype=np.uint64)
    keys = keys[hashes != 0]
    keys.sort()
    high = keys >> _32
    first = np.ones(len(keys), bool)
    first[1:] = high[1:] != high[:-1]
    alone = first.copy()
    alone[:-1] &= first[1:]
    sizes = np.diff(np.flatnonzero(first), append=len(keys))
    return (keys[~alone] & _LOW).astype(np.uint32), sizes[sizes > 1].astype(np.uint32)


def find_buckets(
    columns: Sequence[Callable[[], NDArray[np.uint32]]], rows: int, scratch: Scratch, workers: Executor
) -> Buckets:
    """Find the buckets of all bands. Each column gives a band's hashes by rank when it is called."""

    def of_band(column: Callable[[], NDArray[np.uint32]]) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        ranks, sizes = shared(column())
        return scratch.keep(ranks), scratch.keep(sizes)

    found = list(workers.map(of_band, columns))
    mine = np.zeros(rows, bool)
    for ranks, _ in found:
        mine[ranks] = True
    member = np.cumsum(mine, dtype=np.int64)
    member -= 1
    members = int(member[-1]) + 1 if rows else 0
    of = scratch.empty((members, len(columns)), np.int32)
    of[...] = NONE
    starts: list[NDArray[np.int64]] = []
    buckets = slots = 0
    for band, (ranks, sizes) in enumerate(found):
        of[member[ranks], band] = np.repeat(np.arange(buckets, buckets + len(sizes), dtype=np.int32), sizes)
        starts.append(np.cumsum(sizes, dtype=np.int64) - sizes + slots)
        buckets += len(sizes)
        slots += len(ranks)
    return Buckets(np.flatnonzero(mine).astype(np.uint32), of, np.concatenate([np.zeros(0, np.int64), *starts]), slots)
