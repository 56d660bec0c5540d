"""Contracts of the neighbours: the same as comparing every two vectors with whole numbers, however it is cut up."""

from math import sqrt
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from curate.quality import neighbours
from curate.quality.neighbours import LARGEST, NONE, SCALE, find_neighbours, find_stars, unit_vectors, whole_numbers

Vectors = NDArray[np.int16]


def vectors_like(seed: int, rows: int, width: int, groups: int) -> Vectors:
    """Vectors around a few centres, some of them equal."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((groups, width))
    raw = centres[rng.integers(0, groups, rows)] + rng.choice([0.0, 0.05, 0.4], (rows, 1)) * rng.standard_normal(
        (rows, width)
    )
    raw = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    return whole_numbers(raw.astype(np.float32))


def cosine(a: NDArray[np.int16], b: NDArray[np.int16]) -> np.float32:
    """The oracle: Python's whole numbers, one root, one division."""
    product = sum(int(x) * int(y) for x, y in zip(a, b, strict=True))
    squares = sum(int(x) ** 2 for x in a) * sum(int(x) ** 2 for x in b)
    return np.float32(product / sqrt(squares))


def expected(
    vectors: Vectors, threshold: float
) -> tuple[list[int], list[np.float32], dict[tuple[int, int], np.float32]]:
    rows = len(vectors)
    all_of = {(i, j): cosine(vectors[i], vectors[j]) for i in range(rows) for j in range(rows) if i != j}
    nearest = [max((all_of[i, j], -j) for j in range(rows) if i != j) for i in range(rows)]
    pairs = {(i, j): c for (i, j), c in all_of.items() if i < j and c >= np.float32(threshold)}
    return [-j for _, j in nearest], [c for c, _ in nearest], pairs


sets = st.builds(vectors_like, st.integers(0, 999), st.integers(2, 40), st.sampled_from([2, 3, 17]), st.integers(1, 6))


@given(sets, st.sampled_from([0.3, 0.95, 1.0]), st.integers(1, 50))
def test_nearest_and_pairs_are_those_of_comparing_all_with_all(vectors: Vectors, threshold: float, block: int) -> None:
    found = find_neighbours(vectors, threshold, block=block)
    nearest, similarity, pairs = expected(vectors, threshold)
    assert found.nearest.tolist() == nearest
    assert found.similarity.tolist() == similarity
    assert found.pairs == len(pairs)
    listed = zip(found.first.tolist(), found.second.tolist(), found.cosine, strict=True)
    assert {(i, j): c for i, j, c in listed} == pairs


@given(
    st.lists(st.tuples(*3 * [st.integers(-90, 90)]).filter(any), min_size=2, max_size=25),
    st.sampled_from([0.3, 0.95]),
    st.integers(1, 30),
)
def test_vectors_of_any_length_and_direction_too(raw: list[tuple[int, ...]], threshold: float, block: int) -> None:
    vectors = np.array(raw, np.int16)
    found = find_neighbours(vectors, threshold, block=block)
    nearest, similarity, pairs = expected(vectors, threshold)
    assert found.nearest.tolist() == nearest
    assert found.similarity.tolist() == similarity
    assert found.pairs == len(pairs)


def test_in_many_dimensions_and_blocks_too() -> None:
    vectors = vectors_like(5, 1500, 384, 40)
    found, again = find_neighbours(vectors, 0.9), find_neighbours(vectors, 0.9, block=333)
    assert np.array_equal(found.nearest, again.nearest)
    assert np.array_equal(found.similarity, again.similarity)
    assert found.pairs == again.pairs
    for i in range(0, 1500, 100):
        own = [cosine(vectors[i], vectors[j]) if i != j else np.float32(-2) for j in range(1500)]
        assert found.nearest[i] == int(np.argmax(own))
        assert found.similarity[i] == max(own)


def test_vectors_that_point_away_from_each_other_have_neighbours_too() -> None:
    vectors = whole_numbers(np.array([[1, 0], [-1, 0], [-0.6, -0.8]], np.float32))
    found = find_neighbours(vectors, 0.95)
    assert found.nearest.tolist() == [2, 2, 1]
    assert found.similarity.tolist() == pytest.approx([-0.6, 0.6, 0.6])


