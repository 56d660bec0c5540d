"""Compiled layers train as plain ones, and are compiled once."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import CheckpointPolicy
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from schemas.train_config import TrainConfig
from tests.train.world import small_llama
from train.model.trainee import Trainee
from train.plan import Step
from train.step.batch import make_batch
from train.step.compiled import compile_layers, fixed_shape, wants_compile
from train.step.loss import target_nll
from train.step.recompute import _policy
from train.text.tokens import Example

STEPS = [Step(rows, 0) for rows in ((((0, 1), (2,)), ((3,), (4, 5, 6)), ((6, 0), (5, 1, 2))))]
LENGTHS = (9, 23, 2, 14, 31, 7, 12)


def examples() -> list[Example]:
    random = np.random.default_rng(3)
    return [
        Example(str(i), "a", 1.0, random.integers(0, 90, n).astype(np.int32), np.ones(n, np.bool_))
        for i, n in enumerate(LENGTHS)
    ]


def train_step(trainee: Trainee, step: Step, shape: dict[str, int]) -> tuple[float, dict[str, torch.Tensor]]:
    batch = make_batch(examples(), step.rows, **shape)
    loss = target_nll(trainee.head, trainee.hidden(batch), batch).mean()
    loss.backward()
    found = {name: p.grad.clone() for name, p in trainee.trainable() if p.grad is not None}
    trainee.model.zero_grad()
    return loss.item(), found


def most_records(micro_batch: int) -> int:
    passes = (s.rows[at : at + micro_batch] for s in STEPS for at in range(0, len(s.rows), micro_batch))
    return max(sum(map(len, rows)) for rows in passes)


@pytest.mark.parametrize(
    ("settings", "graphs"),
    [
        ({"method": "full"}, 1),
        ({"method": "lora"}, 2),  # the first layer's input needs no gradient, those of the others do
        ({"method": "full", "checkpointing": "selective"}, 1),
        ({"method": "full", "checkpointing": "full"}, 1),
    ],
)
@pytest.mark.filterwarnings("ignore")  # torch's own, of its compiler
def test_compiled_layers_give_the_same_and_compile_once_for_all_steps_and_layers(
    settings: dict[str, Any], graphs: int, trainee_of: Callable[..., Trainee]
) -> None:
    torch._dynamo.reset()
    trainee = trainee_of(small_llama(90, num_hidden_layers=3), **settings)
    trainee.model.train()
    shape = fixed_shape(most_records(2), max(LENGTHS), micro_batch=2, max_tokens=40)
    expected = [train_step(trainee, step, {}) for step in STEPS]
    counter = CompileCounterWithBackend("aot_eager")
    assert compile_layers(trainee.network, backend=counter) == 3
    for step, (loss, gradients) in zip(STEPS, expected, strict=True):
        ours, found = train_step(trainee, step, shape)
        assert ours == pytest.approx(loss, rel=1e-5)
        for name, gradient in gradients.items():
            assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm(), name
        assert counter.frame_count == graphs
    trainee.model.eval()
    with torch.no_grad():
        trainee.nll(make_batch(examples(), [(0, 3)]))
        with trainee.stock_attention():
            trainee.network.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=3, do_sample=False)
    assert counter.frame_count == graphs, "scoring and generation run uncompiled"


@pytest.mark.parametrize("checkpointing", ["none", "selective", "full"])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.filterwarnings("ignore")  # torch's own, of its compiler
def test_recomputation_around_a_call_is_compiled_with_the_layer(
    method: str, checkpointing: str, trainee_of: Callable[..., Trainee], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As transformers had it before 5.23: there, what is recomputed stood outside of what was compiled."""

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        inner = torch.nn.Module.__call__
        if layer.gradient_checkpointing and layer.training:
            outside.append(layer)
            return layer._gradient_checkpointing_func(partial(inner, layer, **kwargs), *args)
        return inner(layer, *args, **kwargs)

    torch._dynamo.reset()
    outside: list[Any] = []
    monkeypatch.setattr(LlamaDecoderLayer, "forward", LlamaDecoderLayer.forward.__wrapped__)
    monkeypatch.setattr(GradientCheckpointingLayer, "__call__", call, raising=False)
    trainee = trainee_of(small_llama(90, num_hidden_layers=2), method=method, checkpointing=checkpointing)
    trainee.model.train()
    expected, gradients = train_step(trainee, STEPS[0], {})
    assert bool(outside) == (checkpointing != "none")
    outside.clear()
    compile_layers(trainee.network, backend="aot_eager")
    loss, found = train_step(trainee, STEPS[0], {})
    assert loss == pytest.approx(expected, rel=1e-5)
    for name, gradient in gradients.items():
        assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm(), name
    assert not outside


