"""The training loop: read it from top to bottom.

Each step takes its rows from the plan, in forward passes of `micro_batch` rows; the loss of every pass is divided by
the targets of the whole step, so that gradients are those of one large batch however it is cut (transformers#34191,
torchtune#1875). Batches are made ahead (`train/run/feed.py`), and what a step measured is read while the next one runs
(`train/run/reading.py`): the loop never waits for the device. After a step come its metrics, then an evaluation where
one is due, then a checkpoint: in this order, so that a run that is killed anywhere repeats what came after its last
checkpoint, and ends with the same weights.

A step whose loss or gradients are not finite changes no weight, on the device, and nor does any after it: when the loop
reads of it, the last good state is still there, and is saved.
"""

import math
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import torch
from torch.amp.grad_scaler import GradScaler

from schemas.errors import CheckFailedError, RunInterruptedError
from schemas.train_config import TrainConfig
from train.evaluation.losses import Evaluation, Losses, evaluation, record_losses
from train.evaluation.samples import Prompt, answer
from train.model.load import Trainee
from train.plan import Plan
from train.run import checkpoint
from train.run.budget import Clock, budget_of
from train.run.checkpoint import Cursor, Identity
from train.run.feed import Fed, ahead, fed, on
from train.run.folder import RunFolder
from train.run.reading import Measured, Reading, StepMetrics, Stopwatch, memory_gb
from train.run.spikes import Spikes
from train.run.track import Tracker
from train.run.weights import save_weights
from train.step.optimizer import Updater, lr_at
from train.text.template import Template
from train.text.tokens import Example, Tokens

EVALUATIONS = 10
"""Evaluations per run where nothing else is asked for: enough to see a curve, and a few percent of the time."""

NAMED = 3
"""Records that an error names; all of the step are in spikes.jsonl."""


class Listener(Protocol):
    """Whoever watches a run: the command line, or a test. Raising from it ends the run as a kill would."""

    def note(self, line: str) -> None:
        """Hear one line about the run."""
        ...

    def work(self, what: str, total: int) -> Callable[[int], None]:
        """Hear that work of `total` units begins; what is given back hears of the units done."""
        ...

    def step(self, metrics: StepMetrics) -> None:
        """Hear of an optimizer step."""
        ...

    def evaluated(self, found: Evaluation) -> None:
        """Hear of an evaluation on the validation split."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Everything that a run is made of, known before step 0. `reserve`: seconds that its ending will take."""

    config: TrainConfig
    trainee: Trainee
    plan: Plan
    train: Tokens
    val: Tokens
    identity: Identity
    folder: RunFolder
    listener: Listener
    resume_with: str
    read: Tokens | None = None
    template: Template | None = None
    prompts: tuple[Prompt, ...] = ()
    trackers: tuple[Tracker, ...] = ()
    clock: Clock = field(default_factory=Clock)
    reserve: float = 0.0

    @property
    def examples(self) -> Tokens:
        """What the plan's indices are of: the records of train, and after them those that are replayed."""
        return self.train if self.read is None else self.read

    def say(self, line: str) -> None:
        """Write a line to the log and to whoever listens."""
        self.folder.log(line)
        self.listener.note(line)

    def measured(self, line: dict[str, Any]) -> None:
        """Write a line of metrics to the folder, and to the dashboards that were asked for."""
        self.folder.metric(line)
        for tracker in self.trackers:
            tracker.write(line)