@pytest.mark.parametrize("rows", [0, 1])
def test_one_vector_and_none_have_no_neighbour(rows: int) -> None:
    found = find_neighbours(vectors_like(1, rows, 8, 1), 0.5)
    assert found.nearest.tolist() == [NONE] * rows
    assert found.pairs == 0


def test_equal_vectors_have_a_cosine_of_exactly_1() -> None:
    vectors = np.repeat(vectors_like(2, 1, 384, 1), 3, axis=0)
    assert find_neighbours(vectors, 1.0).similarity.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("width", [1, 384, 4096, 16384])
def test_products_stay_exact_in_32_bits_at_every_width(width: int) -> None:
    rng = np.random.default_rng(width)
    raw = np.concatenate([rng.standard_normal((20, width)), np.ones((1, width)), np.full((1, width), 0.5000001)])
    units = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
    squares = np.square(whole_numbers(units).astype(np.int64)).sum(axis=1)
    assert squares.max() <= LARGEST


def test_rounding_moves_a_cosine_by_less_than_a_thousandth_and_hardly_a_direction() -> None:
    rng = np.random.default_rng(0)
    raw = rng.standard_normal((200, 384)).astype(np.float32)
    units = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    again = unit_vectors(whole_numbers(units))
    assert np.abs(again @ again.T - units @ units.T).max() < 1e-3
    assert np.allclose(np.linalg.norm(again, axis=1), 1.0, atol=1e-6)
    assert np.abs(whole_numbers(again) - whole_numbers(units)).max() <= 1
    assert SCALE**2 < LARGEST


def test_more_pairs_than_are_kept_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "MOST_PAIRS", 7)
    found = find_neighbours(np.repeat(vectors_like(2, 1, 8, 1), 10, axis=0), 0.9, block=4)
    assert found.pairs == 45
    assert len(found.first) == len(found.second) == len(found.cosine) == 7


def stars_expected(vectors: Vectors, threshold: float, order: list[int]) -> dict[int, int]:
    """The oracle: a walk in words. Gives, for each row that goes, the one that it goes with."""
    stays: list[int] = []
    goes: dict[int, int] = {}
    for row in order:
        alike = [(cosine(vectors[row], vectors[kept]), kept) for kept in stays]
        alike = [(c, kept) for c, kept in alike if c >= np.float32(threshold)]
        if alike:
            goes[row] = max(alike, key=lambda pair: pair[0])[1]  # of equals the first, which is the most preferred
        else:
            stays.append(row)
    return goes


@given(sets, st.sampled_from([0.5, 0.9, 0.99]), st.randoms())
def test_stars_are_those_of_a_walk_by_preference(vectors: Vectors, threshold: float, random: Random) -> None:
    order = list(range(len(vectors)))
    random.shuffle(order)
    found = find_neighbours(vectors, threshold)
    star, alike = find_stars(found, np.array(order, np.int64))
    goes = stars_expected(vectors, threshold, order)
    assert {i: int(s) for i, s in enumerate(star) if s != NONE} == goes
    assert all(alike[i] == cosine(vectors[i], vectors[s]) for i, s in goes.items())
    assert all(star[s] == NONE for s in goes.values()), "a row goes with one that stays"


def test_of_two_alike_rows_one_stays() -> None:
    vectors = np.repeat(vectors_like(3, 1, 8, 1), 2, axis=0)
    star, _ = find_stars(find_neighbours(vectors, 0.9), np.array([1, 0]))
    assert star.tolist() == [1, NONE]


def test_chains_do_not_melt_into_one() -> None:
    angles = np.radians([0, 10, 20, 30])
    vectors = whole_numbers(np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))
    star, _ = find_stars(find_neighbours(vectors, np.cos(np.radians(11))), np.arange(4))
    assert star.tolist() == [NONE, 0, NONE, 2]


def test_between_two_that_are_equally_near_a_row_goes_with_the_preferred_one() -> None:
    angles = np.radians([10, -10, 0])
    vectors = whole_numbers(np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))
    found = find_neighbours(vectors, np.cos(np.radians(11)))
    assert find_stars(found, np.array([1, 0, 2]))[0].tolist() == [NONE, NONE, 1]
    assert find_stars(found, np.array([0, 1, 2]))[0].tolist() == [NONE, NONE, 0]
