"""Neighbours: for every vector the one that points most nearly its way, and all pairs above a threshold. Exact.

Vectors are whole numbers: a unit vector times SCALE, rounded. A product of two such vectors is a sum of whole numbers
that never leaves ±2^24, so 32-bit floats hold every partial sum exactly, in whatever order it is made: the matrix
product gives the same numbers on every machine, with any number of threads, block by block or at once. Rounding moves
a cosine by about 0.0001. Each pair of blocks is multiplied once and serves the rows of both.
"""

# pyright: reportMissingParameterType=false, reportUnknownParameterType=false
# compiled functions take the types of their arguments at the call; those that Python code calls are typed.

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from curate.dedup.compiled import compiled

SCALE = 4000
"""Length of a vector before rounding: the largest round number whose square stays below 2^24, with room for rounding in
up to 30,000 dimensions."""

LARGEST = 1 << 24
"""Whole numbers up to this one are exact in 32-bit floats."""

BLOCK = 1024
"""Vectors of a block: the product of two blocks takes 4 MB, which a processor's cache holds."""

MOST_PAIRS = 20_000_000
"""Pairs that are kept, 12 bytes each; more are counted only."""

NONE = -1


@dataclass(frozen=True)
class Neighbours:
    """What was found among vectors, by position.

    `nearest`, `similarity`: the nearest other vector (of equals, the first; NONE where there is no other), and the
    cosine with it. `first`, `second`, `cosine`: the pairs at or above the threshold, at most MOST_PAIRS of `pairs`.
    """

    nearest: NDArray[np.int64]
    similarity: NDArray[np.float32]
    first: NDArray[np.int32]
    second: NDArray[np.int32]
    cosine: NDArray[np.float32]
    pairs: int


def whole_numbers(vectors: NDArray[np.float32]) -> NDArray[np.int16]:
    """Give unit vectors (rows) as whole numbers: each component times SCALE, rounded."""
    return np.rint(vectors * SCALE).astype(np.int16)


def unit_vectors(vectors: NDArray[np.int16]) -> NDArray[np.float32]:
    """Give whole-number vectors (rows) as unit vectors again."""
    numbers = vectors.astype(np.float32)
    return numbers / np.linalg.norm(numbers, axis=1, keepdims=True)


def find_neighbours(vectors: NDArray[np.int16], threshold: float, *, block: int = BLOCK) -> Neighbours:
    """Compare all whole-number vectors (rows, none of them 0) with all others.

    Takes about 7 bytes per component, and time that grows with the square of the rows.
    """
    rows = len(vectors)
    numbers = vectors.astype(np.float32)
    squares = np.square(numbers, dtype=np.float64).sum(axis=1).astype(np.int64)
    nearest, similarity = np.full(rows, NONE, np.int64), np.full(rows, -2.0, np.float32)
    found: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]] = []
    pairs = 0
    if rows and (squares.max() > LARGEST or not squares.min()):
        raise AssertionError(f"vectors of lengths {sqrt(squares.min()):.0f} to {sqrt(squares.max()):.0f}")
    room = min(block, rows) ** 2
    pair_buffers = np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.float32)
    # A cosine lies between these times the product: most pairs are dismissed by it without a root and a division.
    bounds = (
        (np.float32((1 + 1e-6) / squares.min()), np.float32((1 - 1e-6) / squares.max()))
        if rows
        else (np.float32(0),) * 2
    )
    for i in range(0, rows, block):
        for j in range(i, rows, block):
            products = numbers[i : i + block] @ numbers[j : j + block].T
            count = _compare(
                products, i, j, squares, *bounds, np.float32(threshold), similarity, nearest, *pair_buffers
            )
            if count and pairs < MOST_PAIRS:
                kept = min(count, MOST_PAIRS - pairs)
                found.append(tuple(buffer[:kept].copy() for buffer in pair_buffers))  # pyright: ignore[reportArgumentType] # three of three
            pairs += count
    if not found:
        found = [(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))]
    first, second, cosine = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Neighbours(nearest, similarity, first, second, cosine, pairs)


@compiled
def _compare(  # noqa: PLR0917 # compiled code takes plain arrays
    products, row, column, squares, most, least, threshold, similarity, nearest, first, second, cosine
):
    """Take in the products of two blocks that begin at `row` and `column`. Gives the number of pairs found.

    Every vector meets the others in their order, so that of equals the first stays its nearest.
    """
    pairs = 0
    for i in range(products.shape[0]):
        a = row + i
        best = similarity[a]
        for j in range(products.shape[1]):
            product = products[i, j]
            b = column + j
            at_most = product * (most if product > 0 else least)
            if (at_most <= best and at_most <= similarity[b] and at_most < threshold) or b <= a:
                continue
            value = np.float32(np.float64(product) / np.sqrt(np.float64(squares[a] * squares[b])))
            if value > best:
                best = value
                nearest[a] = b
            if value > similarity[b]:
                similarity[b] = value
                nearest[b] = a
            if value >= threshold:
                first[pairs], second[pairs], cosine[pairs] = a, b, value
                pairs += 1
        similarity[a] = best
    return pairs


def find_stars(found: Neighbours, order: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Say which vector goes with which: gives, for each, the one that stays in its place (or NONE) and their cosine.

    `order`: the positions, most preferred first. They are walked through in that order: one that forms a pair with any
    that stays goes with the nearest of those (of equals, the most preferred); else it stays itself. So of each pair one
    can go, never both, and nothing goes for one that has gone (DESIGN of dedup: stars, no chains).
    """
    rows = len(order)
    rank = np.empty(rows, np.int64)
    rank[order] = np.arange(rows)
    one, other = rank[found.first], rank[found.second]
    earlier, later = np.minimum(one, other), np.maximum(one, other)
    by_later = np.lexsort((earlier, later))
    starts = np.searchsorted(later[by_later], np.arange(rows + 1))
    star, cosine = _walk(starts, earlier[by_later], found.cosine[by_later])
    stays, alike = np.full(rows, NONE, np.int64), np.zeros(rows, np.float32)
    gone = np.flatnonzero(star != NONE)
    stays[order[gone]], alike[order[gone]] = order[star[gone]], cosine[gone]
    return stays, alike


@compiled
def _walk(starts, earlier, cosine):
    """Walk through ranks: `earlier[starts[r]:starts[r + 1]]` are those before rank r that form a pair with it."""
    rows = len(starts) - 1
    star = np.full(rows, -1, np.int64)
    best = np.zeros(rows, np.float32)
    for r in range(rows):
        for k in range(starts[r], starts[r + 1]):
            if star[earlier[k]] == -1 and (star[r] == -1 or cosine[k] > best[r]):
                star[r] = earlier[k]
                best[r] = cosine[k]
    return star, best
