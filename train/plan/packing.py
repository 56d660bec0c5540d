"""Which lengths lie together in rows of a fixed size: best fit, longest first, over how many there are of each length.

    lengths   9 7 7 5 3 3 2 1        rows of 12, filled best fit

    rows      9 3     7 5     7 3 2     1
    room      0       0       0         11

A row is the same to the packing whichever records of those lengths it holds. So equal rows are kept as one pattern and
a count, and all records of one length are placed at once: a million lengths take as long as a thousand.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class Packing:
    """Rows of lengths, end to end. Lengths: R records, P rows."""

    lengths: npt.NDArray[np.int64]  # (R,) what each slot holds, longest first within a row
    bounds: npt.NDArray[np.int64]  # (P + 1,) where each row begins among the slots, and the end

    def deal(self, longest_first: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Give each slot one of the records, (R,). They come longest first; equal ones fill slots in their order."""
        dealt = np.empty_like(longest_first)
        dealt[np.argsort(-self.lengths, kind="stable")] = longest_first
        return dealt


@dataclass(frozen=True, slots=True)
class _Pattern:
    """What a row holds: `count` records of `length` after what `before` holds."""

    length: int
    count: int
    before: "_Pattern | None"

    def lengths(self) -> npt.NDArray[np.int64]:
        parts: list[tuple[int, int]] = []
        at: _Pattern | None = self
        while at is not None:
            parts.append((at.length, at.count))
            at = at.before
        return np.repeat([length for length, _ in reversed(parts)], [count for _, count in reversed(parts)])


def fill(lengths: npt.NDArray[np.int64], max_tokens: int) -> Packing:
    """Fill rows of `max_tokens` best fit, longest first. Raises ValueError for a length that no row holds, or below 1.

    Best fit gives a length to the row with the least room that holds it, and opens a new row where there is none. A row
    that took one record of a length is the best fit for the next of it, so it takes as many as it can.
    """
    if len(lengths) and not 1 <= lengths.min() <= lengths.max() <= max_tokens:
        found = int(lengths.max() if lengths.max() > max_tokens else lengths.min())
        raise ValueError(f"a record has {found} tokens, a row holds 1 to {max_tokens}")
    counts = np.bincount(lengths, minlength=1)
    by_room: dict[int, list[tuple[_Pattern, int]]] = {}
    rooms: list[int] = []  # the distinct amounts of room, sorted

    def put(pattern: _Pattern, room: int, rows: int) -> None:
        if not rows:
            return
        if room not in by_room:
            by_room[room] = []
            insort(rooms, room)
        by_room[room].append((pattern, rows))

    for length in map(int, np.flatnonzero(counts)[::-1]):
        left = int(counts[length])
        while left:
            at = bisect_left(rooms, length)
            room = rooms[at] if at < len(rooms) else max_tokens
            before, rows = by_room[room].pop() if at < len(rooms) else (None, left)
            if at < len(rooms) and not by_room[room]:
                del by_room[room], rooms[at]
            each = room // length
            whole = min(rows, left // each)
            rest = left - whole * each if whole < rows else 0  # fewer than one more row takes
            put(_Pattern(length, each, before), room - each * length, whole)
            if rest:
                put(_Pattern(length, rest, before), room - rest * length, 1)
            if before is not None:
                put(before, room, rows - whole - (rest > 0))
            left -= whole * each + rest
    groups = [(pattern.lengths(), rows) for room in rooms for pattern, rows in by_room[room]]
    sizes = np.repeat([len(row) for row, _ in groups], [rows for _, rows in groups]).astype(np.int64)
    return Packing(
        np.concatenate([np.zeros(0, np.int64), *(np.tile(row, rows) for row, rows in groups)]),
        np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)]),
    )


def pack(lengths: npt.ArrayLike, max_tokens: int) -> list[tuple[int, ...]]:
    """Pack records into rows of their indices; equal lengths in the order in which they come. Raises as `fill`."""
    tokens = np.asarray(lengths, np.int64)
    packing = fill(tokens, max_tokens)
    dealt: list[int] = packing.deal(np.argsort(-tokens, kind="stable")).tolist()
    bounds: list[int] = packing.bounds.tolist()
    return [tuple(dealt[start:end]) for start, end in pairwise(bounds)]
