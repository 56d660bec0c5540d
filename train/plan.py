"""Which records sit in which row of which step: a pure function, so that a run can be known before it starts.

    step        0               1
    rows    ┌─────────┐     ┌─────────┐      a row holds whole records, at most `max_tokens` tokens
            │ d d d b │     │ c c c c │
            │ a a a a │     └─────────┘      a step holds `rows_per_step` rows: as many as hold `batch` records
            └─────────┘

Rows are filled best fit, longest record first. A record of weight 1.5 is seen once in every epoch and a second time in
every other one, by a draw that depends on the seed, the epoch and its id alone. The order in which records come in
changes nothing. Resuming is an integer: the next step.
"""

import hashlib
import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

Row = tuple[int, ...]
"""Indices of the records that lie end to end in one packed row."""


EMPTY_EPOCHS = 1000
"""Weights this close to 0 are a mistake: a plan of a given number of steps would never be full."""


@dataclass(frozen=True, slots=True)
class Item:
    """What the plan needs to know of a record."""

    id: str
    tokens: int
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step: its rows, and the epoch it belongs to (from 0)."""

    rows: tuple[Row, ...]
    epoch: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole run. `digest` identifies it: 32 hex digits of the items, the settings and every row."""

    steps: tuple[Step, ...]
    max_tokens: int
    rows_per_step: int
    tokens: int
    digest: str

    @property
    def rows(self) -> int:
        """How many packed rows the run reads."""
        return sum(len(step.rows) for step in self.steps)

    @property
    def epochs(self) -> int:
        """How many epochs the run begins."""
        return self.steps[-1].epoch + 1 if self.steps else 0

    @property
    def packing_efficiency(self) -> float:
        """The share of the rows' capacity that holds tokens."""
        return self.tokens / (self.rows * self.max_tokens) if self.rows else 0.0


def pack(tokens: Sequence[int], max_tokens: int, order: Sequence[int] | None = None) -> list[Row]:
    """Fill rows best fit, longest first; among equals in `order` (default: as they come).

    Raises ValueError for a record that no row can hold: whoever calls has rejected those.
    """
    order = range(len(tokens)) if order is None else order
    rows: list[list[int]] = []
    by_room: dict[int, list[int]] = {}
    rooms: list[int] = []  # the distinct amounts of room, sorted
    for i in sorted(order, key=lambda i: -tokens[i]):
        if tokens[i] > max_tokens:
            raise ValueError(f"record {i} has {tokens[i]} tokens, a row holds {max_tokens}")
        at = bisect_left(rooms, tokens[i])
        if at == len(rooms):
            row, room = len(rows), max_tokens
            rows.append([])
        else:
            room = rooms[at]
            row = by_room[room].pop()
            if not by_room[room]:
                del by_room[room], rooms[at]
        rows[row].append(i)
        left = room - tokens[i]
        if left not in by_room:
            by_room[left] = []
            insort(rooms, left)
        by_room[left].append(row)
    return [tuple(row) for row in rows]


def make_plan(
    items: Sequence[Item], *, max_tokens: int, batch: int, max_epochs: int, max_steps: int | None, seed: int
) -> Plan:
    """Lay out a run over `items`, all of at most `max_tokens` tokens.

    `batch` is records per optimizer step, on average: the step takes as many packed rows as hold that many. With
    `max_steps` the run has exactly so many steps, over as many epochs as that takes; without, it has `max_epochs`.
    Raises ValueError where no item would ever be seen.
    """
    if not any(item.weight > 0 for item in items):
        raise ValueError("nothing to plan: no record has a weight above 0")
    steps: list[Step] = []
    rows_per_step, epoch = 0, 0
    while epoch < max_epochs if max_steps is None else len(steps) < max_steps:
        seen = _seen(items, seed, epoch)
        copies = pack([items[i].tokens for i in seen], max_tokens)
        rows = [tuple(seen[c] for c in row) for row in copies]
        rows.sort(key=lambda row: _draw(seed, epoch, "row", *(items[i].id for i in row)))
        if not rows_per_step and rows:
            rows_per_step = max(1, round(batch * len(rows) / len(seen)))
        starts = range(0, len(rows), rows_per_step or 1)
        steps.extend(Step(tuple(rows[at : at + rows_per_step]), epoch) for at in starts)
        epoch += 1
        if not steps and epoch == EMPTY_EPOCHS:
            raise ValueError(f"nothing to plan: the weights are so small that {epoch} epochs see no record")
    chosen = tuple(steps[:max_steps])
    if not chosen:
        raise ValueError(f"nothing to plan: no record is drawn in {epoch} epochs")
    tokens = sum(items[i].tokens for step in chosen for row in step.rows for i in row)
    return Plan(chosen, max_tokens, rows_per_step, tokens, _digest(items, chosen, seed, max_tokens))


def _seen(items: Sequence[Item], seed: int, epoch: int) -> list[int]:
    """Index every copy of every record that one epoch sees, in a drawn order."""
    copies: list[tuple[int, int]] = []
    for i, item in enumerate(items):
        whole = math.floor(item.weight)
        # A draw in [0, 1) that every epoch makes anew: over many epochs a weight of 1.5 is one and a half times.
        extra = _draw(seed, epoch, "weight", item.id) / 2**64 < item.weight - whole
        copies.extend((i, copy) for copy in range(whole + extra))
    copies.sort(key=lambda c: _draw(seed, epoch, "order", items[c[0]].id, str(c[1])))
    return [i for i, _ in copies]


def _draw(seed: int, epoch: int, *parts: str) -> int:
    """Draw 64 bits from names alone: the same on every machine and in every order of the records."""
    text = "\0".join((str(seed), str(epoch), *parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _digest(items: Sequence[Item], steps: Sequence[Step], seed: int, max_tokens: int) -> str:
    digest = hashlib.blake2b(f"plan/1 {seed} {max_tokens}\n".encode(), digest_size=16)
    for step in steps:
        for row in step.rows:
            digest.update(" ".join(f"{items[i].id}:{items[i].tokens}" for i in row).encode() + b"\n")
        digest.update(b"--\n")
    return digest.hexdigest()
