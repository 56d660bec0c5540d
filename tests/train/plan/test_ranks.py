from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from train.plan import Row, Step
from train.plan.ranks import passes

ROWS = st.lists(st.lists(st.integers(1, 64), min_size=1, max_size=5), min_size=1, max_size=40)
RANKS, MICRO = st.integers(1, 9), st.integers(1, 4)


def step_of(rows: list[list[int]]) -> tuple[Step, list[int]]:
    """A step whose rows hold records of these lengths, and the length of each record."""
    made: list[Row] = []
    for row in rows:
        first = sum(map(len, made))
        made.append(tuple(range(first, first + len(row))))
    return Step(tuple(made), 0), [n for row in rows for n in row]


@given(ROWS, RANKS, MICRO)
def test_all_ranks_together_have_the_rows_of_the_step_each_once(rows: list[list[int]], ranks: int, micro: int) -> None:
    step, lengths = step_of(rows)
    dealt = passes(step, lengths, ranks=ranks, micro_batch=micro)
    assert len(dealt) == ranks
    assert Counter(row for rank in dealt for made in rank for row in made) == Counter(step.rows)


@given(ROWS, RANKS, MICRO)
def test_every_rank_makes_the_same_number_of_passes_and_none_too_many(
    rows: list[list[int]], ranks: int, micro: int
) -> None:
    step, lengths = step_of(rows)
    dealt = passes(step, lengths, ranks=ranks, micro_batch=micro)
    count = {len(rank) for rank in dealt}
    assert len(count) == 1
    assert (count.pop() - 1) * ranks * micro < len(rows)
    for rank in dealt:
        held = [len(made) for made in rank]
        assert max(held) <= micro
        assert held == sorted(held, reverse=True), "empty passes come at the end"


@given(ROWS, RANKS, MICRO)
def test_ranks_have_as_many_rows_and_tokens_to_within_one_row(rows: list[list[int]], ranks: int, micro: int) -> None:
    step, lengths = step_of(rows)
    dealt = passes(step, lengths, ranks=ranks, micro_batch=micro)
    held = [[row for made in rank for row in made] for rank in dealt]
    tokens = [sum(lengths[i] for row in own for i in row) for own in held]
    assert max(map(len, held)) - min(map(len, held)) <= 1
    longest_first = [*sorted(map(sum, rows), reverse=True), *[0] * (-len(rows) % ranks)]
    rounds = [longest_first[at : at + ranks] for at in range(0, len(longest_first), ranks)]
    assert max(tokens) - min(tokens) <= max(each[0] - each[-1] for each in rounds) <= max(map(sum, rows))


@given(ROWS, MICRO)
def test_one_rank_has_the_rows_as_they_come(rows: list[list[int]], micro: int) -> None:
    step, lengths = step_of(rows)
    (alone,) = passes(step, lengths, ranks=1, micro_batch=micro)
    assert alone == tuple(step.rows[at : at + micro] for at in range(0, len(step.rows), micro))
