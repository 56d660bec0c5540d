"""Batches made ahead are the same batches, and what goes wrong in the making reaches the loop."""

import threading
import time
from collections.abc import Iterator, Sequence
from typing import overload

import pytest
import torch

from train.plan import Step, make_plan
from train.run.feed import AHEAD, ahead, fed
from train.step.batch import make_batch
from train.text.template import Encoded


def test_what_is_fed_is_the_plan_in_passes_with_the_targets_of_the_whole_step(encoded: Encoded) -> None:
    plan = make_plan(encoded.examples, max_tokens=128, batch=6, max_epochs=1, max_steps=None, seed=1)
    made = list(fed(encoded.examples, plan, first=1, micro_batch=1, pinned=False))
    assert [each.number for each in made] == list(range(2, len(plan) + 1))
    for each in made:
        step = plan.step(each.number - 1)
        assert len(each.passes) == len(step.rows)
        for row, batch in zip(step.rows, each.passes, strict=True):
            assert torch.equal(batch.input_ids_1N, make_batch(encoded.examples, [row]).input_ids_1N)
        assert each.records_R.tolist() == [i for row in step.rows for i in row]
        assert each.targets == sum(encoded.examples[i].targets for row in step.rows for i in row)
        assert each.tokens == sum(len(encoded.examples[i]) for row in step.rows for i in row)


class Asked(Sequence[Step]):
    """Steps that note which of them somebody asked for."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps, self.asked = steps, list[int]()

    def __len__(self) -> int:
        return len(self.steps)

    @overload
    def __getitem__(self, at: int) -> Step: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Step]: ...
    def __getitem__(self, at: int | slice) -> Step | Sequence[Step]:
        assert isinstance(at, int), "the steps before a cursor are not cut off by copying"
        self.asked.append(at)
        return self.steps[at]


def test_a_resumed_run_begins_at_its_cursor_and_looks_at_no_step_before_it(encoded: Encoded) -> None:
    """Trap 12: to skip batches one by one takes hours where the run was long."""
    plan = make_plan(encoded.examples, max_tokens=128, batch=3, max_epochs=3, max_steps=None, seed=1)
    steps = Asked(plan)
    first = len(plan) - 2
    resumed = list(fed(encoded.examples, steps, first=first, micro_batch=1, pinned=False))
    assert steps.asked == [first, first + 1]
    whole = list(fed(encoded.examples, plan, first=0, micro_batch=1, pinned=False))[first:]
    for one, other in zip(resumed, whole, strict=True):
        assert (one.number, one.epoch, one.targets) == (other.number, other.epoch, other.targets)
        for mine, theirs in zip(one.passes, other.passes, strict=True):
            assert torch.equal(mine.input_ids_1N, theirs.input_ids_1N)


def test_items_come_in_order_and_at_most_so_many_wait() -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for i in range(20):
            made.append(i)
            yield i

    with ahead(numbers()) as feed:
        assert next(feed) == 0
        time.sleep(0.05)
        assert len(made) <= AHEAD + 2  # one was taken, AHEAD wait, one is in the hand of the thread
        assert list(feed) == list(range(1, 20))


def test_an_exception_in_the_making_is_raised_where_its_batch_would_have_been_taken() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("no such shard")

    with ahead(broken()) as feed:
        assert next(feed) == 1
        with pytest.raises(ValueError, match="no such shard"):
            next(feed)


def test_a_loop_that_ends_early_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    with ahead(iter(range(1000))) as feed:
        assert next(feed) == 0
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
