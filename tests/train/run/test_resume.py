"""The law: killed at any point and resumed, a run ends with the same weights, bit for bit."""

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import RunInterruptedError
from tests.train.run.short_run import KilledError, files_of, lines, same, timeless, weights_of
from tests.train.world import Watcher
from train.model.trainee import Trainee
from train.run import checkpoint, folder, loop
from train.run.checkpoint import Cursor
from train.run.parts import Run


@pytest.mark.parametrize(("method", "precision"), [("lora", "fp32"), ("full", "fp32"), ("full", "fp16")])
def test_killed_after_any_step_and_resumed_gives_the_same_weights_metrics_and_cursor(
    tmp_path: Path, run_in: Callable[..., Run], method: str, precision: str
) -> None:
    run_in = partial(run_in, method=method, precision=precision)
    whole = run_in(tmp_path / "whole")
    before = weights_of(whole)
    cursor, _ = loop.train(whole, resume=False)
    expected = weights_of(whole)
    assert not same(before, expected)

    def kill(_: int) -> None:
        raise KilledError

    for step in (1, 4, 7, 12):  # before a checkpoint, at one, after an evaluation, at the last step
        path = tmp_path / f"killed-{step}"
        with pytest.raises(KilledError):
            loop.train(run_in(path, Watcher(lambda s, at=step: kill(s) if s == at else None)), resume=False)
        resumed = run_in(path)
        again, _ = loop.train(resumed, resume=True)
        assert same(weights_of(resumed), expected), step
        assert timeless(again) == timeless(cursor)
        assert lines(resumed) == lines(whole)


@pytest.mark.parametrize("fatal_call", [1, 3, 6, 8])
def test_killed_while_a_folder_is_written_the_run_resumes_to_the_same_weights(
    tmp_path: Path, run_in: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, fatal_call: int
) -> None:
    whole = run_in(tmp_path / "whole")
    loop.train(whole, resume=False)
    calls = iter(range(1, 1000))

    def fsync(_: int) -> None:
        if next(calls) == 3 * fatal_call:
            raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(folder.os, "fsync", fsync)
        with pytest.raises(KilledError):
            loop.train(run_in(tmp_path / "killed"), resume=False)
    resumed = run_in(tmp_path / "killed")
    loop.train(resumed, resume=True)
    assert same(weights_of(resumed), weights_of(whole))


def test_sigterm_writes_a_checkpoint_says_how_to_go_on_and_the_run_ends_the_same(
    tmp_path: Path, run_in: Callable[..., Run]
) -> None:
    whole = run_in(tmp_path / "whole", save_every=100)
    loop.train(whole, resume=False)
    told = signal.getsignal(signal.SIGTERM)

    def term(step: int) -> None:
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(
        RunInterruptedError, match=r"SIGTERM after step 5 of 12; a checkpoint is written\. Go on"
    ) as error:
        loop.train(run_in(tmp_path / "stopped", Watcher(term), save_every=100), resume=False)
    assert error.value.exit_code == 130
    assert signal.getsignal(signal.SIGTERM) == told
    resumed = run_in(tmp_path / "stopped", save_every=100)
    loop.train(resumed, resume=True)
    assert same(weights_of(resumed), weights_of(whole))


def test_a_signal_in_an_evaluation_ends_it_at_once_and_it_is_made_up_for_when_the_run_goes_on(
    tmp_path: Path, run_in: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_in(tmp_path / "whole", save_every=100)
    loop.train(whole, resume=False)
    stopped = run_in(tmp_path / "stopped", save_every=100)
    work = Watcher.work

    def term(self: Watcher, what: str, total: int) -> Callable[[int], None]:
        if what == "validation" and len(stopped.folder.metrics()) > 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return work(self, what, total)

    with monkeypatch.context() as patched:
        patched.setattr(Watcher, "work", term)
        with pytest.raises(RunInterruptedError, match="SIGTERM in the evaluation after step 6 of 12; a checkpoint is"):
            loop.train(stopped, resume=False)
    resumed = run_in(tmp_path / "stopped", save_every=100)
    loop.train(resumed, resume=True)
    assert same(weights_of(resumed), weights_of(whole))
    assert lines(resumed) == lines(whole)
    assert files_of(tmp_path / "stopped" / "best") == files_of(tmp_path / "whole" / "best")


def test_best_is_of_the_best_evaluation_also_when_killed_between_writing_it_and_the_checkpoint(
    tmp_path: Path, run_in: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"save_every": 5, "lr": 0.05}
    loop.train(run_in(tmp_path / "whole", **settings), resume=False)
    save = loop.save_weights

    def save_and_die(trainee: Trainee, path: Path) -> None:
        save(trainee, path)
        if len(list((tmp_path / "killed" / "checkpoints").glob("step-*"))) == 1:
            raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(loop, "save_weights", save_and_die)
        with pytest.raises(KilledError):
            loop.train(run_in(tmp_path / "killed", **settings), resume=False)
    loop.train(run_in(tmp_path / "killed", **settings), resume=True)
    assert files_of(tmp_path / "killed" / "best") == files_of(tmp_path / "whole" / "best")


def test_a_signal_while_the_last_checkpoint_is_written_ends_the_run_there(
    tmp_path: Path, run_in: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_in(tmp_path / "whole")
    cursor, _ = loop.train(whole, resume=False)
    stopped = run_in(tmp_path / "stopped")
    save = checkpoint.save

    def term(folder: Path, cursor: Cursor, *arguments: Any, **named: Any) -> Path:
        if cursor.step == 12:
            os.kill(os.getpid(), signal.SIGTERM)
        return save(folder, cursor, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", term)
        with pytest.raises(RunInterruptedError, match="SIGTERM after step 12 of 12; a checkpoint is written"):
            loop.train(stopped, resume=False)
    resumed = run_in(tmp_path / "stopped")
    again, _ = loop.train(resumed, resume=True)
    assert same(weights_of(resumed), weights_of(whole))
    assert timeless(again) == timeless(cursor)
