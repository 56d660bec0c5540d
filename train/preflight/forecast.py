"""How long a run takes and what it costs, before it starts: from the rehearsal's speed and the counts of the plan.

    training     tokens of the plan / tokens per second of the rehearsal
    evaluation   a forward pass alone takes a third: validation before the run and at each evaluation
    scoring      every train record before and after the run
    samples      tokens generated, one after another, each as long as a forward pass of a token for all prompts

After the run run.json holds this beside what it took.
"""

import time
from dataclasses import dataclass

from schemas.train_config import TrainConfig
from train.model.trainee import Trainee
from train.plan import Plan
from train.preflight.rehearsal import Rehearsal
from train.step import processes, sharding
from train.step.batch import make_batch
from train.text.tokens import Example, Tokens

FORWARD = 1 / 3
"""What a forward pass takes of a forward and a backward one: 2 of 6 FLOPs per weight and token."""

LOW, HIGH = 0.7, 1.5
"""The range that is told. The rehearsal is of the fullest micro-batch, and its speed that of one moment: rows that are
less full cost more per token, the optimizer and the checkpoints come on top."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds of a whole run by what they go into, and money where a price is known."""

    training_s: float
    evaluation_s: float
    scoring_s: float
    samples_s: float
    tokens_per_s: float
    cost: float | None
    ends_at_step: int | None
    """The step that max_hours or max_cost ends the run at; None where all of it fits."""
    steps: int

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.training_s + self.evaluation_s + self.scoring_s + self.samples_s

    @property
    def low_s(self) -> float:
        """The quick end of the range."""
        return LOW * self.seconds

    @property
    def high_s(self) -> float:
        """The slow end of the range."""
        return HIGH * self.seconds

    def lines(self) -> list[str]:
        """Say it in lines for a person."""
        parts = (
            ("training", self.training_s),
            ("evaluation", self.evaluation_s),
            ("scoring every record", self.scoring_s),
            ("samples", self.samples_s),
        )
        told = ", ".join(f"{what} {duration(took)}" for what, took in parts if took >= self.seconds / 100)
        lines = [f"about {duration(self.seconds)} ({duration(self.low_s)} to {duration(self.high_s)}): {told}"]
        if self.cost is not None:
            lines.append(f"about {self.cost:,.2f} ({LOW * self.cost:,.2f} to {HIGH * self.cost:,.2f}) at its price")
        if self.ends_at_step is not None:
            lines.append(f"the limit ends the run at about step {self.ends_at_step:,} of {self.steps:,}")
        return lines


def forecast(
    trainee: Trainee,
    config: TrainConfig,
    plan: Plan,
    rehearsal: Rehearsal,
    *,
    train: Tokens,
    val: Tokens,
    evaluations: int,
) -> Forecast:
    """Forecast a run that evaluates `evaluations` times."""
    speed = rehearsal.tokens_per_s
    training = plan.tokens / speed
    evaluation = (evaluations + 1) * float(val.lengths.sum()) * FORWARD / speed
    scoring = 2 * float(train.lengths.sum()) * FORWARD / speed if config.score_train else 0.0
    written = (evaluations + 1) * config.sample_tokens if config.samples else 0
    samples = written * _token_s(trainee, train, config.samples) if written else 0.0
    limit_hours = config.limit_hours()
    ends = None
    steps = len(plan)
    if limit_hours is not None:
        share = limit_hours * 3600 / max(training + evaluation, 1e-9)
        ends = int(share * steps) if share < 1 else None
        training, evaluation = (took * min(1.0, share) for took in (training, evaluation))
    total = training + evaluation + scoring + samples
    return Forecast(
        training_s=training,
        evaluation_s=evaluation,
        scoring_s=scoring,
        samples_s=samples,
        tokens_per_s=speed,
        cost=None if config.price_per_hour is None else total / 3600 * config.price_per_hour,
        ends_at_step=ends,
        steps=steps,
    )


def duration(seconds: float) -> str:
    """Write a time for a person: 40 s, 12 min, 3 h 20 min, 2 d 4 h."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {rest:02} min"
    return f"{hours // 24} d {hours % 24} h"


def _token_s(trainee: Trainee, train: Tokens, prompts: int) -> float:
    """Time a forward pass of one token for each prompt: they are answered together, a token of each at a time."""
    first = train[0]
    token = Example(first.id, first.source, 1.0, first.input_ids[:1], first.supervised[:1])
    batch = make_batch([token] * prompts, [tuple(range(prompts))])
    was_training = trainee.model.training
    trainee.model.eval()
    try:
        with processes.without_gradients(), trainee.device.compute():
            on_device = batch.to(trainee.device.device)
            took = 0.0
            for _ in range(2):  # the first one warms up
                started = time.perf_counter()
                sharding.passed(
                    trainee.network, lambda: trainee.head(trainee.hidden(on_device)[0])
                ).argmax().item()  # waits for the device
                took = time.perf_counter() - started
    finally:
        trainee.model.train(was_training)
    return took
