"""source_key: the name of a row within its source, unique even where ids or whole rows repeat.

A row is named by its own id, or by the hash of what it holds with the number of its occurrence (`HASH-1`, `HASH-2`).
An id that repeats is numbered from its second occurrence on (`ID`, `ID#2`). An id that looks like one of these itself
gets `#1` at once, so that no two rows can have the same key.

How often each name occurred is kept in sorted arrays: 12 bytes a name, so that memory stays small over 100M rows.
"""

import hashlib
from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

from curate.ingest.fields import NUMBERED, RAW_KEY
from schemas.record import raw_key

_CHUNK = 1 << 16


Name = tuple[str, bool]
"""What names a row before its occurrence is counted: its own id (True), or the hash of its content (False)."""


def content_name(text: str) -> Name:
    """Name a row by its content."""
    return raw_key(text, 1)[:-2], False


def own_name(key: str | int) -> Name:
    """Name a row by the id that its source gave it."""
    return str(key), True


def _is_odd(key: str) -> bool:
    return NUMBERED.fullmatch(key) is not None or RAW_KEY.fullmatch(key) is not None


def _key(text: str, own: bool, occurrence: int) -> str:
    if not own:
        return f"{text}-{occurrence}"
    return text if occurrence == 1 and not _is_odd(text) else f"{text}#{occurrence}"


def _named(key: str) -> tuple[str, bool, int]:
    """Take a source_key apart again."""
    if RAW_KEY.fullmatch(key):
        text, _, number = key.rpartition("-")
        return text, False, int(number)
    numbered = NUMBERED.fullmatch(key)
    return (numbered[1], True, int(numbered[2])) if numbered else (key, True, 1)


def _hash(text: str, own: bool) -> int:
    if not own:
        return int(text[:16], 16)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


class Keys:
    """Gives each row of a source its key. `seen` are the keys of the rows that the source has already."""

    def __init__(self, seen: Iterable[str] = ()) -> None:
        self._runs: list[tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32]]] = []
        self.repeated_ids = 0
        keys = iter(seen)
        while chunk := list(islice(keys, _CHUNK)):
            counts: dict[int, int] = {}
            for text, own, occurrence in map(_named, chunk):
                hashed = _hash(text, own)
                counts[hashed] = max(counts.get(hashed, 0), occurrence)
            self._remember(counts)

    def number(self, names: Sequence[str], own: Sequence[bool]) -> list[str]:
        """Give the keys of the next rows, in order. The two sequences hold their names."""
        hashes = np.fromiter(map(_hash, names, own), dtype=np.uint64, count=len(names))
        counts: dict[int, int] = {}
        keys: list[str] = []
        known = map(int, self._counts(hashes))
        for text, is_own, hashed, before in zip(names, own, map(int, hashes), known, strict=True):
            occurrence = counts.get(hashed, before) + 1
            counts[hashed] = occurrence
            keys.append(_key(text, is_own, occurrence))
            self.repeated_ids += is_own and occurrence > 1
        self._remember(counts)
        return keys

    def _counts(self, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint32]:
        found = np.zeros(len(hashes), dtype=np.uint32)
        for names, counts in self._runs:
            place = np.minimum(np.searchsorted(names, hashes), len(names) - 1)
            np.maximum(found, np.where(names[place] == hashes, counts[place], 0), out=found)
        return found

    def _remember(self, counts: dict[int, int]) -> None:
        """Add a sorted run, and merge runs of like size: there are never more than log2(rows) of them."""
        if not counts:
            return
        names = np.fromiter(counts.keys(), dtype=np.uint64, count=len(counts))
        order = np.argsort(names)
        self._runs.append((names[order], np.fromiter(counts.values(), dtype=np.uint32, count=len(counts))[order]))
        while len(self._runs) > 1 and len(self._runs[-2][0]) < 2 * len(self._runs[-1][0]):
            (a, a_counts), (b, b_counts) = self._runs.pop(), self._runs.pop()
            names = np.concatenate([a, b])
            order = np.argsort(names, kind="stable")
            names, values = names[order], np.concatenate([a_counts, b_counts])[order]
            first = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1]]))
            self._runs.append((names[first], np.maximum.reduceat(values, first)))
