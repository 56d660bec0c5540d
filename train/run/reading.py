"""What a step measured, on its way from the device: read when it has arrived, so that no step waits for the one before.

On CUDA the numbers are copied beside the computation, and read while the next step runs: the time between two readings
is that of a whole step, and tokens per second are those of finished work.

Legend: R records of a step.
"""

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from train.run.feed import Fed
from train.text.tokens import Tokens


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """What is known after a step. `step` counts from 1; `loss` is in nats per target of the whole step; `seconds` are
    those of the run so far; `memory_gb` the most held so far, of the GPU or the process."""

    step: int
    total: int
    loss: float
    lr: float
    grad_norm: float
    tokens: int
    tokens_per_s: float
    seconds: float = 0.0
    memory_gb: float = 0.0


@dataclass(frozen=True, slots=True)
class RecordInStep:
    """A record of a step, and its loss in nats per target."""

    id: str
    source: str
    loss: float


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """The numbers of a step that was launched. `random`: the state of the generators before it."""

    fed: Fed
    lr: float
    random: dict[str, Tensor]
    host: (
        Tensor  # (2 + R,) float64: the gradients' norm, 1 where no weight was changed, the sums of the records in nats
    )
    arrived: torch.cuda.Event | None

    @classmethod
    def of(cls, fed: Fed, lr: float, random: dict[str, Tensor], numbers: Tensor) -> "Reading":
        """Send a step's numbers, laid out as `host`, to the host, without waiting for them."""
        if not numbers.is_cuda:
            return cls(fed, lr, random, numbers, None)
        host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
        host.copy_(numbers, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        return cls(fed, lr, random, host, arrived)

    def read(self) -> "Measured":
        """Wait for the numbers, and give them."""
        if self.arrived is not None:
            self.arrived.synchronize()
        norm, skipped, *_ = self.host[:2].tolist()
        return Measured(self, float(norm), bool(skipped), self.host[2:].numpy())


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A step's numbers, on the host. `skipped`: the step changed no weight."""

    reading: Reading
    grad_norm: float
    skipped: bool
    sums_R: npt.NDArray[np.float64]

    @property
    def fed(self) -> Fed:
        """The step that was measured."""
        return self.reading.fed

    @property
    def loss(self) -> float:
        """Nats per target of the whole step."""
        return float(self.sums_R.sum()) / self.fed.targets

    def by_source(self, examples: Tokens) -> dict[str, float]:
        """Give the loss of each source that the step had, in nats per target."""
        sources_R = examples.source_of[self.fed.records_R]
        sums = np.bincount(sources_R, self.sums_R, len(examples.sources))
        targets = np.bincount(sources_R, examples.targets[self.fed.records_R], len(examples.sources))
        return {name: float(sums[i] / targets[i]) for i, name in enumerate(examples.sources) if targets[i]}

    def records(self, examples: Tokens) -> Sequence[RecordInStep]:
        """Give the step's records, highest loss first; a loss that is not a number stands before all others."""
        means_R = self.sums_R / examples.targets[self.fed.records_R]
        order = np.argsort(-np.where(np.isfinite(means_R), means_R, np.inf), kind="stable")
        found: list[RecordInStep] = []
        for at in order.tolist():
            i = int(self.fed.records_R[at])
            found.append(
                RecordInStep(str(examples.ids[i].as_py()), examples.sources[examples.source_of[i]], float(means_R[at]))
            )
        return found


def memory_gb(device: torch.device) -> float:
    """Give the most memory held so far, of the GPU or the process, in units of 10^9 bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


class Stopwatch:
    """The seconds of each step, from one reading to the next; `restart` leaves out what lies between."""

    def __init__(self) -> None:
        self._mark = time.perf_counter()

    def restart(self) -> None:
        """Count from now on."""
        self._mark = time.perf_counter()

    def lap(self) -> float:
        """Give the seconds since the last lap, above 0, and count from now on."""
        before, self._mark = self._mark, time.perf_counter()
        return max(self._mark - before, 1e-9)
