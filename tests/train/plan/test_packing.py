from bisect import bisect_left, insort
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.train.plan.columns import LENGTHS, MAX_TOKENS
from train.plan import pack
from train.plan.packing import fill


def best_fit_decreasing(lengths: list[int], max_tokens: int) -> list[int]:
    """Best fit as anybody would write it, one record at a time: how full each row is."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        at = bisect_left(rooms, length)
        insort(rooms, (rooms.pop(at) if at < len(rooms) else max_tokens) - length)
    return sorted(max_tokens - room for room in rooms)


@given(LENGTHS)
def test_rows_are_those_of_best_fit_decreasing(lengths: list[int]) -> None:
    """Placing all records of a length at once changes nothing of how full any row gets."""
    rows = pack(lengths, MAX_TOKENS)
    assert sorted(sum(lengths[i] for i in row) for row in rows) == best_fit_decreasing(lengths, MAX_TOKENS)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=30), st.integers(1, 50))
def test_many_records_of_few_lengths_are_packed_as_well(lengths: list[int], copies: int) -> None:
    packing = fill(np.asarray(lengths * copies, np.int64), 400)
    full = np.add.reduceat(packing.lengths, packing.bounds[:-1])
    assert sorted(full.tolist()) == best_fit_decreasing(lengths * copies, 400)


@given(LENGTHS)
def test_every_record_is_in_one_row_and_no_row_above_its_capacity(lengths: list[int]) -> None:
    rows = pack(lengths, MAX_TOKENS)
    assert Counter(i for row in rows for i in row) == Counter(range(len(lengths)))
    assert all(0 < sum(lengths[i] for i in row) <= MAX_TOKENS for row in rows)


@given(LENGTHS)
def test_best_fit_wastes_less_than_half_of_all_rows_but_one(lengths: list[int]) -> None:
    rows = pack(lengths, MAX_TOKENS)
    assert sum(2 * sum(lengths[i] for i in row) <= MAX_TOKENS for row in rows) <= 1


def test_nothing_is_packed_into_no_rows() -> None:
    assert pack([], MAX_TOKENS) == []


@pytest.mark.parametrize("length", [0, 65])
def test_a_record_that_no_row_holds_is_an_error(length: int) -> None:
    with pytest.raises(ValueError, match=f"{length} tokens, a row holds 1 to 64"):
        pack([5, length, 7], MAX_TOKENS)
