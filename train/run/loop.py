"""The training loop: read it from top to bottom.

Each step takes its rows from the plan, in forward passes of `micro_batch` rows; the loss of every pass is divided by
the targets of the whole step, so that gradients are those of one large batch however it is cut (transformers#34191,
torchtune#1875). After a step come its metrics, then an evaluation where one is due, then a checkpoint: in this order,
so that a run that is killed anywhere repeats what came after its last checkpoint, and ends with the same weights.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from peft import PeftModel
from torch.amp.grad_scaler import GradScaler

from schemas.errors import CheckFailedError, RunInterruptedError
from schemas.train_config import TrainConfig
from train.evaluation.losses import Evaluation, RecordLoss, evaluation, record_losses
from train.model.load import Trainee
from train.plan import Plan, Step
from train.run import checkpoint
from train.run.checkpoint import Cursor, Identity
from train.run.folder import RunFolder, whole_folder
from train.step.batch import make_batch
from train.step.optimizer import lr_at, make_optimizer, set_lr
from train.text.tokens import Example, Tokens

EVALUATIONS = 10
"""Evaluations per run where nothing else is asked for: enough to see a curve, and a few percent of the time."""


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """What is known after a step. `step` counts from 1; `loss` is in nats per target of the whole step."""

    step: int
    total: int
    loss: float
    lr: float
    grad_norm: float
    tokens: int
    tokens_per_s: float


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
    """Everything that a run is made of, known before step 0."""

    config: TrainConfig
    trainee: Trainee
    plan: Plan
    train: Tokens
    val: Tokens
    identity: Identity
    folder: RunFolder
    listener: Listener
    resume_with: str

    def say(self, line: str) -> None:
        """Write a line to the log and to whoever listens."""
        self.folder.log(line)
        self.listener.note(line)


def train(run: Run, *, resume: bool) -> tuple[Cursor, Evaluation | None]:
    """Train by the plan, from the start or the last checkpoint. Gives where it ended, and the last evaluation.

    Raises CheckFailedError for a loss that is not a number, RunInterruptedError after SIGINT or SIGTERM, ConfigError
    for a checkpoint of another run.
    """
    config, plan, trainee = run.config, run.plan, run.trainee
    total = len(plan.steps)
    optimizer = make_optimizer(trainee.trainable(), config)
    torch.manual_seed(config.seed)
    scaler = GradScaler(trainee.device.device.type, enabled=trainee.device.autocast is torch.float16)
    cursor = _begin(run, optimizer, scaler, resume=resume)
    every = config.eval_every or max(1, total // EVALUATIONS)
    last_eval: Evaluation | None = None
    trainee.model.train()
    with _signals() as caught:
        while cursor.step < total and not cursor.stopped:
            step = plan.steps[cursor.step]
            cursor = _one_step(run, optimizer, scaler, cursor, step)
            due = cursor.step % every == 0 or cursor.step == total
            if due and run.val:
                last_eval = evaluate(run, cursor.step)
                cursor = _judge(run, cursor, last_eval)
            if caught or cursor.stopped or cursor.step == total or cursor.step % config.save_every == 0:
                checkpoint.save(
                    run.folder.checkpoints, cursor, run.identity, trainee=trainee, optimizer=optimizer, scaler=scaler
                )
            if caught and cursor.step < total and not cursor.stopped:
                raise RunInterruptedError(
                    f"run {run.folder.path}",
                    f"{signal.Signals(caught[0]).name} after step {cursor.step} of {total}; a checkpoint is written",
                    remedy=f"go on with: {run.resume_with}",
                )
    if run.val and last_eval is None:  # resumed after the last step: the same weights give the same evaluation
        last_eval = evaluation(cursor.step, score(run, run.val, "validation"))
    return cursor, last_eval


def _begin(run: Run, optimizer: torch.optim.Optimizer, scaler: GradScaler, *, resume: bool) -> Cursor:
    found = checkpoint.latest(run.folder.checkpoints) if resume else None
    if found is None:
        if resume:
            run.say("no checkpoint yet: starting from the beginning")
        run.folder.rewind(0)
        return Cursor()
    cursor = checkpoint.load(found, run.identity, run.trainee, optimizer, scaler)
    run.folder.rewind(cursor.step)
    run.say(f"resumed from {found.name} of {len(run.plan.steps)} steps")
    return cursor


def _one_step(run: Run, optimizer: torch.optim.Optimizer, scaler: GradScaler, cursor: Cursor, step: Step) -> Cursor:
    """Make one optimizer step, and tell of it.

    Under fp16 the loss is scaled so that small gradients do not vanish; a step whose scaled gradients overflow changes
    no weight, and the scale is halved. In other precisions the scaler does nothing.
    """
    config, trainee, device = run.config, run.trainee, run.trainee.device
    started = time.perf_counter()
    targets = sum(run.train[i].targets for row in step.rows for i in row)
    loss_sum = torch.zeros((), dtype=torch.float64)
    tokens = 0
    for at in range(0, len(step.rows), config.micro_batch):
        batch = make_batch(run.train, step.rows[at : at + config.micro_batch]).to(device.device)
        with device.compute():
            nll_M = trainee.nll(batch)
        scaler.scale(nll_M.sum() / targets).backward()
        loss_sum += nll_M.detach().sum().double().cpu()
        tokens += batch.tokens
    number = cursor.step + 1
    loss = loss_sum.item() / targets
    _check_finite(run, "loss", loss, number)
    scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_([p for _, p in trainee.trainable()], config.clip).item()
    overflow = not math.isfinite(norm) and scaler.is_enabled() and scaler.get_scale() > 1
    if not overflow:
        _check_finite(run, "gradient norm", norm, number)
    lr = lr_at(cursor.step, len(run.plan.steps), config)
    set_lr(optimizer, lr)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)

    took = time.perf_counter() - started
    metrics = StepMetrics(number, len(run.plan.steps), loss, lr, norm, cursor.tokens + tokens, tokens / took)
    run.folder.metric(
        {
            "step": number,
            "epoch": step.epoch,
            "loss": loss,
            "lr": lr,
            "grad_norm": None if overflow else norm,
            "tokens_per_s": round(metrics.tokens_per_s, 1),
            "tokens": metrics.tokens,
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


def evaluate(run: Run, step: int) -> Evaluation:
    """Score the validation split, which has at least one record; write its metrics and tell of it."""
    found = evaluation(step, score(run, run.val, "validation"))
    run.folder.metric(found.metrics())
    run.folder.log(f"step {step}: validation loss {found.overall.loss:.4f}, perplexity {found.overall.perplexity:.2f}")
    run.listener.evaluated(found)
    return found


def save_weights(trainee: Trainee, path: Path) -> None:
    """Write weights and tokenizer so that plain transformers (full) or plain peft (lora) loads them."""
    with trainee.stock_attention(), whole_folder(path) as place:
        if isinstance(trainee.model, PeftModel):
            # Without this peft asks the hub whether the base model's vocabulary has grown; ours never does.
            trainee.model.save_pretrained(str(place), save_embedding_layers=False)
        else:
            trainee.model.save_pretrained(str(place))
        trainee.tokenizer.save_pretrained(str(place))


def score(run: Run, examples: Sequence[Example], what: str) -> tuple[RecordLoss, ...]:
    """Give the loss of each example under the current weights; whoever listens hears of it as work named `what`."""
    return record_losses(
        run.trainee,
        examples,
        max_tokens=run.plan.max_tokens,
        micro_batch=run.config.micro_batch,
        on_records=run.listener.work(what, len(examples)),
    )


def _judge(run: Run, cursor: Cursor, found: Evaluation) -> Cursor:
    """Keep the best weights; stop once the validation loss has not fallen for `patience` evaluations.

    A run of a given number of steps is asked for exactly that many: it does not stop early.
    """
    loss = found.overall.loss
    _check_finite(run, "validation loss", loss, cursor.step)
    if cursor.best_loss is None or loss < cursor.best_loss:
        save_weights(run.trainee, run.folder.path / "best")
        return replace(cursor, best_loss=loss, best_step=cursor.step, stale=0)
    stale = cursor.stale + 1
    stopped = run.config.max_steps is None and stale >= run.config.patience
    if stopped:
        run.say(f"stopped early at step {cursor.step}: no lower validation loss since step {cursor.best_step}")
    return replace(cursor, stale=stale, stopped=stopped)


def _check_finite(run: Run, what: str, value: float, step: int) -> None:
    if math.isfinite(value):
        return
    raise CheckFailedError(
        f"step {step} of run {run.folder.path}",
        f"the {what} is {value}",
        "a finite number",
        f"lower --lr (now {run.config.resolved_lr():g}) or --clip, and look at the step's records",
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
