"""Walk: rows in order, each taken or left out by what was taken before it.

This is one decision after the other by nature, so it is a plain loop over numbers, less than a microsecond a row. Where
rows are compared by direction, the comparisons are made for blocks of rows at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

TAKEN, QUOTA, SIMILAR, BUDGET = range(4)

BLOCK_ROWS = 256
"""Rows that are compared at once with all that was taken."""

_SCALE = 10_000
"""Directions are rounded to ten-thousandths: products of whole numbers add up to the same sum in any order."""


@dataclass(frozen=True)
class Cap:
    """A bound on what may be taken of some rows: `most` of them, or of their cost."""

    members: NDArray[np.bool_]
    most: int
    by_cost: bool


@dataclass(frozen=True)
class Walk:
    """What became of each row. `which`: the cap that was full, or the row that it is too similar to; -1 for none.

    `similarity` with that row; NaN for none. `unknown`: rows that were taken and have no
    direction, so that nothing was compared with them.
    """

    reason: NDArray[np.uint8]
    which: NDArray[np.int64]
    similarity: NDArray[np.float64]
    unknown: int

    @property
    def taken(self) -> NDArray[np.bool_]:
        """Which rows were taken."""
        return self.reason == TAKEN

    @property
    def cut_off(self) -> bool:
        """Whether the budget ended the walk."""
        return bool((self.reason == BUDGET).any())


class Taken:
    """The directions of the rows that were taken, and the nearest of them to other rows."""

    def __init__(self, vectors: pl.Series) -> None:
        width = vectors.dtype.shape[0] if isinstance(vectors.dtype, pl.Array) else 0
        self._known = vectors.is_not_null().to_numpy()
        self._whole = np.zeros((len(vectors), width), np.float32)
        self._whole[self._known] = vectors.drop_nulls().to_numpy()
        self.unknown = 0
        self._rows: list[int] = []
        self._taken = np.zeros((BLOCK_ROWS, width))

    def _block(self, start: int) -> NDArray[np.float64]:
        return np.rint(self._whole[start : start + BLOCK_ROWS].astype(np.float64) * _SCALE)

    def reach(self, row: int) -> None:
        """Go on to a row; where a block of rows begins, compare it with all that was taken, and with itself."""
        if row % BLOCK_ROWS == 0:
            if row:
                self._close()
            self._open(row)

    def _open(self, start: int) -> None:
        self._start, block = start, self._block(start)
        self._within = block @ block.T
        self._own: list[int] = []
        self._best, self._at = np.full(len(block), -np.inf), np.full(len(block), -1)
        if self._rows:
            products = block @ self._taken[: len(self._rows)].T
            self._at = products.argmax(axis=1)
            self._best = products[np.arange(len(block)), self._at]

    def nearest(self, row: int) -> tuple[float, int]:
        """Give the similarity with the most similar row that was taken, and which one; (-inf, -1) for none."""
        if not self._known[row]:
            return -np.inf, -1
        i = row - self._start
        best, at = float(self._best[i]), int(self._at[i])
        nearest = self._rows[at] if at >= 0 else -1
        if self._own:
            among = self._within[i, self._own]
            if among.max() > best:
                best, nearest = float(among.max()), self._start + self._own[int(among.argmax())]
        return best / _SCALE**2, nearest

    def take(self, row: int) -> None:
        """Remember that a row was taken."""
        if self._known[row]:
            self._own.append(row - self._start)
        else:
            self.unknown += 1

    def _close(self) -> None:
        if not self._own:
            return
        added = self._block(self._start)[self._own]
        count = len(self._rows) + len(added)
        if count > len(self._taken):
            grown = np.zeros((2 * count, self._taken.shape[1]))
            grown[: len(self._rows)] = self._taken[: len(self._rows)]
            self._taken = grown
        self._taken[len(self._rows) : count] = added
        self._rows.extend(self._start + i for i in self._own)


def walk(
    costs: NDArray[np.int64],
    budget: int | None,
    caps: Sequence[Cap] = (),
    vectors: pl.Series | None = None,
    max_similarity: float = 1.0,
) -> Walk:
    """Take rows in order until the budget is spent; the first row that does not fit ends the walk.

    `vectors`: an array of unit length for each row (null: none), to leave out rows that are too similar.
    """
    n = len(costs)
    reason, which = np.full(n, BUDGET, np.uint8), np.full(n, -1, np.int64)
    similarity = np.full(n, np.nan)
    sets = sum((cap.members.astype(np.int64) << number for number, cap in enumerate(caps)), np.zeros(n, np.int64))
    caps_of = {bits: [c for c in range(len(caps)) if bits >> c & 1] for bits in np.unique(sets).tolist()}
    spent, used = 0, [0] * len(caps)
    taken = None if vectors is None else Taken(vectors)
    for row, (cost, bits) in enumerate(zip(costs.tolist(), sets.tolist(), strict=True)):
        own = caps_of[bits]
        near, at = -np.inf, -1
        if taken is not None:
            taken.reach(row)
            near, at = taken.nearest(row)
        full = next((c for c in own if used[c] + (cost if caps[c].by_cost else 1) > caps[c].most), None)
        if full is not None:
            reason[row], which[row] = QUOTA, full
        elif near > max_similarity:
            reason[row], which[row], similarity[row] = SIMILAR, at, near
        elif budget is not None and spent + cost > budget:
            break
        else:
            reason[row] = TAKEN
            spent += cost
            for c in own:
                used[c] += cost if caps[c].by_cost else 1
            if taken is not None:
                taken.take(row)
    return Walk(reason, which, similarity, taken.unknown if taken else 0)
