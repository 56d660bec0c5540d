"""When a run ends before its last step: its time is up, or the validation loss falls no more."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.train.run.short_run import timeless
from tests.train.world import Watcher
from train.evaluation.losses import evaluation
from train.run import checkpoint, loop
from train.run.checkpoint import Cursor
from train.run.measuring import score
from train.run.parts import Run


def test_a_run_whose_time_is_up_evaluates_saves_and_says_so_with_the_rate_near_zero(
    tmp_path: Path, run_in: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(0, 10_000, 10))
    run = run_in(tmp_path / "run", max_hours=200 / 3600, max_steps=None, max_epochs=100)
    monkeypatch.setattr(type(run.clock), "seconds", lambda _: float(next(seconds)))
    cursor, last = loop.train(run, resume=False)
    assert (cursor.stopped, cursor.ended_by) == (True, "hours")
    assert 0 < cursor.step < len(run.plan)
    assert last is not None
    assert last.step == cursor.step
    assert checkpoint.latest(run.folder.checkpoints) == run.folder.checkpoints / f"step-{cursor.step}"
    rates = [line["lr"] for line in run.folder.metrics() if "lr" in line]
    assert rates[-1] < 0.1 * max(rates)
    assert any("the hours of the run are spent" in line for line in run.listener.lines)


def test_training_stops_when_the_validation_loss_stops_falling_and_best_is_the_lowest(
    tmp_path: Path, run_in: Callable[..., Run]
) -> None:
    watcher = Watcher()
    settings = {"method": "full", "lr": 0.3, "max_steps": None, "max_epochs": 30, "eval_every": 1, "patience": 2}
    run = run_in(tmp_path / "run", watcher, **settings)
    cursor, _ = loop.train(run, resume=False)
    found = [e.overall.loss for e in watcher.evaluations]
    assert cursor.stopped
    assert cursor.step < len(run.plan)
    assert cursor.best_loss == min(found)
    assert found.index(min(found)) == len(found) - 3
    assert cursor.best_step == watcher.evaluations[-3].step
    again, _ = loop.train(run_in(tmp_path / "run", **settings), resume=True)
    assert timeless(again) == timeless(cursor)


def test_a_run_that_has_made_all_its_steps_has_not_stopped_early(tmp_path: Path, run_in: Callable[..., Run]) -> None:
    run = run_in(tmp_path / "run", max_steps=None, patience=1)
    found = evaluation(1, score(run, run.val, "validation"))
    for step, stopped in ((len(run.plan) - 1, True), (len(run.plan), False)):
        cursor = loop._judge(run, Cursor(step=step, best_loss=0.0, best_step=1), found)
        assert (cursor.stopped, cursor.ended_by) == (stopped, "patience" if stopped else "")
