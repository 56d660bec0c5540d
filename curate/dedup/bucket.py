"""Buckets: the rows that share a band, and so may be alike.

Rows go by rank, their place in the order of preference. Most rows share a band with no other; what follows is made for
those alone that do.
"""

# pyright: reportMissingParameterType=false, reportUnknownParameterType=false
# compiled functions take the types of their arguments at the call; those that Python code calls are typed.

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curate.dedup.compiled import compiled
from curate.dedup.scratch import Scratch

_32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_BITS_PER_ROW = 16
"""Of a bitmap: about one in 16 hashes passes without an equal one."""
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
    keys = _keys(hashes)
    keys.sort()
    return _runs(keys)


@compiled
def _keys(hashes):
    """Put each hash before its rank, so that sorting brings equal ones together and keeps the ranks in order.

    Most hashes occur once: two bitmaps, seen and seen again, leave nearly all of those out before anything is sorted.
    """
    bits = 1 << 16
    while bits < _BITS_PER_ROW * len(hashes):
        bits *= 2
    mask = np.uint32(bits - 1)
    once, again = np.zeros(bits // 8, np.uint8), np.zeros(bits // 8, np.uint8)
    repeated = 0
    for rank in range(len(hashes)):
        bit = hashes[rank] & mask
        place, flag = bit >> np.uint32(3), np.uint8(1 << (bit & np.uint32(7)))
        repeated += once[place] & flag != 0
        again[place] |= once[place] & flag
        once[place] |= flag
    keys = np.empty(len(hashes) if repeated else 0, np.uint64)
    count = 0
    for rank in range(len(keys)):
        bit = hashes[rank] & mask
        if hashes[rank] and again[bit >> np.uint32(3)] >> np.uint8(bit & np.uint32(7)) & 1:
            keys[count] = np.uint64(hashes[rank]) << _32 | np.uint64(rank)
            count += 1
    return keys[:count].copy()


@compiled
def _runs(keys):
    """Give the ranks that share their hash with a neighbour, and the lengths of the runs."""
    ranks, sizes = np.empty(len(keys), np.uint32), np.empty(len(keys) // 2 + 1, np.uint32)
    members = runs = start = 0
    for at in range(1, len(keys) + 1):
        if at < len(keys) and keys[at] >> _32 == keys[start] >> _32:
            continue
        if at - start > 1:
            for k in range(start, at):
                ranks[members] = np.uint32(keys[k] & _LOW)
                members += 1
            sizes[runs] = at - start
            runs += 1
        start = at
    return ranks[:members].copy(), sizes[:runs].copy()


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
