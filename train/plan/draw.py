"""Chance without a state: what is drawn for a record follows from its key, the seed, the epoch and the purpose alone.

So a run draws the same on every machine and in every order in which records come in. A record of weight 1.5 is seen
once in every round and a second time in every other one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count
from typing import Protocol

import numpy as np
import numpy.typing as npt

EMPTY_ROUNDS = 1000
"""Weights whose sum sees no record in this many rounds are a mistake: a plan of so many steps would never be full."""

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2**64 divided by the golden ratio, as splitmix64 has it: multiples of it are far apart."""


class Columns(Protocol):
    """What a plan needs to know of E records; `Tokens` are such columns."""

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each record, (E,)."""
        ...

    @property
    def keys(self) -> npt.NDArray[np.uint64]:
        """What stands for each record's id in draws, (E,)."""
        ...

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """How often each record is seen per epoch, (E,)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Records to draw from, in an order of their own: by key. `index` says which of the given records each is."""

    index: npt.NDArray[np.int64]  # (E,)
    lengths: npt.NDArray[np.int64]  # (E,)
    keys: npt.NDArray[np.uint64]  # (E,)
    weights: npt.NDArray[np.float64]  # (E,)

    @classmethod
    def of(cls, columns: Columns) -> "Pool":
        """Bring records into the order that does not depend on how they came in."""
        index = np.argsort(columns.keys)
        keys = columns.keys[index]
        if (keys[1:] == keys[:-1]).any():  # hardly ever; and three columns take three times as long
            index = np.lexsort((columns.weights, columns.lengths, columns.keys))
        return cls(index, columns.lengths[index], columns.keys[index], columns.weights[index])

    def __len__(self) -> int:
        return len(self.index)

    def joined(self, other: "Pool") -> "Pool":
        """Put the records of another pool behind these; their indices follow these too."""
        return Pool(
            np.concatenate([self.index, len(self) + other.index]),
            np.concatenate([self.lengths, other.lengths]),
            np.concatenate([self.keys, other.keys]),
            np.concatenate([self.weights, other.weights]),
        )

    def round(self, *what: object) -> npt.NDArray[np.int64]:
        """Draw an order of every copy of every record that one round sees: places in the pool."""
        whole = np.floor(self.weights)
        # A draw in [0, 1) that every round makes anew: over many rounds a weight of 1.5 is one and a half times.
        extra = (draw(self.keys, "weight", *what) >> np.uint64(11)) * 2.0**-53 < self.weights - whole
        copies = whole.astype(np.int64) + extra
        seen = np.repeat(np.arange(len(copies)), copies)
        copy = np.arange(len(seen)) - np.repeat(np.cumsum(copies) - copies, copies)
        return seen[np.argsort(draw(self.keys[seen] + copy.astype(np.uint64) * GOLDEN, "order", *what), kind="stable")]

    def endless(self, *what: object) -> Iterator[npt.NDArray[np.int64]]:
        """Draw round after round. Raises ValueError where next to none of them would see a record."""
        if not self.weights.sum() * EMPTY_ROUNDS >= 1:
            raise ValueError(f"nothing to plan: the weights are so small that {EMPTY_ROUNDS} epochs see no record")
        return (self.round(*what, number) for number in count())


def draw(keys: npt.NDArray[np.uint64], *what: object) -> npt.NDArray[np.uint64]:
    """Draw 64 bits for each key and this purpose: splitmix64's mixing, which maps no two keys to one value."""
    purpose = blake2b("\0".join(map(str, what)).encode(), digest_size=8).digest()
    return _mix(_mix(keys) ^ np.uint64(int.from_bytes(purpose, "little")))


def _mix(bits: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Mix 64 bits so that each depends on all (splitmix64: Steele, Lea, Flood 2014)."""
    mixed = bits + GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
