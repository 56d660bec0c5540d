"""What the steps of a run measured: read late, told, looked at for spikes and for what is not finite."""

import math
from collections import deque
from dataclasses import asdict, replace

from torch import Tensor

from schemas.errors import CheckFailedError
from train.run import checkpoint
from train.run.checkpoint import Cursor
from train.run.parts import Run
from train.run.reading import Measured, Reading, StepMetrics, Stopwatch, memory_gb
from train.run.spikes import Spikes
from train.step.optimizer import Updater

NAMED = 3
"""Records that a line names; all of the step are in spikes.jsonl."""


class Progress:
    """The steps that were launched and not yet read, and what is known of those that were.

    On CUDA the host runs ahead of the device, and a step is read when the next one has been launched. A CPU has done a
    step when its call returns, and the scaler of fp16 must know of an overflow before the next step.
    """

    def __init__(self, run: Run, updater: Updater) -> None:
        self._run, self._updater = run, updater
        self._late = int(updater.halted.is_cuda and not updater.scaler.is_enabled())
        self._waiting: deque[Reading] = deque()
        self._spikes = Spikes.after(line["loss"] for line in run.folder.metrics() if "loss" in line)
        self._watch = Stopwatch()

    def add(self, reading: Reading, cursor: Cursor) -> Cursor:
        """Take a step that was launched, and read what need not be waited for. Gives the cursor after what was read."""
        self._waiting.append(reading)
        return self._read(cursor, self._late)

    def all(self, cursor: Cursor) -> Cursor:
        """Read all steps that were launched: the device is waited for. Gives the cursor after the last of them."""
        return self._read(cursor, 0)

    def pause_over(self) -> None:
        """Leave the time since the last step out of the next one's: measuring and saving are no part of a step."""
        self._watch.restart()

    def _read(self, cursor: Cursor, left: int) -> Cursor:
        while len(self._waiting) > left:
            found = self._waiting.popleft().read()
            cursor = _tell(self._run, self._updater, found, cursor, self._watch.lap())
            if (usual := self._spikes.usual(found.loss)) is not None:
                _tell_spike(self._run, found, usual, first=cursor.spikes == 0)
                cursor = replace(cursor, spikes=cursor.spikes + 1)
        return cursor


def _tell(run: Run, updater: Updater, found: Measured, cursor: Cursor, took: float) -> Cursor:
    """Tell of a step, which took so many seconds. Gives the cursor after it."""
    number, loss = found.fed.number, found.loss
    overflow = found.skipped and updater.scaler.is_enabled() and updater.scaler.get_scale() > 1
    if not math.isfinite(loss) or (found.skipped and not overflow):
        raise _not_finite(run, updater, found, cursor)
    metrics = StepMetrics(
        step=number,
        total=len(run.plan),
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
            "loss_by_source": found.by_source(run.examples),
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


def _tell_spike(run: Run, found: Measured, usual: float, *, first: bool) -> None:
    """Write a spike down with its records; the first of a run is also said."""
    worst = _write_spike(run, found, usual)
    if first:
        run.say(
            f"warning: the loss leapt to {found.loss:.3f} at step {found.fed.number}, where {usual:.3f} was usual: "
            f"highest {worst}; all of the step, and later leaps, are in spikes.jsonl"
        )


def _write_spike(run: Run, found: Measured, usual: float | None) -> str:
    """Add a step to spikes.jsonl; give its first records in words. Losses that are not finite are null in the file."""
    records = found.records(run.examples)
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
        save(run, updater, cursor, random=found.reading.random)
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


def save(run: Run, updater: Updater, cursor: Cursor, *, random: dict[str, Tensor] | None = None) -> None:
    """Write a checkpoint, with how long the run has taken. `random`: the generators' state, by default that of now."""
    checkpoint.save(
        run.folder.checkpoints,
        replace(cursor, wall=run.clock.seconds()),
        run.identity,
        trainee=run.trainee,
        updater=updater,
        random=random,
    )
