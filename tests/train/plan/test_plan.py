import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.train.plan.columns import LENGTHS, MAX_TOKENS, WEIGHTS, Named, epoch_of, named, plan_of, read
from train.plan import Plan

RECORDS = st.lists(st.tuples(st.integers(1, MAX_TOKENS), WEIGHTS, st.integers(0, 30)), min_size=1, max_size=60)
"""Lengths, weights and names, of which some are the same: copies."""


def columns_of(records: list[tuple[int, float, int]]) -> Named:
    """Records of which at least one is seen in every epoch."""
    lengths, weights, names = zip(*records, strict=True)
    return Named(
        ["always", *(f"r{n}" for n in names)], np.asarray([9, *lengths], np.int64), np.asarray([1.0, *weights])
    )


@given(LENGTHS, st.integers(0, 5))
def test_an_epoch_is_a_permutation_of_the_records_within_capacity(lengths: list[int], seed: int) -> None:
    plan = plan_of(named(lengths), seed=seed, max_epochs=2)
    for epoch in range(2):
        assert epoch_of(plan, epoch) == dict.fromkeys(range(len(lengths)), 1)
    for step in plan:
        for row in step.rows:
            assert 0 < sum(lengths[i] for i in row) <= MAX_TOKENS
    assert plan.tokens == 2 * sum(lengths)
    assert plan.seen(len(lengths)).tolist() == [2] * len(lengths)


@given(RECORDS, st.randoms(use_true_random=False))
def test_the_order_in_which_records_come_changes_nothing(records: list[tuple[int, float, int]], random: object) -> None:
    given_order = columns_of(records)
    order = list(range(len(given_order)))
    random.shuffle(order)  # type: ignore[attr-defined] # a random.Random
    shuffled = given_order.shuffled(order)
    one, other = plan_of(given_order, max_epochs=2), plan_of(shuffled, max_epochs=2)
    assert one.digest == other.digest
    assert read(one, given_order) == read(other, shuffled)


@given(RECORDS, st.integers(1, 5))
def test_no_pass_holds_more_records_than_the_plan_says_and_one_holds_so_many(
    records: list[tuple[int, float, int]], micro_batch: int
) -> None:
    plan = plan_of(columns_of(records), max_epochs=2, batch=9)
    passes = (s.rows[at : at + micro_batch] for s in plan for at in range(0, len(s.rows), micro_batch))
    assert plan.records_per_pass(micro_batch) == max(sum(map(len, rows)) for rows in passes)


def test_copies_of_a_record_stay_distinct() -> None:
    copies = Named(["same"] * 5, np.full(5, 20, np.int64), np.ones(5))
    assert epoch_of(plan_of(copies), 0) == dict.fromkeys(range(5), 1)


@given(RECORDS, RECORDS, st.integers(0, 1), st.integers(0, 1))
def test_two_plans_have_the_same_digest_if_and_only_if_they_are_the_same(
    one: list[tuple[int, float, int]], other: list[tuple[int, float, int]], seed: int, batch: int
) -> None:
    for records in (one, other):
        first, second = columns_of(one), columns_of(records)
        a, b = plan_of(first), plan_of(second, seed=1 + seed, batch=4 + batch)
        assert (a.digest == b.digest) == (read(a, first) == read(b, second))


def test_the_digest_tells_seed_lengths_ids_and_row_length_apart() -> None:
    records = named([5, 9, 30, 41] * 5)
    plans = [plan_of(records, seed=s) for s in range(4)]
    plans += [plan_of(named([5, 9, 30, 40] * 5)), plan_of(named([5, 9, 30, 41] * 5, prefix="s"))]
    plans += [plan_of(records, batch=8), plan_of(records, max_epochs=2), plan_of(records, max_tokens=65)]
    assert len({plan.digest for plan in plans}) == len(plans)


def test_the_plan_is_the_same_in_every_version() -> None:
    """Resuming after an upgrade rests on this value: change it only together with the plan's format."""
    assert plan_of(named([5, 9, 30, 41, 17], 1.5), max_epochs=2).digest == PINNED


PINNED = "99ca4ad4782c891dec0501364fcb7861"


def test_weight_is_how_often_a_record_is_seen_in_an_epoch() -> None:
    plan = plan_of(named([3, 3, 3, 3], [0.0, 1.0, 2.0, 1.5]), max_epochs=200)
    for epoch in range(200):
        seen = epoch_of(plan, epoch)
        assert (seen[0], seen[1], seen[2]) == (0, 1, 2)
        assert seen[3] in (1, 2)
    assert 270 <= plan.seen(4)[3] <= 330


