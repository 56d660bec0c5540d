"""The loss of each record, and what it sums up to: over all, and per source.

A record's loss is the mean negative log-likelihood of its targets, in nats per token; a source's, and the whole
split's, is the mean over all their targets. Perplexity is exp of it. The same function scores records before and after
training, in validation, and for whoever needs the loss of single records (instruction-following difficulty).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from train.model.load import Trainee
from train.plan import pack
from train.step.batch import make_batch
from train.step.loss import target_records
from train.text.tokens import Example


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


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A split's loss, over all and per source, at one step."""

    step: int
    overall: LossSummary
    by_source: dict[str, LossSummary]
    records: tuple[RecordLoss, ...]

    def metrics(self) -> dict[str, Any]:
        """Give the line of metrics.jsonl."""
        return {
            "step": self.step,
            "val_loss": self.overall.loss,
            "val_perplexity": self.overall.perplexity,
            "val_loss_by_source": {source: s.loss for source, s in self.by_source.items()},
            "val_perplexity_by_source": {source: s.perplexity for source, s in self.by_source.items()},
        }


def record_losses(
    trainee: Trainee,
    examples: Sequence[Example],
    *,
    max_tokens: int,
    micro_batch: int = 1,
    on_records: Callable[[int], None] | None = None,
) -> tuple[RecordLoss, ...]:
    """Score each example by itself, packed: losses in the order of the examples. Weights and mode stay as they were."""
    rows = pack([len(example) for example in examples], max_tokens)
    sums = torch.zeros(len(examples), dtype=torch.float64)
    was_training = trainee.model.training
    trainee.model.eval()
    try:
        with torch.inference_mode():
            for at in range(0, len(rows), micro_batch):
                batch = make_batch(examples, rows[at : at + micro_batch])
                on_device = batch.to(trainee.device.device)
                with trainee.device.compute():
                    nll_M = trainee.nll(on_device)
                per_record = torch.zeros(len(batch.records), dtype=torch.float64)
                per_record.index_add_(0, target_records(batch), nll_M.double().cpu())
                sums[list(batch.records)] = per_record
                if on_records:
                    on_records(len(batch.records))
    finally:
        trainee.model.train(was_training)
    return tuple(RecordLoss(e.id, e.source, e.targets, float(s)) for e, s in zip(examples, sums, strict=True))


def evaluation(step: int, records: Sequence[RecordLoss]) -> Evaluation:
    """Sum up the losses of at least one record."""
    sources: dict[str, list[RecordLoss]] = {}
    for record in records:
        sources.setdefault(record.source, []).append(record)
    by_source = {source: _summary(found) for source, found in sorted(sources.items())}
    return Evaluation(step, _summary(records), by_source, tuple(records))


def _summary(records: Sequence[RecordLoss]) -> LossSummary:
    targets = sum(r.targets for r in records)
    return LossSummary(len(records), targets, sum(r.nll_sum for r in records) / targets)
