"""The plan of a run: from columns of lengths, keys and weights to the rows of every step."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from train.plan.curriculum import in_order
from train.plan.draw import Columns, Pool, draw
from train.plan.packing import fill
from train.plan.replay import Replay

Row = tuple[int, ...]
"""Indices of the records that lie end to end in one packed row."""

NOTHING = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step: its rows, and the epoch it belongs to (from 0)."""

    rows: tuple[Row, ...]
    epoch: int


@dataclass(frozen=True, slots=True, eq=False)
class Plan(Sequence[Step]):
    """A whole run in columns: R records as they are read, P rows, S steps.

    `digest` identifies it: 32 hex digits of the keys and lengths of the records as they are read, and of all bounds.
    Two plans have the same one exactly if they read the same records in the same rows and steps.
    """

    records: npt.NDArray[np.int32]  # (R,) indices of the records, row after row; those of replay follow train's
    row_bounds: npt.NDArray[np.int64]  # (P + 1,) where each row begins among the records, and the end
    step_bounds: npt.NDArray[np.int64]  # (S + 1,) where each step begins among the rows, and the end
    epoch_of: npt.NDArray[np.int32]  # (S,) the epoch that each step belongs to
    max_tokens: int
    rows_per_step: int
    tokens: int
    digest: str

    def step(self, number: int) -> Step:
        """Give a step by its number, from 0."""
        if not 0 <= number < len(self):
            raise IndexError(f"step {number} of {len(self)}")
        first, last = int(self.step_bounds[number]), int(self.step_bounds[number + 1])
        bounds: list[int] = self.row_bounds[first : last + 1].tolist()
        records: list[int] = self.records[bounds[0] : bounds[-1]].tolist()
        rows = tuple(tuple(records[a - bounds[0] : b - bounds[0]]) for a, b in pairwise(bounds))
        return Step(rows, int(self.epoch_of[number]))

    def __len__(self) -> int:
        return len(self.epoch_of)

    @overload
    def __getitem__(self, at: int) -> Step: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Step, ...]: ...
    def __getitem__(self, at: int | slice) -> Step | tuple[Step, ...]:
        if isinstance(at, slice):
            return tuple(self.step(number) for number in range(*at.indices(len(self))))
        return self.step(at + len(self) if at < 0 else at)

    @property
    def rows(self) -> int:
        """How many packed rows the run reads."""
        return len(self.row_bounds) - 1

    @property
    def epochs(self) -> int:
        """How many epochs the run begins."""
        return int(self.epoch_of[-1]) + 1 if len(self) else 0

    @property
    def packing_efficiency(self) -> float:
        """The share of the rows' capacity that holds tokens."""
        return self.tokens / (self.rows * self.max_tokens) if self.rows else 0.0

    @property
    def records_per_row(self) -> int:
        """The most records that a row holds."""
        return int(np.diff(self.row_bounds).max(initial=0))

    def records_per_pass(self, micro_batch: int) -> int:
        """Give the most records that a forward pass of `micro_batch` rows holds; no pass has rows of two steps."""
        in_step = np.arange(self.rows) - np.repeat(self.step_bounds[:-1], np.diff(self.step_bounds))
        starts = self.row_bounds[:-1][in_step % micro_batch == 0]
        return int(np.diff(starts, append=self.row_bounds[-1]).max(initial=0))

    def seen(self, records: int, steps: int | None = None) -> npt.NDArray[np.int64]:
        """Count how often each of the `records` is read in the first so many steps (default: all), (records,)."""
        end = self.row_bounds[self.step_bounds[len(self) if steps is None else steps]]
        return np.bincount(self.records[:end], minlength=records)


