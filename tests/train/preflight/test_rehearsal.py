"""The worst step is found, made, and leaves no trace; out of memory becomes one line with a way out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.errors import CheckFailedError, ConfigError, SftError
from tests.train.preflight.conftest import config_of, plan_of
from train.model.trainee import Trainee
from train.preflight import rehearsal
from train.preflight.memory import GIB
from train.preflight.rehearsal import (
    check_fits,
    free_memory,
    memory_told,
    rehearse,
    settle_checkpointing,
    told_out_of_memory,
    worst_rows,
)
from train.text.template import Encoded
from train.text.tokens import Tokens

OUT = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 100])
def test_the_worst_micro_batch_is_the_one_with_the_most_tokens_then_targets(encoded: Encoded, micro_batch: int) -> None:
    tokens = Tokens.of(encoded.examples)
    plan = plan_of(tokens, max_tokens=130)

    def weight(rows: Any) -> tuple[int, int]:
        held = [i for row in rows for i in row]
        return int(tokens.lengths[held].sum()), int(tokens.targets[held].sum())

    passes = [step.rows[at : at + micro_batch] for step in plan for at in range(0, len(step.rows), micro_batch)]
    found = worst_rows(tokens, plan, micro_batch)
    assert found in passes
    assert weight(found) == max(map(weight, passes))


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("checkpointing", ["none", "full"])
def test_a_rehearsal_leaves_weights_gradients_random_numbers_and_mode_as_they_were(
    encoded: Encoded, trainee_of: Callable[..., Trainee], method: str, checkpointing: str
) -> None:
    dropout = {"lora_dropout": 0.1} if method == "lora" else {}
    trainee = trainee_of(method=method, checkpointing=checkpointing, **dropout)
    tokens = Tokens.of(encoded.examples)
    trainee.model.eval()
    weights = {name: p.detach().clone() for name, p in trainee.model.named_parameters()}
    state = torch.get_rng_state()
    found = rehearse(trainee, tokens, plan_of(tokens), config_of(method=method))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weights[name], p) for name, p in trainee.model.named_parameters())
    assert all(p.grad is None for p in trainee.model.parameters())
    assert not trainee.model.training
    assert found.tokens == max(sum(len(tokens[i]) for i in row) for step in plan_of(tokens) for row in step.rows)
    assert found.seconds > 0
    assert found.tokens_per_s == pytest.approx(found.tokens / found.seconds)
    assert 0 < found.peak < found.capacity


def test_gradients_that_were_there_are_there_again(encoded: Encoded, trainee_of: Callable[..., Trainee]) -> None:
    trainee = trainee_of(method="full")
    tokens = Tokens.of(encoded.examples)
    _, weight = next(trainee.trainable())
    mark = weight.grad = torch.ones_like(weight)
    rehearse(trainee, tokens, plan_of(tokens), config_of(method="full"))
    assert weight.grad is mark
    assert (mark == 1).all()


@pytest.mark.parametrize(
    "error",
    [
        OUT,
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_out_of_memory_is_one_line_with_numbers_and_settings_that_fit(
    trainee_of: Callable[..., Trainee], error: Exception
) -> None:
    trainee = trainee_of(method="full")
    config = config_of(method="full", max_tokens=2048, micro_batch=64)
    room = 24 * 2**20
    with pytest.raises(ConfigError) as told, memory_told(trainee, config, room):
        raise error
    line = str(told.value)
    assert "\n" not in line
    assert "24.0 MiB are there for this run, the estimate is" in line
    assert "--micro-batch 1 (" in line


def test_an_estimate_that_was_too_low_is_told_as_such(trainee_of: Callable[..., Trainee]) -> None:
    told = told_out_of_memory(OUT, trainee_of(method="full"), config_of(method="full"), 80 * GIB)
    assert isinstance(told, CheckFailedError)
    assert "80.0 GiB were free for this run, and the estimate was only" in str(told)


def test_where_nothing_fits_a_smaller_model_is_the_way_out(trainee_of: Callable[..., Trainee]) -> None:
    told = told_out_of_memory(OUT, trainee_of(method="full"), config_of(method="full"), 1000)
    assert "take a smaller model" in str(told)


def test_other_errors_stay_what_they_are(trainee_of: Callable[..., Trainee]) -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_told(trainee_of(method="full"), config_of()):
        raise RuntimeError("shapes do not match")
    with pytest.raises(SftError, match="mine"), memory_told(trainee_of(method="full"), config_of()):
        raise SftError("mine", "out of memory")


def test_out_of_memory_in_the_rehearsal_itself_is_told_and_drops_what_it_made(
    encoded: Encoded, trainee_of: Callable[..., Trainee], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainee = trainee_of(method="full")
    tokens = Tokens.of(encoded.examples)

    def raising(*_: object, **__: object) -> torch.Tensor:
        raise OUT

    monkeypatch.setattr(torch.Tensor, "backward", raising)
    with pytest.raises(SftError, match="out of memory"):
        rehearse(trainee, tokens, plan_of(tokens), config_of(method="full"))
    assert all(p.grad is None for p in trainee.model.parameters())


def test_a_cpu_that_is_surely_too_small_is_refused_before_the_system_kills_the_process(
    trainee_of: Callable[..., Trainee], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainee = trainee_of(method="full")
    assert check_fits(trainee, config_of(method="full")).total > 0
    monkeypatch.setattr(rehearsal, "free_memory", lambda: 1000)
    with pytest.raises(ConfigError, match="would not fit in the machine's memory"):
        check_fits(trainee, config_of(method="full", max_tokens=100_000))


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second version of cgroups and the first; without a limit, or without files, the machine's memory counts."""
    whole = free_memory()
    limit, used = tmp_path / "max", tmp_path / "current"
    monkeypatch.setattr(rehearsal, "CGROUPS", ((limit, used),))
    used.write_text("1000")
    limit.write_text("max\n")
    assert free_memory() == pytest.approx(whole, rel=0.2)
    limit.write_text("5000\n")
    assert free_memory() == 4000
    used.write_text("9000")
    assert free_memory() == 0


def test_auto_checkpointing_is_settled_and_leaves_a_cpu_as_it_is(trainee_of: Callable[..., Trainee]) -> None:
    trainee = trainee_of(method="full")
    assert settle_checkpointing(trainee, config_of(method="full")).checkpointing == "none"
    assert not any(getattr(module, "gradient_checkpointing", False) for module in trainee.network.modules())
    assert settle_checkpointing(trainee, config_of(checkpointing="full")).checkpointing == "full"