@given(st.floats(0.05, 3), st.integers(0, 2**63 - 1))
def test_over_epochs_the_mean_of_the_draws_is_the_weight(weight: float, seed: int) -> None:
    """400 records over 4 epochs: 1,600 draws of a standard deviation of at most 1/2; 6 of the mean's are 0.075."""
    plan = plan_of(named([3] * 400, weight), seed=seed, max_epochs=4)
    assert abs(plan.seen(400).sum() / 1600 - weight) < 0.075


def test_epochs_and_seeds_are_drawn_apart() -> None:
    """Rows and steps of one epoch say nothing about those of the next: few pairs of records meet again."""
    lengths = [16] * 400
    pairs: list[set[tuple[int, int]]] = []
    for seed, epoch in ((1, 0), (1, 1), (2, 0)):
        plan = plan_of(named(lengths), seed=seed, max_epochs=2)
        rows = [sorted(row) for step in plan if step.epoch == epoch for row in step.rows]
        pairs.append({(a, b) for row in rows for a in row for b in row if a < b})
    assert len(pairs[0]) == 600
    assert all(len(a & b) < 20 for a, b in ((pairs[0], pairs[1]), (pairs[0], pairs[2])))


def test_steps_are_not_ordered_by_length() -> None:
    lengths = np.random.default_rng(3).integers(1, 64, 2000)
    plan = plan_of(named(lengths.tolist()), batch=20)
    means = [np.mean([lengths[i] for row in step.rows for i in row]) for step in plan]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


@given(RECORDS, st.integers(1, 12), st.integers(1, 6))
def test_a_longer_run_begins_as_a_shorter_one(records: list[tuple[int, float, int]], steps: int, more: int) -> None:
    """A step follows from its number alone, so that a run goes on from any number as if it had never stopped."""
    columns = columns_of(records)
    short, long = plan_of(columns, max_steps=steps), plan_of(columns, max_steps=steps + more)
    assert list(short) == list(long[:steps])
    assert [long.step(n) for n in range(steps, steps + more)] == list(long)[steps:]


def test_a_step_that_the_plan_does_not_have_is_an_error() -> None:
    plan = plan_of(named([20, 30, 40]))
    assert plan[-1] == plan.step(len(plan) - 1)
    for number in (-1, len(plan)):
        with pytest.raises(IndexError, match=f"step {number} of {len(plan)}"):
            plan.step(number)


@pytest.mark.parametrize("max_steps", [1, 2, 50])
def test_max_steps_is_met_exactly_over_as_many_epochs_as_it_takes(max_steps: int) -> None:
    plan = plan_of(named([20, 30, 40]), max_steps=max_steps)
    assert len(plan) == max_steps
    assert plan.rows == sum(len(step.rows) for step in plan)
    assert plan.tokens == sum([20, 30, 40][i] for step in plan for row in step.rows for i in row)
    assert plan_of(named([20, 30, 40]), max_steps=50).epochs > 1


def test_a_step_takes_as_many_rows_as_hold_the_batch() -> None:
    one_each = plan_of(named([60] * 40), batch=8)
    assert one_each.rows_per_step == 8
    four_each = plan_of(named([16] * 40), batch=8)
    assert (four_each.rows_per_step, four_each.records_per_row) == (2, 4)
    assert len(four_each) == 5


def test_fewer_rows_than_a_batch_make_one_step_an_epoch() -> None:
    assert len(plan_of(named([60, 60]), batch=32, max_epochs=3)) == 3


@pytest.mark.parametrize("weight", [0.0, 1e-9])
@pytest.mark.parametrize("max_steps", [3, None])
def test_records_that_are_never_seen_are_an_error_and_no_endless_search(weight: float, max_steps: int | None) -> None:
    with pytest.raises(ValueError, match="nothing to plan"):
        plan_of(named([5, 6], weight), max_steps=max_steps)


def test_epochs_that_see_nothing_are_passed_over() -> None:
    plan = plan_of(named([5, 6], 0.1), max_steps=3)
    assert len(plan) == 3
    assert all(step.rows for step in plan)


def test_a_record_that_no_row_holds_is_an_error() -> None:
    with pytest.raises(ValueError, match="65 tokens"):
        plan_of(named([3, 65]))


def test_a_plan_fills_its_rows() -> None:
    plan: Plan = plan_of(named([32] * 8))
    assert plan.packing_efficiency == 1.0
