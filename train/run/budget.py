"""The hours or the money that a run may take, and how far it is: what the learning rate falls by, and what ends it.

A limit holds for all that is paid for: loading, measuring before and after, evaluations, and the time of earlier parts
of a resumed run. What comes after the last step is taken to last as long as the measuring before the first one did, and
is kept free. A run is as far as its steps or its time are, whichever is further, so that the learning rate has reached
its end when either has.
"""

import time
from dataclasses import dataclass, field

from schemas.errors import ConfigError
from schemas.train_config import TrainConfig

ENDS = 1 - 1e-6
"""How far a run is at most, as a share: at 1 the learning rate is 0, and a step would be for nothing."""


@dataclass(slots=True)
class Clock:
    """How long a run has taken: `before` are the seconds of its earlier parts."""

    before: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        """Give the seconds so far, of all parts."""
        return self.before + time.monotonic() - self.started


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit in seconds, None for none. `named`: what set it, hours or cost. `reserve`: seconds for the ending."""

    limit: float | None
    named: str
    reserve: float = 0.0

    def done(self, step: int, total: int, *, wall: float, begun: float) -> float:
        """Give how far the run is when `step` of `total` steps are made, in [0, 1).

        `wall` are the run's seconds so far, `begun` those when its first step began.
        """
        by_steps = step / total
        if self.limit is None:
            return min(by_steps, ENDS)
        for_steps = self.limit - self.reserve - begun
        by_time = (wall - begun) / for_steps if for_steps > 0 else 1.0
        return min(max(by_steps, by_time, 0.0), ENDS)

    def over(self, wall: float) -> bool:
        """Whether it is time to end."""
        return self.limit is not None and wall >= self.limit - self.reserve

    def check(self, wall: float) -> None:
        """Raise ConfigError where no time is left for a first step."""
        if self.limit is not None and self.over(wall):
            took = f"loading and measuring took {_told(wall)}"
            kept = f", and {_told(self.reserve)} are kept for the end" if self.reserve else ""
            raise ConfigError(
                f"--max-{self.named}",
                f"its {_told(self.limit)} are over before the first step: {took}{kept}",
                "time for some steps",
                f"nothing was trained: start anew with a higher --max-{self.named}; "
                "--no-score-train and --samples 0 make the measuring shorter",
            )


def budget_of(config: TrainConfig, *, reserve: float) -> Budget:
    """Make the budget that the settings ask for: the lower of hours and cost."""
    hours = config.limit_hours()
    if hours is None:
        return Budget(None, "hours")
    return Budget(hours * 3600, "hours" if hours == config.max_hours else "cost", reserve)


def _told(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def cost(config: TrainConfig, seconds: float) -> float | None:
    """Give what so many seconds cost; None where no price is known."""
    return None if config.price_per_hour is None else seconds / 3600 * config.price_per_hour
