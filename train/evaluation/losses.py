"""The loss of each record, and what it sums up to: over all, and per source.

A record's loss is the mean negative log-likelihood of its targets, in nats per token; a source's, and the whole
split's, is the mean over all their targets. Perplexity is exp of it. The same function scores records before and after
training, in validation, and for whoever needs the loss of single records (instruction-following difficulty).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from train.model.trainee import Trainee
from train.plan import pack
from train.step import processes
from train.step.batch import idle_batch, make_batch, sent
from train.text.tokens import Example, Tokens


@dataclass(frozen=True, slots=True)
class RecordLoss:
    """The loss of one record: the sum over its targets in nats, and how many there are."""

    id: str
    source: str
    targets: int
    nll_sum: float

    @property
    def mean(self) -> float:
        """Nats per target."""
        return self.nll_sum / self.targets


@dataclass(frozen=True, slots=True, eq=False)
class Losses(Sequence[RecordLoss]):
    """The losses of E records, in columns: a million of them cost no million objects."""

    ids: pa.StringArray  # (E,)
    sources: tuple[str, ...]
    source_of: npt.NDArray[np.int32]  # (E,) index into sources
    targets: npt.NDArray[np.int64]  # (E,)
    nll_sums: npt.NDArray[np.float64]  # (E,) nats

    @classmethod
    def of(cls, examples: Tokens, nll_sums: npt.NDArray[np.float64]) -> "Losses":
        """Join examples and the sums over their targets."""
        return cls(examples.ids, examples.sources, examples.source_of, examples.targets.astype(np.int64), nll_sums)

    def __len__(self) -> int:
        return len(self.targets)

    @overload
    def __getitem__(self, at: int) -> RecordLoss: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[RecordLoss, ...]: ...
    def __getitem__(self, at: int | slice) -> RecordLoss | tuple[RecordLoss, ...]:
        if isinstance(at, slice):
            return tuple(self[i] for i in range(*at.indices(len(self))))
        source = self.sources[self.source_of[at]]
        return RecordLoss(self.ids[at].as_py(), source, int(self.targets[at]), float(self.nll_sums[at]))

    def __iter__(self) -> Iterator[RecordLoss]:
        return (self[i] for i in range(len(self)))


@dataclass(frozen=True, slots=True)
class LossSummary:
    """The mean loss over the targets of some records, in nats per token."""

    records: int
    targets: int
    loss: float

    @property
    def perplexity(self) -> float:
        """exp(loss), infinite where that is more than a float holds."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """A split's loss, over all and per source, at one step."""

    step: int
    overall: LossSummary
    by_source: dict[str, LossSummary]
    records: Losses

    def metrics(self) -> dict[str, Any]:
        """Give the line of metrics.jsonl. What is not finite is null there, for JSON has no NaN."""
        return {
            "step": self.step,
            "val_loss": _finite(self.overall.loss),
            "val_perplexity": _finite(self.overall.perplexity),
            "val_loss_by_source": {source: _finite(s.loss) for source, s in self.by_source.items()},
            "val_perplexity_by_source": {source: _finite(s.perplexity) for source, s in self.by_source.items()},
        }


def record_losses(
    trainee: Trainee,
    examples: Sequence[Example],
    *,
    max_tokens: int,
    micro_batch: int = 1,
    on_records: Callable[[int], None] | None = None,
) -> Losses:
    """Score each example by itself, packed: losses in the order of the examples. Weights and mode stay as they were.

    The sums stay on the device until the end, so no pass waits for the one before it.
    """
    tokens = Tokens.of(examples)
    rows = pack(tokens.lengths.tolist(), max_tokens)
    ranks, rank = processes.ranks(), processes.rank()
    device = trainee.device.device
    sums_E = torch.zeros(len(tokens), dtype=torch.float64, device=device)
    was_training = trainee.model.training
    trainee.model.eval()
    try:
        with processes.without_gradients():
            for at in range(0, len(rows), micro_batch * ranks):
                together = rows[at : at + micro_batch * ranks]
                own = together[rank * micro_batch : (rank + 1) * micro_batch]
                batch = make_batch(tokens, own) if own else idle_batch(tokens, together[0])
                example_M = sent(torch.as_tensor(batch.records, dtype=torch.int64)[batch.records_M], device)
                on_device = batch.to(device)
                with trainee.device.compute():
                    nll_M = trainee.nll(on_device)
                sums_E.index_add_(0, example_M, nll_M.double())
                if on_records:
                    on_records(sum(map(len, together)))
    finally:
        trainee.model.train(was_training)
    return Losses.of(tokens, processes.add_up(sums_E).cpu().numpy())


def evaluation(step: int, losses: Losses) -> Evaluation:
    """Sum up the losses of at least one record."""
    by_source = {
        source: _summary(losses, losses.source_of == number)
        for number, source in sorted(enumerate(losses.sources), key=lambda named: named[1])
    }
    return Evaluation(
        step,
        _summary(losses, np.ones(len(losses), np.bool_)),
        {source: found for source, found in by_source.items() if found.records},
        losses,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _summary(losses: Losses, chosen_E: npt.NDArray[np.bool_]) -> LossSummary:
    targets = int(losses.targets[chosen_E].sum())
    total = float(losses.nll_sums[chosen_E].sum())
    return LossSummary(int(chosen_E.sum()), targets, total / targets if targets else math.nan)
