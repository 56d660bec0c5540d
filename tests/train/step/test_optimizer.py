"""A step updates by clipped gradients, or changes nothing at all."""

import sys
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.amp.grad_scaler import GradScaler

from schemas.errors import ConfigError
from schemas.train_config import TrainConfig
from train.step.optimizer import Updater, lr_at, make_optimizer

LOSS = torch.tensor(1.0)


def weights() -> list[tuple[str, nn.Parameter]]:
    torch.manual_seed(0)
    return [("matrix", nn.Parameter(torch.randn(80, 80))), ("vector", nn.Parameter(torch.randn(5)))]


def updater(config: TrainConfig | None = None, **options: Any) -> Updater:
    return Updater(weights(), config or TrainConfig(), **options)


def fill(found: Updater, value: float = 1.0) -> None:
    for weight in found.weights:
        weight.grad = torch.full_like(weight, value)


def state_of(found: Updater) -> list[torch.Tensor]:
    moments = [v for state in found.optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
    return [t.detach().clone() for t in (*found.weights, *moments)]


def test_a_step_is_that_of_adamw_with_clipped_gradients() -> None:
    ours = updater(TrainConfig(clip=0.5))
    theirs = [p for _, p in weights()]
    optimizer = torch.optim.AdamW(
        [{"params": theirs[:1], "weight_decay": 0.01}, {"params": theirs[1:], "weight_decay": 0.0}], betas=(0.9, 0.95)
    )
    for lr in (1e-2, 3e-3):
        fill(ours)
        for weight in theirs:
            weight.grad = torch.ones_like(weight)
        norm, skipped = ours.step(lr, LOSS)
        expected = nn.utils.clip_grad_norm_(theirs, 0.5)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        torch.testing.assert_close(norm, expected)
        assert not skipped
        for one, other in zip(ours.weights, theirs, strict=True):
            torch.testing.assert_close(one, other)
    assert all(weight.grad is None for weight in ours.weights)


@pytest.mark.parametrize("name", ["adamw", "adamw8bit"])
@pytest.mark.parametrize(("gradient", "loss"), [(float("nan"), 1.0), (float("inf"), 1.0), (1.0, float("nan"))])
def test_what_is_not_finite_changes_no_weight_and_no_moment_now_or_later(
    name: str, gradient: float, loss: float
) -> None:
    if name != "adamw":
        pytest.importorskip("bitsandbytes")
    found = updater(TrainConfig(optimizer=name))  # type: ignore[arg-type] # a Literal
    fill(found)
    found.step(1e-2, LOSS)
    before = state_of(found)
    fill(found)
    grad = found.weights[1].grad
    assert grad is not None
    grad[2] = gradient
    norm, skipped = found.step(1e-2, torch.tensor(loss))
    assert skipped
    assert not norm.isfinite() or gradient == 1.0
    fill(found)
    found.step(1e-2, LOSS)  # the host has not read of it yet
    assert all(torch.equal(one, other) for one, other in zip(state_of(found), before, strict=True))


def test_an_fp16_overflow_halves_the_scale_and_halts_nothing() -> None:
    found = updater(scaler=GradScaler("cpu", init_scale=2.0**10))
    before = [weight.detach().clone() for weight in found.weights]
    loss = sum((weight * torch.inf).sum() for weight in found.weights)
    found.scaler.scale(loss).backward()
    _, skipped = found.step(1e-2, LOSS)
    assert skipped
    assert found.scaler.get_scale() == 2.0**9
    assert all(torch.equal(one, other) for one, other in zip(found.weights, before, strict=True))
    for weight in found.weights:
        found.scaler.scale(weight.sum()).backward()
    norm, skipped = found.step(1e-2, LOSS)
    assert not skipped
    torch.testing.assert_close(norm, torch.tensor(6405.0).sqrt())  # of gradients whose scale is taken off again
    assert not torch.equal(found.weights[0], before[0])


@pytest.mark.parametrize("loss", [torch.inf, -torch.inf, torch.nan])
def test_under_fp16_a_loss_that_is_not_finite_changes_nothing_also_where_the_gradients_are(loss: float) -> None:
    found = updater(scaler=GradScaler("cpu", init_scale=2.0**10))
    before = [weight.detach().clone() for weight in found.weights]
    found.scaler.scale(sum(weight.sum() for weight in found.weights)).backward()
    _, skipped = found.step(1e-2, torch.tensor(loss, dtype=torch.float64))
    assert skipped
    assert all(torch.equal(one, other) for one, other in zip(found.weights, before, strict=True))


def test_8_bit_moments_take_a_quarter_and_learn_the_same() -> None:
    pytest.importorskip("bitsandbytes")
    whole, small = updater(), updater(TrainConfig(optimizer="adamw8bit"))
    for found in (whole, small):
        for _ in range(3):
            fill(found)
            found.step(1e-2, LOSS)
    state = small.optimizer.state[small.weights[0]]
    assert {state[name].dtype for name in ("state1", "state2")} == {torch.uint8}
    torch.testing.assert_close(small.weights[0], whole.weights[0], rtol=1e-2, atol=1e-3)


def test_paged_moments_without_a_gpu_are_refused() -> None:
    pytest.importorskip("bitsandbytes")
    with pytest.raises(ConfigError, match="no GPU"):
        make_optimizer(weights(), TrainConfig(optimizer="paged_adamw8bit"))


def test_8_bit_moments_without_bitsandbytes_are_one_line_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("bitsandbytes", "bitsandbytes.optim"):  # the latter is there where a test before this one loaded it
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"sft-toolkit\[qlora\]"):
        make_optimizer(weights(), TrainConfig(optimizer="adamw8bit"))


def test_decay_pulls_matrices_alone() -> None:
    found = updater(TrainConfig(weight_decay=0.5))
    before = [weight.detach().clone() for weight in found.weights]
    fill(found, 0.0)
    found.step(0.1, LOSS)
    for weight, was in zip(found.weights, before, strict=True):
        torch.testing.assert_close(weight.detach(), was * (0.95 if was.ndim > 1 else 1.0))


def test_the_learning_rate_rises_then_follows_a_cosine_to_zero() -> None:
    config = TrainConfig(lr=1.0, warmup_ratio=0.1)
    rates = [lr_at(step / 100, config) for step in range(100)]
    assert rates[:11] == sorted(rates[:11])
    assert rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 0.001


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 0.9))
def test_no_step_has_rate_zero_and_none_more_than_the_peak(done: float, warmup: float) -> None:
    rate = lr_at(min(done, 1 - 1e-4), TrainConfig(lr=1.0, warmup_ratio=warmup))
    assert 0 < rate <= 1