def test_a_result_that_was_written_into_a_buffer_is_not_held() -> None:
    assert _policy(None, torch.ops.aten.mm.default) == CheckpointPolicy.MUST_SAVE
    assert _policy(None, torch.ops.aten.mm.out) == CheckpointPolicy.PREFER_RECOMPUTE


@pytest.mark.filterwarnings("ignore")  # torch's own, of its compiler
def test_memory_that_runs_out_is_not_taken_for_a_layer_that_cannot_be_compiled(
    trainee_of: Callable[..., Trainee],
) -> None:
    def no_memory(*_: Any) -> Any:
        return lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory"))

    torch._dynamo.reset()
    trainee = trainee_of(small_llama(90), method="full")
    trainee.model.train()
    said: list[str] = []
    compile_layers(trainee.network, backend=no_memory, say=said.append)
    with pytest.raises(torch.OutOfMemoryError):
        train_step(trainee, STEPS[0], {})
    assert not said


@pytest.mark.parametrize("checkpointing", ["none", "full"])
@pytest.mark.filterwarnings("ignore")  # torch's own, of its compiler
def test_what_cannot_be_compiled_runs_as_it_is_and_says_so_once(
    checkpointing: str, trainee_of: Callable[..., Trainee]
) -> None:
    """No C compiler on the machine, for one: as fast as without, and no traceback."""
    torch._dynamo.reset()
    trainee = trainee_of(small_llama(90, num_hidden_layers=3), method="full", checkpointing=checkpointing)
    trainee.model.train()
    expected = train_step(trainee, STEPS[0], {})
    said: list[str] = []

    def no_compiler(*_: Any) -> None:
        raise RuntimeError("No working C++ compiler found")

    compile_layers(trainee.network, backend=no_compiler, say=said.append)
    loss, found = train_step(trainee, STEPS[0], {})
    assert loss == expected[0]
    assert all(torch.equal(found[name], gradient) for name, gradient in expected[1].items())
    (line,) = said
    assert line.startswith("warning: the layers cannot be compiled (")
    assert "No working C++ compiler found" in line


def test_every_pass_of_a_plan_fits_the_fixed_shape() -> None:
    shape = fixed_shape(most_records(1), max(LENGTHS), micro_batch=1, max_tokens=64)
    batches = [make_batch(examples(), [row], **shape) for step in STEPS for row in step.rows]
    assert {(b.input_ids_1N.shape, b.cu_seqlens_S.shape, b.max_seqlen) for b in batches} == {((1, 64), (6,), 64)}


@given(st.lists(st.lists(st.integers(1, 300), min_size=1, max_size=12), min_size=1, max_size=6), st.integers(1, 3))
def test_kernels_are_told_of_no_longer_records_than_there_are(passes: list[list[int]], micro_batch: int) -> None:
    """Whatever the lengths: one shape, and no piece of padding longer than what kernels are told."""
    longest = max(n for held in passes for n in held)
    held = max(map(sum, passes))
    max_tokens = -(-held // micro_batch)
    shape = fixed_shape(max(map(len, passes)), longest, micro_batch=micro_batch, max_tokens=max(max_tokens, longest))
    found: set[tuple[int, int]] = set()
    for lengths in passes:
        made = [Example(str(i), "a", 1.0, np.ones(n, np.int32), np.ones(n, np.bool_)) for i, n in enumerate(lengths)]
        batch = make_batch(made, [tuple(range(len(made)))], **shape)
        assert int(batch.cu_seqlens_S.diff().max()) <= batch.max_seqlen
        found.add((len(batch.cu_seqlens_S), batch.max_seqlen))
    assert len(found) == 1
    assert found.pop()[1] < longest + 128


def test_auto_compiles_on_a_gpu_alone() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert [wants_compile(TrainConfig(), device) for device in (cpu, cuda)] == [False, True]
    assert wants_compile(TrainConfig(compile="on"), cpu)
    assert not wants_compile(TrainConfig(compile="off"), cuda)
    assert not wants_compile(TrainConfig(precision="fp32"), cuda), "attention goes record by record there"
