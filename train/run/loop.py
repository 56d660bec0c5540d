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
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch.amp.grad_scaler import GradScaler

from schemas.errors import CheckFailedError, RunInterruptedError
from train.evaluation.losses import Evaluation, evaluation
from train.model.trainee import Trainee
from train.run import checkpoint
from train.run.budget import budget_of
from train.run.checkpoint import Cursor
from train.run.feed import Fed, ahead, fed
from train.run.measuring import SignalledError, evaluate, sample, score
from train.run.parts import Run
from train.run.progress import Progress, save
from train.run.reading import Reading
from train.run.weights import save_weights
from train.step.compiled import compile_layers, fixed_shape, wants_compile
from train.step.optimizer import Updater, lr_at
from train.step.processes import add_up, any_of, of_leader, rank, ranks, wait

EVALUATIONS = 10
"""Evaluations per run where nothing else is asked for: enough to see a curve, and a few percent of the time."""


def train(run: Run, *, resume: bool) -> tuple[Cursor, Evaluation | None]:
    """Train by the plan, from the start or the last checkpoint. Gives where it ended, and the last evaluation.

    Raises CheckFailedError for a loss that is not a number, RunInterruptedError after SIGINT or SIGTERM, ConfigError
    for a checkpoint of another run.
    """
    config, clock, total = run.config, run.clock, len(run.plan)
    updater = _updater(run)
    cursor = _begin(run, updater, resume=resume)
    budget = budget_of(config, reserve=run.reserve)
    every = config.eval_every or max(1, total // EVALUATIONS)
    last_eval: Evaluation | None = None
    run.trainee.model.train()
    with _signals() as caught:
        if cursor.owes:
            cursor, last_eval = _evaluate(run, updater, cursor, caught)
            save(run, updater, cursor)
        pinned = run.trainee.device.device.type == "cuda"
        steps = () if cursor.stopped else run.plan
        shape = _compiled(run)
        made = fed(
            run.examples,
            steps,
            first=cursor.step,
            micro_batch=config.micro_batch,
            pinned=pinned,
            shape=shape,
            rank=rank(),
            ranks=ranks(),
        )
        progress = Progress(run, updater)
        with ahead(made) as feed:
            for each in feed:
                done = of_leader(budget.done(each.number - 1, total, wall=clock.seconds(), begun=cursor.begun))
                cursor = progress.add(launch(run.trainee, updater, each, lr_at(done, config)), cursor)

                interrupted = any_of(said=bool(caught))
                over = bool(of_leader(budget.over(clock.seconds())))
                last = over or each.number == total
                due = last or each.number % every == 0
                saving = last or interrupted or each.number % config.save_every == 0
                if due or saving:
                    cursor = progress.all(cursor)
                if over and each.number < total:
                    cursor = replace(cursor, stopped=True, ended_by=budget.named)
                    run.say(f"stopped at step {cursor.step} of {total}: the {budget.named} of the run are spent")
                if due:
                    cursor, last_eval = _evaluate(run, updater, cursor, caught)
                if saving or cursor.stopped:
                    save(run, updater, cursor)
                if interrupted and not last and not cursor.stopped:
                    raise _interruption(run, caught, cursor, "after")
                if cursor.stopped:
                    break
                if due or saving:
                    progress.pause_over()
        # While the last checkpoint was written: it is the run's last state, and scoring may take long.
        if any_of(said=bool(caught)):
            raise _interruption(run, caught, cursor, "after")
    if run.val and last_eval is None:  # resumed after the last step: the same weights give the same evaluation
        last_eval = evaluation(cursor.step, score(run, run.val, "validation"))
    planned = "steps" if config.max_steps is not None else "epochs"
    return replace(cursor, wall=clock.seconds(), ended_by=cursor.ended_by or planned), last_eval


def _compiled(run: Run) -> dict[str, int]:
    """Compile the decoder layers where that is asked for. Gives the one shape that all batches then have."""
    if not wants_compile(run.config, run.trainee.device.device):
        return {}
    layers = compile_layers(run.trainee.network, say=run.say)
    run.say(f"{layers} decoder layers are compiled: the first step takes longer")
    rows = run.config.micro_batch
    most = run.plan.records_per_pass(rows) if ranks() == 1 else rows * run.plan.records_per_row  # dealt otherwise
    longest = int(run.examples.lengths[run.plan.records].max())
    return fixed_shape(most, longest, micro_batch=rows, max_tokens=run.plan.max_tokens)


def _updater(run: Run) -> Updater:
    torch.manual_seed(run.config.seed + rank())  # each process draws numbers of its own
    device = run.trainee.device
    scaler = GradScaler(device.device.type, enabled=device.autocast is torch.float16)
    return Updater(run.trainee.trainable(), run.config, scaler=scaler)


def _begin(run: Run, updater: Updater, *, resume: bool) -> Cursor:
    cursor = checkpoint.resume(run.folder.checkpoints, run.identity, run.trainee, updater, run.say) if resume else None
    wait()  # until all have read the checkpoint that the leader may soon replace
    if cursor is None:
        if resume:
            run.say("no checkpoint yet: starting from the beginning")
        run.folder.rewind(0)
        cursor = Cursor(begun=run.clock.seconds())
    else:
        run.folder.rewind(cursor.step, evaluated=not cursor.owes)
        run.clock.before += cursor.wall
        run.say(f"resumed from step-{cursor.step} of {len(run.plan)} steps")
    for tracker in run.trackers:
        tracker.begin(run.folder.metrics())
    return cursor


def launch(trainee: Trainee, updater: Updater, each: Fed, lr: float) -> Reading:
    """Make one optimizer step on the device. Nothing here waits for it."""
    random = checkpoint.random_state(trainee)
    sums_R = torch.zeros(len(each.records_R), dtype=torch.float64, device=trainee.device.device)
    at = each.first
    for batch in each.passes:
        here = batch.to(trainee.device.device)
        with trainee.device.compute():
            nll_M = trainee.nll(here)
        # Gradients of several processes are averaged: see train/step/sharding.py.
        updater.scaler.scale(nll_M.sum() / (each.targets / ranks())).backward()
        sums_R.index_add_(0, here.records_M + at, nll_M.detach().double())
        at += len(batch.records)
    add_up(sums_R)
    norm, skipped = updater.step(lr, sums_R.sum())
    return Reading.of(each, lr, random, torch.cat([norm.double()[None], skipped.double()[None], sums_R]))


def _evaluate(run: Run, updater: Updater, cursor: Cursor, caught: Sequence[int]) -> tuple[Cursor, Evaluation | None]:
    """Measure the validation split and answer the prompts, and judge what was found.

    A signal ends it at once: the state after the step is saved, and owes this evaluation.
    """
    try:
        found = evaluate(run, cursor.step, caught) if run.val else None
        sample(run, cursor.step, caught)
    except SignalledError as error:
        cursor = replace(cursor, owes=True)
        save(run, updater, cursor)
        raise _interruption(run, caught, cursor, "in the evaluation after") from error
    cursor = replace(cursor, owes=False)
    return (_judge(run, cursor, found) if found else cursor), found


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
    left = cursor.step < len(run.plan) and not cursor.stopped
    if left and run.config.max_steps is None and cursor.stale >= run.config.patience:
        run.say(f"stopped early at step {cursor.step}: no lower validation loss since step {cursor.best_step}")
        return replace(cursor, stopped=True, ended_by="patience")
    return cursor


def _interruption(run: Run, caught: Sequence[int], cursor: Cursor, when: str) -> RunInterruptedError:
    number = caught[0] if caught else signal.SIGTERM  # another process got it
    return RunInterruptedError(
        f"run {run.folder.path}",
        f"{signal.Signals(number).name} {when} step {cursor.step} of {len(run.plan)}; a checkpoint is written",
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
