"""Batches made ahead by a thread, so that the device never waits for them.

    thread   make step 1 | make step 2 | make step 3 | …            at most AHEAD of them wait
    loop                   train step 1 | train step 2 | …

What is made depends on the plan alone, so nothing changes but the time. On CUDA batches lie in pinned memory, and go to
the device without the loop waiting for the copy. An exception of the thread is raised in the loop, where the batch
would have been taken.

Legend: R records of a step.
"""

import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from train.plan import Step
from train.plan.ranks import passes as share_out
from train.step.batch import PackedBatch, idle_batch, make_batch
from train.text.tokens import Tokens

T = TypeVar("T")

AHEAD = 2
"""Steps that may wait: one to hide the making of a batch, and one for when that takes longer than a step."""

POLL_S = 0.1
"""How often a thread whose reader has gone looks whether it should end, in seconds."""


@dataclass(frozen=True, slots=True, eq=False)
class Fed:
    """One optimizer step as it is fed to the loop; `number` counts from 1, `records_R` are indices of the examples.

    `passes` are those of one process, all else is of the whole step; its own records begin at `first` of `records_R`.
    """

    number: int
    epoch: int
    passes: tuple[PackedBatch, ...]
    records_R: npt.NDArray[np.int64]
    targets: int
    tokens: int
    first: int = 0


def fed(
    examples: Tokens,
    steps: Sequence[Step],
    *,
    first: int,
    micro_batch: int,
    pinned: bool,
    shape: Mapping[str, int] | None = None,
    rank: int = 0,
    ranks: int = 1,
) -> Iterator[Fed]:
    """Make the steps of a plan from index `first` on, each in passes of `micro_batch` rows, padded to `shape`.

    With several `ranks`, the passes are those of `rank`; one that has no rows left has no targets.
    """
    for index in range(first, len(steps)):
        step = steps[index]
        dealt = share_out(step, examples.lengths, ranks=ranks, micro_batch=micro_batch)
        passes = tuple(
            make_batch(examples, rows, **(shape or {})) if rows else idle_batch(examples, step.rows[0], **(shape or {}))
            for rows in dealt[rank]
        )
        records = [[i for rows in own for row in rows for i in row] for own in dealt]
        records_R = np.asarray([i for own in records for i in own], np.int64)
        yield Fed(
            number=index + 1,
            epoch=step.epoch,
            passes=tuple(batch.moved(Tensor.pin_memory) for batch in passes) if pinned else passes,
            records_R=records_R,
            targets=int(examples.targets[records_R].sum()),
            tokens=int(examples.lengths[records_R].sum()),
            first=sum(map(len, records[:rank])),
        )


@contextmanager
def ahead(made: Iterable[T]) -> Generator[Iterator[T]]:
    """Give what `made` yields, made by a thread, at most `AHEAD` ahead. The thread has ended when the block has."""
    ready: Queue[tuple[T | None, BaseException | None]] = Queue(AHEAD)
    left = threading.Event()

    def put(item: T | None, error: BaseException | None = None) -> bool:
        while not left.is_set():
            try:
                ready.put((item, error), timeout=POLL_S)
            except Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            if all(map(put, made)):
                put(None)
        except BaseException as error:  # noqa: BLE001 # raised again in the loop
            put(None, error)

    def take() -> Iterator[T]:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        left.set()
        try:
            while True:
                ready.get_nowait()
        except Empty:
            thread.join()
