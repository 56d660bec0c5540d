"""The law: killed at any point and resumed, a run ends with the same weights, bit for bit."""

import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from schemas.errors import CheckFailedError, ConfigError, InputError, RunInterruptedError, StoreError
from schemas.train_config import TrainConfig
from tests.train.world import Watcher
from train.evaluation.losses import evaluation
from train.model.trainee import Trainee
from train.plan import make_plan
from train.run import checkpoint, folder, interruption, loop
from train.run.checkpoint import Cursor, Identity
from train.run.folder import RunFolder
from train.run.measuring import score
from train.run.parts import Run
from train.run.progress import Progress
from train.step.optimizer import lr_at, make_optimizer
from train.text.template import Encoded
from train.text.tokens import Tokens

IDENTITY = Identity("m" * 64, "v" * 64, "t" * 32, "p" * 32, "b" * 64, "k" * 32)

TrainIn = Callable[..., tuple[Run, Cursor]]


class KilledError(Exception):
    """Stands for a kill: nothing of the run gets to clean up."""


@pytest.fixture
def run_in(encoded: Encoded, trainee_of: Callable[..., Trainee]) -> Callable[..., Run]:
    """Make a run of 12 steps in a folder, with dropout so that random numbers matter."""

    def make(path: Path, watcher: Watcher | None = None, identity: Identity = IDENTITY, **settings: Any) -> Run:
        chosen = {
            "batch": 4, "lr": 5e-3, "max_steps": 12, "save_every": 2, "lora_dropout": 0.2, "eval_every": 3, **settings
        }  # fmt: skip
        config = TrainConfig(model="small", device="cpu", **chosen)
        trainee = trainee_of(**chosen)
        train, val = Tokens.of(encoded.examples[:18]), Tokens.of(encoded.examples[18:])
        plan = make_plan(
            train,
            max_tokens=128,
            batch=config.batch,
            max_epochs=config.max_epochs,
            max_steps=config.max_steps,
            seed=config.seed,
        )
        path.mkdir(exist_ok=True)
        return Run(config, trainee, plan, train, val, identity, RunFolder(path), watcher or Watcher(), "go on")

    return make


def weights_of(run: Run) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in run.trainee.trainable()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


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


