from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.train.plan.columns import LENGTHS, MAX_TOKENS, WEIGHTS, Named, epoch_of, named, plan_of, read

SHARES = st.floats(0.01, 0.9)
REPLAY = st.lists(st.integers(1, MAX_TOKENS), min_size=1, max_size=40)


def split_of(seen: Counter[int], train: int) -> tuple[int, Counter[int]]:
    """How many records of train an epoch saw, and how often which of replay's."""
    replayed = Counter({i - train: n for i, n in seen.items() if i >= train})
    return seen.total() - replayed.total(), replayed


@given(LENGTHS, REPLAY, SHARES, st.integers(0, 5))
def test_replay_makes_up_its_share_of_every_epoch_to_one_record(
    lengths: list[int], others: list[int], share: float, seed: int
) -> None:
    train, replay = named(lengths), named(others, prefix="other")
    plan = plan_of(train, seed=seed, replay=replay, replay_share=share, max_epochs=3)
    for epoch in range(3):
        own, replayed = split_of(epoch_of(plan, epoch), len(train))
        assert own == len(train)
        assert abs(replayed.total() - share * (own + replayed.total())) < 1


@given(LENGTHS, REPLAY, SHARES)
def test_no_record_is_replayed_again_before_all_were_replayed(
    lengths: list[int], others: list[int], share: float
) -> None:
    """So few records repeat evenly, within an epoch and over the run, and of many each epoch sees others."""
    train, replay = named(lengths), named(others, prefix="other")
    plan = plan_of(train, replay=replay, replay_share=share, max_epochs=4)
    before: Counter[int] = Counter()
    for epoch in range(4):
        _, replayed = split_of(epoch_of(plan, epoch), len(train))
        before += replayed
        for counts in (replayed, before):
            often = [counts[i] for i in range(len(replay))]
            assert max(often) - min(often) <= 1


def test_of_many_records_each_epoch_replays_others() -> None:
    plan = plan_of(named([8] * 30), replay=named([8] * 100, prefix="other"), replay_share=0.5, max_epochs=3)
    epochs = [set(split_of(epoch_of(plan, epoch), 30)[1]) for epoch in range(3)]
    assert [len(epoch) for epoch in epochs] == [30, 30, 30]
    assert len(set.union(*epochs)) == 90


@given(st.lists(WEIGHTS, min_size=1, max_size=30), REPLAY)
def test_the_share_is_of_the_records_that_the_weights_let_an_epoch_see(weights: list[float], others: list[int]) -> None:
    train = named([9] * (len(weights) + 1), [1.0, *weights])
    plan = plan_of(train, replay=named(others, prefix="other"), replay_share=0.25, max_epochs=2)
    for epoch in range(2):
        own, replayed = split_of(epoch_of(plan, epoch), len(train))
        assert replayed.total() == round(own / 3)


@given(LENGTHS, REPLAY, st.randoms(use_true_random=False))
def test_the_order_in_which_replayed_records_come_changes_nothing(
    lengths: list[int], others: list[int], random: object
) -> None:
    train, replay = named(lengths), named(others, prefix="other")
    order = list(range(len(replay)))
    random.shuffle(order)  # type: ignore[attr-defined] # a random.Random
    shuffled: Named = replay.shuffled(order)
    one = plan_of(train, replay=replay, replay_share=0.4, max_epochs=2)
    other = plan_of(train, replay=shuffled, replay_share=0.4, max_epochs=2)
    assert one.digest == other.digest
    assert read(one, train, replay) == read(other, train, shuffled)


def test_copies_of_different_lengths_are_replayed_alike_in_whatever_order_they_come() -> None:
    train, replay = named([9] * 10), Named(["same"] * 40, np.arange(1, 41), np.ones(40))
    backwards = replay.shuffled(list(range(39, -1, -1)))
    one, other = (plan_of(train, replay=r, replay_share=0.5) for r in (replay, backwards))
    assert one.digest == other.digest


def test_replay_leaves_the_draws_of_the_others_as_they_are() -> None:
    """A run with replay sees the same copies of its own records as one without."""
    train = named([9] * 50, 0.5)
    alone = plan_of(train, max_epochs=3)
    mixed = plan_of(train, max_epochs=3, replay=named([9] * 20, prefix="other"), replay_share=0.2)
    for epoch in range(3):
        assert epoch_of(alone, epoch) == Counter({i: n for i, n in epoch_of(mixed, epoch).items() if i < 50})


def test_the_digest_tells_replay_and_its_share_apart() -> None:
    train, replay = named([9] * 20), named([9] * 20, prefix="other")
    plans = [plan_of(train), *(plan_of(train, replay=replay, replay_share=share) for share in (0.2, 0.5))]
    plans.append(plan_of(train, replay=named([9] * 20, prefix="another"), replay_share=0.2))
    assert len({plan.digest for plan in plans}) == 4


@pytest.mark.parametrize("share", [-0.1, 1.0, 2.0])
def test_a_share_that_no_epoch_can_have_is_an_error(share: float) -> None:
    with pytest.raises(ValueError, match="above 0 and below 1"):
        plan_of(named([5]), replay=named([5]), replay_share=share)


@pytest.mark.parametrize("replay", [named([]), named([5, 6], 0.0)])
def test_a_replay_of_nothing_is_an_error(replay: Named) -> None:
    with pytest.raises(ValueError, match="nothing to"):
        plan_of(named([5]), replay=replay, replay_share=0.5)


def test_few_records_fill_a_large_share() -> None:
    plan = plan_of(named([5] * 10), replay=named([7], prefix="other"), replay_share=0.9)
    assert split_of(epoch_of(plan, 0), 10) == (10, Counter({0: 90}))
    assert np.array_equal(plan.seen(11), [1] * 10 + [90])
