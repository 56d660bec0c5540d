"""A loss that is no number ends a run by name, and moves no weight."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.errors import CheckFailedError
from tests.train.run.short_run import KilledError, read_late
from tests.train.world import Watcher
from train.model.trainee import Trainee
from train.run import checkpoint, loop
from train.run.parts import Run


def test_a_loss_that_is_not_a_number_stops_the_run_and_names_the_step(
    tmp_path: Path, run_in: Callable[..., Run]
) -> None:
    run = run_in(tmp_path / "run", method="full")
    with torch.no_grad():
        next(p for _, p in run.trainee.trainable())[:] = math.nan
    with pytest.raises(CheckFailedError, match=r"step 1 .* the loss is nan.*[Ll]ower --lr"):
        loop.train(run, resume=False)


@pytest.mark.parametrize("late", [0, 1])
def test_a_step_without_a_finite_loss_names_its_records_and_the_last_good_state_is_saved(
    tmp_path: Path, run_in: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, late: int
) -> None:
    """Also where the step is read only after the next one was launched: nothing moves once a step was not sound."""
    good = run_in(tmp_path / "good", save_every=1)
    with pytest.raises(KilledError):
        loop.train(with_kill(good, 6), resume=False)  # step-5 is its last checkpoint
    run = run_in(tmp_path / "run", save_every=100, eval_every=100)
    read_late(monkeypatch, late)
    first = set(run.plan.step(5).rows[0])
    nll = type(run.trainee).nll

    def broken(self: Trainee, batch: Any) -> torch.Tensor:
        found = nll(self, batch)
        return found * math.nan if set(batch.records) == first and len(run.folder.metrics()) > 5 - 2 - late else found

    monkeypatch.setattr(type(run.trainee), "nll", broken)
    with pytest.raises(CheckFailedError, match=r"step 6 .* the loss is nan: record 0\w+ of [ab] \(loss nan\)") as error:
        loop.train(run, resume=False)
    assert "saved in checkpoints/step-5" in str(error.value)
    one, other = (tmp_path / name / "checkpoints" / "step-5" for name in ("good", "run"))
    for name in ("weights.safetensors", "optimizer.safetensors", "random.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    (line,) = run.folder.lines("spikes.jsonl")
    assert line["step"] == 6
    assert line["loss"] is None
    assert len(line["records"]) == sum(map(len, run.plan.step(5).rows))


def with_kill(run: Run, step: int) -> Run:
    def kill(at: int) -> None:
        if at == step:
            raise KilledError

    return replace(run, listener=Watcher(kill))


def test_a_validation_loss_that_is_not_a_number_ends_the_run_and_metrics_stay_json(
    tmp_path: Path, run_in: Callable[..., Run]
) -> None:
    run = run_in(tmp_path / "run", method="full", max_steps=3, save_every=1, eval_every=3)
    watcher = Watcher()

    def break_weights(step: int) -> None:
        if step == 3:
            with torch.no_grad():
                next(p for _, p in run.trainee.trainable())[:] = math.nan

    watcher.at_step = break_weights
    with pytest.raises(CheckFailedError, match=r"step 3 .* the validation loss is nan"):
        loop.train(replace(run, listener=watcher), resume=False)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    held = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    told = [json.loads(line, parse_constant=refuse) for line in held]
    assert [line["val_loss"] for line in told if "val_loss" in line] == [None]
    assert checkpoint.steps(run.folder.checkpoints) == [1, 2]