def test_fp16_learns_and_a_step_that_overflows_changes_no_weight(
    run_in: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scale that is far too large is halved until the gradients fit; those steps leave the weights alone."""
    run = run_in(tmp_path, method="full", precision="fp16", max_steps=30)
    before = weights_of(run)
    seen: list[bool] = []
    monkeypatch.setattr(run.listener, "step", lambda _: seen.append(same(weights_of(run), before)))
    monkeypatch.setattr(loop, "GradScaler", lambda *a, **k: torch.amp.GradScaler(*a, **k, init_scale=2.0**33))
    cursor, _ = loop.train(run, resume=False)
    skipped = [line["grad_norm"] is None for line in run.folder.metrics() if "grad_norm" in line]
    assert any(skipped)
    assert not all(skipped)
    first = skipped.index(False)
    assert seen[:first] == [True] * first
    assert not seen[first]
    assert cursor.last_loss is not None
    assert cursor.first_loss is not None
    assert cursor.last_loss < cursor.first_loss


def timeless(cursor: Cursor) -> Cursor:
    return replace(cursor, seconds=0, wall=0, begun=0)


TIMES = {"tokens_per_s", "seconds", "memory_gb"}


def lines(run: Run) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in TIMES} for line in run.folder.metrics()]


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


def test_checkpoints_hold_no_pickle_and_the_last_two_are_kept(tmp_path: Path, run_in: Callable[..., Run]) -> None:
    loop.train(run_in(tmp_path / "run"), resume=False)
    places = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert [p.name for p in places] == ["step-10", "step-12"]
    assert {f.suffix for f in places[0].iterdir()} == {".safetensors", ".json"}


@pytest.mark.parametrize("field", ["manifest", "train_visible", "template", "plan", "base", "tokenizer"])
def test_a_checkpoint_of_another_run_is_refused_saying_what_differs(
    tmp_path: Path, run_in: Callable[..., Run], field: str
) -> None:
    loop.train(run_in(tmp_path / "run", max_steps=2), resume=False)
    other = replace(IDENTITY, **{field: "other"})
    with pytest.raises(ConfigError, match=r"was .* in the checkpoint and is other now"):
        loop.train(run_in(tmp_path / "run", identity=other, max_steps=2), resume=True)


def test_a_broken_checkpoint_is_one_line_with_the_way_out(tmp_path: Path, run_in: Callable[..., Run]) -> None:
    loop.train(run_in(tmp_path / "run", max_steps=2), resume=False)
    weights = tmp_path / "run" / "checkpoints" / "step-2" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:40])
    with pytest.raises(InputError, match=r"weights.safetensors is not what was written.*remove this folder"):
        loop.train(run_in(tmp_path / "run", max_steps=2), resume=True)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_how_a_step_is_cut_into_passes_changes_nothing_but_rounding(
    tmp_path: Path, run_in: Callable[..., Run], method: str
) -> None:
    settings = {"batch": 12, "max_steps": 3, "lora_dropout": 0.0, "method": method}
    losses = []
    for micro_batch in (1, 2, 99):
        watcher = Watcher()
        run = run_in(tmp_path / str(micro_batch), watcher, micro_batch=micro_batch, **settings)
        assert run.plan.rows_per_step > 2
        loop.train(run, resume=False)
        losses.append(watcher.losses)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=1e-5)


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


def read_late(monkeypatch: pytest.MonkeyPatch, late: int) -> None:
    """Read what steps measured so many steps late, as on a GPU."""
    made = Progress.__init__

    def init(self: Progress, *arguments: Any) -> None:
        made(self, *arguments)
        self._late = late

    monkeypatch.setattr(Progress, "__init__", init)


def test_reading_late_changes_nothing(
    tmp_path: Path, run_in: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once, late = run_in(tmp_path / "at-once"), run_in(tmp_path / "late")
    first, _ = loop.train(at_once, resume=False)
    read_late(monkeypatch, 1)
    second, _ = loop.train(late, resume=False)
    assert same(weights_of(at_once), weights_of(late))
    assert lines(at_once) == lines(late)
    assert timeless(first) == timeless(second)


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


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


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


NO_SPACE = OSError(28, "No space left on device")
IN_RUST = SafetensorError("I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(("fatal_call", "error"), [(0, IN_RUST), (1, NO_SPACE), (2, IN_RUST)])
def test_a_disk_full_at_a_checkpoint_leaves_the_one_before_it_and_the_run_goes_on_to_the_same_weights(
    tmp_path: Path, run_in: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, fatal_call: int, error: Exception
) -> None:
    """Whichever of a checkpoint's files does not fit: half of it is written, and then the disk is full."""
    settings = {"max_steps": 6, "method": "full", "eval_every": 100}
    whole = run_in(tmp_path / "whole", **settings)
    loop.train(whole, resume=False)
    left = iter([None] * (3 + fatal_call))  # the first checkpoint has three files

    def fill(tensors: dict[str, torch.Tensor], file: Path) -> None:
        save_file(tensors, file)
        if next(left, error) is not None:
            file.write_bytes(file.read_bytes()[:100])
            raise error

    full = run_in(tmp_path / "full", **settings)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save_file", fill)
        full_disk = pytest.raises(StoreError, match="the disk is full; the last checkpoint is step-2")
        with full_disk, interruption.told(full.folder, "go on"):
            loop.train(full, resume=False)
    assert [p.name for p in full.folder.checkpoints.iterdir()] == ["step-2"]
    resumed = run_in(tmp_path / "full", **settings)
    loop.train(resumed, resume=True)
    assert same(weights_of(resumed), weights_of(whole))
    assert lines(resumed) == lines(whole)


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


def test_metrics_hold_what_the_design_names(tmp_path: Path, run_in: Callable[..., Run]) -> None:
    run = run_in(tmp_path / "run", max_steps=3)
    loop.train(run, resume=False)
    steps = [line for line in run.folder.metrics() if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3]
    assert steps[0].keys() >= {"step", "loss", "lr", "tokens_per_s", "tokens"}
    (evaluated,) = [line for line in run.folder.metrics() if "val_loss" in line]
    assert evaluated["val_perplexity"] == pytest.approx(math.exp(evaluated["val_loss"]))
    assert evaluated["val_loss_by_source"].keys() == {"a", "b"}


def test_the_learning_rate_rises_then_follows_a_cosine_to_zero() -> None:
    config = TrainConfig(lr=1.0, warmup_ratio=0.1)
    rates = [lr_at(step / 100, config) for step in range(100)]
    assert all(rate > 0 for rate in rates)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 0.001


def test_a_metric_line_cut_short_by_a_crash_is_left_out(tmp_path: Path) -> None:
    place = RunFolder(tmp_path)
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1}) + "\n" + '{"step": 2, "lo')
    assert place.metrics() == [{"step": 1}]


def test_leftovers_of_a_killed_write_are_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / ".step-8.tmp").mkdir()
    (tmp_path / "step-4").mkdir()
    assert checkpoint.latest(tmp_path) == tmp_path / "step-4"


def test_weight_decay_pulls_matrices_and_leaves_vectors_and_norms(trainee_of: Callable[..., Trainee]) -> None:
    trainee = trainee_of(method="full")
    before = {name: p.detach().clone() for name, p in trainee.trainable()}
    optimizer = make_optimizer(trainee.trainable(), TrainConfig(lr=0.1, weight_decay=0.5))
    for _, p in trainee.trainable():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in trainee.trainable():
        torch.testing.assert_close(p.detach(), before[name] * (0.95 if p.ndim > 1 else 1.0))
    assert {p.ndim for p in before.values()} == {1, 2}


def test_a_folder_whose_writing_fails_leaves_the_one_before_it_and_no_leftover(tmp_path: Path) -> None:
    with folder.whole_folder(tmp_path / "best") as place:
        (place / "weights").write_text("good")

    def fill() -> None:
        with folder.whole_folder(tmp_path / "best") as place:
            (place / "weights").write_text("ha")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fill()
    assert [p.name for p in tmp_path.iterdir()] == ["best"]
    assert (tmp_path / "best" / "weights").read_text() == "good"


@pytest.mark.parametrize(
    "settings", [{"seed": 2**63}, {"lr": math.inf}, {"clip": math.nan}, {"weight_decay": math.inf}, {"lr": math.nan}]
)
def test_seeds_and_rates_that_torch_cannot_take_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        TrainConfig(**settings)
    assert TrainConfig(seed=2**63 - 1).seed == 2**63 - 1