def make_plan(
    train: Columns,
    *,
    max_tokens: int,
    batch: int,
    max_epochs: int,
    max_steps: int | None,
    seed: int,
    replay: Columns | None = None,
    replay_share: float = 0.0,
    scores: npt.NDArray[np.float64] | None = None,
) -> Plan:
    """Lay out a run over the records of `train`, all of at most `max_tokens` tokens.

    `batch` is records per optimizer step, on average: the step takes as many packed rows as hold that many. With
    `max_steps` the run has exactly so many steps, over as many epochs as that takes; without, it has `max_epochs`.
    Records of `replay` make up `replay_share` of each epoch; their indices follow those of `train`. With `scores`,
    (E,), the first epoch begins with the records of the lowest, and ends with those that have none (NaN).
    Raises ValueError where no record would ever be seen, or no row holds one.
    """
    pool, seen_by_epoch = _drawn(train, replay, replay_share, scores, max_tokens=max_tokens, seed=seed)
    records, sizes, in_step, steps_of = [NOTHING], [NOTHING], [NOTHING], [0]
    rows_per_step, epoch, planned = 0, 0, 0
    while epoch < max_epochs if max_steps is None else planned < max_steps:
        parts = next(seen_by_epoch)
        packed = [_rows(pool.lengths, part, max_tokens, seed, epoch, i) for i, part in enumerate(parts)]
        records += [held for held, _ in packed]
        sizes += [held_by_row for _, held_by_row in packed]
        rows = sum(len(held_by_row) for _, held_by_row in packed)
        if rows and not rows_per_step:
            rows_per_step = max(1, round(batch * rows / sum(map(len, parts))))
        starts = np.arange(0, rows, rows_per_step or 1)
        in_step.append(np.diff(starts, append=rows))
        steps_of.append(len(starts))
        planned += len(starts)
        epoch += 1
    if not planned:
        raise ValueError(f"nothing to plan: no record is drawn in {epoch} epochs")
    step_bounds = _bounds(np.concatenate(in_step)[:max_steps])
    row_bounds = _bounds(np.concatenate(sizes)[: step_bounds[-1]])
    held = np.concatenate(records)[: row_bounds[-1]]
    epoch_of = np.repeat(np.arange(epoch, dtype=np.int32), steps_of[1:])[:max_steps]
    lengths = pool.lengths[held]
    return Plan(
        pool.index[held].astype(np.int32),
        row_bounds,
        step_bounds,
        epoch_of,
        max_tokens,
        rows_per_step,
        int(lengths.sum()),
        _digest(max_tokens, pool.keys[held], lengths, row_bounds, step_bounds, epoch_of),
    )


def _drawn(
    train: Columns,
    replay: Columns | None,
    share: float,
    scores: npt.NDArray[np.float64] | None,
    *,
    max_tokens: int,
    seed: int,
) -> tuple[Pool, Iterator[list[npt.NDArray[np.int64]]]]:
    """Give all records, and for epoch after epoch which of them it sees: in parts that follow each other."""
    main = Pool.of(train)
    rounds = main.endless(seed)
    pool, mixed = main, None
    if replay is not None and share:
        other = Pool.of(replay)
        pool, mixed = main.joined(other), Replay(other, share, seed)

    def epochs() -> Iterator[list[npt.NDArray[np.int64]]]:
        for epoch, drawn in enumerate(rounds):
            others = NOTHING if mixed is None else mixed.take(len(drawn))
            seen = np.concatenate([drawn, len(main) + others])
            if epoch or scores is None:
                yield [seen]
                continue
            rows = math.ceil(pool.lengths[seen].sum() / max_tokens)
            bucket = in_order(scores[main.index[drawn]], len(others), rows)
            yield [seen[bucket == number] for number in range(bucket.max(initial=0) + 1)]

    return pool, epochs()


def _rows(
    lengths: npt.NDArray[np.int64], drawn: npt.NDArray[np.int64], max_tokens: int, *what: object
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pack drawn records, (R,), into rows that come in a drawn order: the records, and how many each row holds."""
    tokens = lengths[drawn]
    packing = fill(tokens, max_tokens)
    dealt = packing.deal(drawn[np.argsort(-tokens, kind="stable")])
    sizes = np.diff(packing.bounds)
    order = np.argsort(draw(np.arange(len(sizes), dtype=np.uint64), "row", *what), kind="stable")
    ordered = sizes[order]
    shift = np.repeat(packing.bounds[:-1][order] - (np.cumsum(ordered) - ordered), ordered)
    return dealt[np.arange(len(dealt)) + shift], ordered


def _bounds(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])


def _digest(max_tokens: int, *columns: npt.NDArray[Any]) -> str:
    digest = blake2b(f"plan/2 {max_tokens}\n".encode(), digest_size=16)
    for column in columns:
        digest.update(f"{len(column)}\n".encode())
        digest.update(column.astype(column.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()
