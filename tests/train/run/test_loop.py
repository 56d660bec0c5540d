"""Steps: what they do to the weights however they are cut, read late or overflow, and what is written of them."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.train_config import TrainConfig
from tests.train.run.short_run import lines, read_late, same, timeless, weights_of
from tests.train.world import Watcher
from train.model.trainee import Trainee
from train.run import loop
from train.run.folder import RunFolder
from train.run.parts import Run
from train.step.optimizer import lr_at, make_optimizer


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


@pytest.mark.parametrize(
    "settings", [{"seed": 2**63}, {"lr": math.inf}, {"clip": math.nan}, {"weight_decay": math.inf}, {"lr": math.nan}]
)
def test_seeds_and_rates_that_torch_cannot_take_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        TrainConfig(**settings)
    assert TrainConfig(seed=2**63 - 1).seed == 2**63 - 1
