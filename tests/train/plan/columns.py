"""Records as a plan sees them, and plans read back by the names of their records."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from train.plan import Plan, make_plan
from train.text.tokens import key_of

MAX_TOKENS = 64
LENGTHS = st.lists(st.integers(1, MAX_TOKENS), min_size=1, max_size=80)
WEIGHTS = st.sampled_from([0.0, 0.3, 1.0, 1.0, 1.0, 1.5, 2.0])


@dataclass(frozen=True, eq=False)
class Named:
    """Columns of records with names; equal names are copies of one record."""

    names: list[str]
    lengths: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]

    @property
    def keys(self) -> npt.NDArray[np.uint64]:
        return np.asarray([key_of(name) for name in self.names], np.uint64)

    def shuffled(self, order: list[int]) -> "Named":
        return Named([self.names[i] for i in order], self.lengths[order], self.weights[order])

    def __len__(self) -> int:
        return len(self.names)


def named(lengths: list[int], weights: list[float] | float = 1.0, prefix: str = "r") -> Named:
    given = [weights] * len(lengths) if isinstance(weights, float) else weights
    return Named([f"{prefix}{i}" for i in range(len(lengths))], np.asarray(lengths, np.int64), np.asarray(given))


def plan_of(train: Named, seed: int = 1, **settings: Any) -> Plan:
    defaults: dict[str, Any] = {"max_tokens": MAX_TOKENS, "batch": 4, "max_epochs": 1, "max_steps": None}
    return make_plan(train, seed=seed, **{**defaults, **settings})


def epoch_of(plan: Plan, epoch: int) -> Counter[int]:
    return Counter(i for step in plan if step.epoch == epoch for row in step.rows for i in row)


def read(plan: Plan, *columns: Named) -> list[tuple[int, list[list[tuple[str, int]]]]]:
    """The steps, with each record by name and length."""
    names = [name for c in columns for name in c.names]
    lengths = [int(n) for c in columns for n in c.lengths]
    return [(step.epoch, [[(names[i], lengths[i]) for i in row] for row in step.rows]) for step in plan]
