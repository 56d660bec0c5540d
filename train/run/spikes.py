"""Loss spikes: steps whose loss leapt above what was usual, with the records that were in them.

Usual is the median of the last steps, and how far from it is told in median absolute deviations, so that neither a
spike itself nor a few odd steps move the bound. Only above counts: a loss that falls is what training is for.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

WINDOW = 50
"""Steps that say what is usual: enough for a median that single steps do not move, few enough to follow a falling
loss."""

FEWEST = 16
"""Steps before which nothing is usual yet: the deviation of fewer is a guess."""

DEVIATIONS = 8.0
"""How many deviations above the median a spike is. For a bell curve 1.4826 median absolute deviations are a standard
deviation, so this is 5.4 of them. Losses of small batches have longer tails: of 400 sound steps of four real records
each, 4 named four, 6 named three and 8 named one."""

LEAST = 0.1
"""Nats above the median that a spike has at least: in a run whose losses hardly differ, less does no harm."""


@dataclass(slots=True)
class Spikes:
    """The losses of the last steps, and what they say of the next one."""

    losses: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))

    @classmethod
    def after(cls, losses: Iterable[float]) -> "Spikes":
        """Go on after these losses, in order."""
        return cls(deque(losses, maxlen=WINDOW))

    def usual(self, loss: float) -> float | None:
        """Give the usual loss where this one is a spike, else None; then count this one among the last steps."""
        found = None
        if len(self.losses) >= FEWEST:
            last = np.asarray(self.losses)
            median = float(np.median(last))
            deviation = float(np.median(np.abs(last - median)))
            if loss > median + max(DEVIATIONS * deviation, LEAST):
                found = median
        self.losses.append(loss)
        return found