def train(run: Run, *, resume: bool) -> tuple[Cursor, Evaluation | None]:
    """Train by the plan, from the start or the last checkpoint. Gives where it ended, and the last evaluation.

    Raises CheckFailedError for a loss that is not a number, RunInterruptedError after SIGINT or SIGTERM, ConfigError
    for a checkpoint of another run or a budget without time for a step.
    """
    config, clock, total = run.config, run.clock, len(run.plan.steps)
    updater = _updater(run)
    cursor = _begin(run, updater, resume=resume)
    budget = budget_of(config, reserve=run.reserve)
    spikes = Spikes.after(line["loss"] for line in run.folder.metrics() if "loss" in line)
    every = config.eval_every or max(1, total // EVALUATIONS)
    late = _readings_late(updater)
    last_eval: Evaluation | None = None
    waiting: deque[Reading] = deque()
    run.trainee.model.train()
    with _signals() as caught:
        if cursor.owes:
            cursor, last_eval = _evaluate(run, updater, cursor, caught)
            _save(run, updater, cursor)
        if cursor.step == 0:
            budget.check(clock.seconds())
        pinned = run.trainee.device.device.type == "cuda"
        steps = () if cursor.stopped else run.plan.steps
        made = fed(run.examples, steps, first=cursor.step, micro_batch=config.micro_batch, pinned=pinned)
        watch = Stopwatch()
        with ahead(made) as feed:
            for each in feed:
                done = budget.done(each.number - 1, total, wall=clock.seconds(), begun=cursor.begun)
                waiting.append(_launch(run.trainee, updater, each, lr_at(done, config)))

                interrupted, over = bool(caught), budget.over(clock.seconds())
                last = over or each.number == total
                due = last or each.number % every == 0
                saving = last or interrupted or each.number % config.save_every == 0
                while len(waiting) > (0 if due or saving else late):
                    found = waiting.popleft().read()
                    cursor = _read(run, updater, found, cursor, watch.lap())
                    cursor = _look_for_spike(run, spikes, found, cursor)
                if over and each.number < total:
                    cursor = replace(cursor, stopped=True, ended_by=budget.named)
                    run.say(f"stopped at step {cursor.step} of {total}: the {budget.named} of the run are spent")
                if due:
                    cursor, last_eval = _evaluate(run, updater, cursor, caught)
                if saving or cursor.stopped:
                    _save(run, updater, cursor)
                if interrupted and not last and not cursor.stopped:
                    raise _interruption(run, caught[0], cursor, "after")
                if cursor.stopped:
                    break
                if due or saving:
                    watch.restart()  # measuring and saving are no part of a step's time
    if run.val and last_eval is None:  # resumed after the last step: the same weights give the same evaluation
        last_eval = evaluation(cursor.step, score(run, run.val, "validation"))
    planned = "steps" if config.max_steps is not None else "epochs"
    return replace(cursor, wall=clock.seconds(), ended_by=cursor.ended_by or planned), last_eval


def _updater(run: Run) -> Updater:
    torch.manual_seed(run.config.seed)
    device = run.trainee.device
    scaler = GradScaler(device.device.type, enabled=device.autocast is torch.float16)
    return Updater(run.trainee.trainable(), run.config, scaler=scaler)


def _begin(run: Run, updater: Updater, *, resume: bool) -> Cursor:
    cursor = checkpoint.resume(run.folder.checkpoints, run.identity, run.trainee, updater, run.say) if resume else None
    if cursor is None:
        if resume:
            run.say("no checkpoint yet: starting from the beginning")
        run.folder.rewind(0)
        cursor = Cursor(begun=run.clock.seconds())
    else:
        run.folder.rewind(cursor.step, evaluated=not cursor.owes)
        run.clock.before += cursor.wall
        run.say(f"resumed from step-{cursor.step} of {len(run.plan.steps)} steps")
    for tracker in run.trackers:
        tracker.begin(run.folder.metrics())
    return cursor


def _readings_late(updater: Updater) -> int:
    """Give how many steps late measurements are read: one on CUDA, where the host runs ahead of the device.

    A CPU has done a step when its call returns. The scaler of fp16 must know of an overflow before the next step.
    """
    return int(updater.halted.is_cuda and not updater.scaler.is_enabled())


def _launch(trainee: Trainee, updater: Updater, each: Fed, lr: float) -> Reading:
    """Make one optimizer step on the device. Nothing here waits for it."""
    random = checkpoint.random_state(trainee)
    sums_R = torch.zeros(len(each.records_R), dtype=torch.float64, device=trainee.device.device)
    at = 0
    for batch in each.passes:
        here = on(trainee.device.device, batch)
        with trainee.device.compute():
            nll_M = trainee.nll(here)
        updater.scaler.scale(nll_M.sum() / each.targets).backward()
        sums_R.index_add_(0, here.records_M + at, nll_M.detach().double())
        at += len(batch.records)
    norm, skipped = updater.step(lr, sums_R.sum())
    return Reading.of(each, lr, random, torch.cat([norm.double()[None], skipped.double()[None], sums_R]))


def _read(run: Run, updater: Updater, found: Measured, cursor: Cursor, took: float) -> Cursor:
    """Tell of a step, which took so many seconds. Gives the cursor after it."""
    number, loss = found.fed.number, found.loss
    overflow = found.skipped and updater.scaler.is_enabled() and updater.scaler.get_scale() > 1
    if not math.isfinite(loss) or (found.skipped and not overflow):
        raise _not_finite(run, updater, found, cursor)
    metrics = StepMetrics(
        step=number,
        total=len(run.plan.steps),
        loss=loss,
        lr=found.reading.lr,
        grad_norm=found.grad_norm,
        tokens=cursor.tokens + found.fed.tokens,
        tokens_per_s=found.fed.tokens / took,
        seconds=run.clock.seconds(),
        memory_gb=memory_gb(run.trainee.device.device),
    )
    run.measured(
        {
            "step": number,
            "epoch": found.fed.epoch,
            "loss": loss,
            "lr": metrics.lr,
            "grad_norm": None if overflow else metrics.grad_norm,
            "tokens_per_s": round(metrics.tokens_per_s, 1),
            "tokens": metrics.tokens,
            "seconds": round(metrics.seconds, 3),
            "memory_gb": round(metrics.memory_gb, 3),
            "loss_by_source": found.by_source(run.train),
        }
    )
    run.listener.step(metrics)
    return replace(
        cursor,
        step=number,
        tokens=metrics.tokens,
        seconds=cursor.seconds + took,
        first_loss=loss if cursor.first_loss is None else cursor.first_loss,
        last_loss=loss,
    )


def _look_for_spike(run: Run, spikes: Spikes, found: Measured, cursor: Cursor) -> Cursor:
    """Write a spike down with its records; the first of a run is also said. Gives the cursor that counts it."""
    usual = spikes.usual(found.loss)
    if usual is None:
        return cursor
    worst = _write_spike(run, found, usual)
    if not cursor.spikes:
        run.say(
            f"warning: the loss leapt to {found.loss:.3f} at step {found.fed.number}, where {usual:.3f} was usual: "
            f"highest {worst}; all of the step, and later leaps, are in spikes.jsonl"
        )
    return replace(cursor, spikes=cursor.spikes + 1)


def _write_spike(run: Run, found: Measured, usual: float | None) -> str:
    """Add a step to spikes.jsonl; give its first records in words. Losses that are not finite are null in the file."""
    records = found.records(run.train)
    run.folder.append(
        "spikes.jsonl",
        {
            "step": found.fed.number,
            "loss": _finite(found.loss),
            "expected": usual,
            "records": [{**asdict(record), "loss": _finite(record.loss)} for record in records],
        },
    )
    return ", ".join(f"record {r.id} of {r.source} (loss {r.loss:.3f})" for r in records[:NAMED])


def _not_finite(run: Run, updater: Updater, found: Measured, cursor: Cursor) -> CheckFailedError:
    """Save the state before a step that gave no finite number, and make the error that names the step's records."""
    number = found.fed.number
    worst = _write_spike(run, found, None)
    kept = "the weights are still those of the base model"
    if cursor.step:
        _save(run, updater, cursor, random=found.reading.random)
        kept = f"the state before it is saved in checkpoints/step-{cursor.step}"
    what, value = ("gradient norm", found.grad_norm) if math.isfinite(found.loss) else ("loss", found.loss)
    more = f" and {len(found.fed.records_R) - NAMED} more (spikes.jsonl)" if len(found.fed.records_R) > NAMED else ""
    return CheckFailedError(
        f"step {number} of run {run.folder.path}",
        f"the {what} is {value}: {worst}{more}; {kept}",
        "a finite number",
        f"lower --lr (now {run.config.resolved_lr():g}) or --clip, or leave these records out, and start anew with "
        f"another --out",
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _evaluate(run: Run, updater: Updater, cursor: Cursor, caught: Sequence[int]) -> tuple[Cursor, Evaluation | None]:
    """Measure the validation split and answer the prompts, and judge what was found.

    A signal ends it at once: the state after the step is saved, and owes this evaluation.
    """
    try:
        found = evaluate(run, cursor.step, caught) if run.val else None
        sample(run, cursor.step, caught)
    except _SignalledError as error:
        cursor = replace(cursor, owes=True)
        _save(run, updater, cursor)
        raise _interruption(run, caught[0], cursor, "in the evaluation after") from error
    cursor = replace(cursor, owes=False)
    return (_judge(run, cursor, found) if found else cursor), found


def evaluate(run: Run, step: int, caught: Sequence[int] = ()) -> Evaluation:
    """Score the validation split, which has at least one record; write its metrics and tell of it."""
    found = evaluation(step, score(run, run.val, "validation", caught))
    run.measured(found.metrics())
    run.folder.log(f"step {step}: validation loss {found.overall.loss:.4f}, perplexity {found.overall.perplexity:.2f}")
    run.listener.evaluated(found)
    return found


def sample(run: Run, step: int, caught: Sequence[int] = ()) -> None:
    """Answer the run's prompts, and add the answers to samples.jsonl."""
    if run.template is None or not run.prompts:
        return
    said = answer(
        run.trainee,
        run.template,
        run.prompts,
        step=step,
        new_tokens=run.config.sample_tokens,
        on_answers=_unless(caught, lambda _: None),
    )
    for one in said:
        run.folder.append("samples.jsonl", asdict(one))


def score(run: Run, examples: Sequence[Example], what: str, caught: Sequence[int] = ()) -> Losses:
    """Give the loss of each example under the current weights; whoever listens hears of it as work named `what`."""
    return record_losses(
        run.trainee,
        examples,
        max_tokens=run.plan.max_tokens,
        micro_batch=run.config.micro_batch,
        on_records=_unless(caught, run.listener.work(what, len(examples))),
    )


class _SignalledError(Exception):
    """A signal came while something was measured."""


def _unless(caught: Sequence[int], tell: Callable[[int], None]) -> Callable[[int], None]:
    """Pass on what is told, and stop once a signal has come."""

    def told(done: int) -> None:
        if caught:
            raise _SignalledError
        tell(done)

    return told


def _judge(run: Run, cursor: Cursor, found: Evaluation) -> Cursor:
    """Keep the best weights; stop once the validation loss has not fallen for `patience` evaluations.

    A run of a given number of steps is asked for exactly that many: it does not stop early.
    """
    loss = found.overall.loss
    if not math.isfinite(loss):
        raise CheckFailedError(
            f"step {cursor.step} of run {run.folder.path}",
            f"the validation loss is {loss}",
            "a finite number",
            f"lower --lr (now {run.config.resolved_lr():g}) or --clip, and start anew with another --out",
        )
    if cursor.best_loss is None or loss < cursor.best_loss:
        save_weights(run.trainee, run.folder.path / "best")
        return replace(cursor, best_loss=loss, best_step=cursor.step, stale=0)
    cursor = replace(cursor, stale=cursor.stale + 1)
    if run.config.max_steps is None and cursor.stale >= run.config.patience and not cursor.stopped:
        run.say(f"stopped early at step {cursor.step}: no lower validation loss since step {cursor.best_step}")
        return replace(cursor, stopped=True, ended_by="patience")
    return cursor


def _save(run: Run, updater: Updater, cursor: Cursor, *, random: dict[str, torch.Tensor] | None = None) -> None:
    cursor = replace(cursor, wall=run.clock.seconds())
    checkpoint.save(run.folder.checkpoints, cursor, run.identity, trainee=run.trainee, updater=updater, random=random)


def _interruption(run: Run, number: int, cursor: Cursor, when: str) -> RunInterruptedError:
    return RunInterruptedError(
        f"run {run.folder.path}",
        f"{signal.Signals(number).name} {when} step {cursor.step} of {len(run.plan.steps)}; a checkpoint is written",
        remedy=f"go on with: {run.resume_with}",
    )


@contextmanager
def _signals() -> Generator[list[int]]:
    """Note SIGINT and SIGTERM instead of dying of them; a second one kills as usual. Signals go to the main thread."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    watched = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in watched}

    def note(number: int, _frame: object) -> None:
        caught.append(number)
        for each in watched:
            signal.signal(each, before[each])

    for number in watched:
        signal.signal(number, note)
    try:
        yield caught
    finally:
        for number in watched:
            signal.signal(number, before[number])
