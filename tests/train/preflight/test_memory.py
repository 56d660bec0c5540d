"""The estimate of memory is held against what torch really keeps."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from schemas.train_config import PRESETS, TrainConfig
from tests.train.preflight.conftest import config_of
from train.model.trainee import Trainee
from train.preflight.memory import (
    GIB,
    Memory,
    choose_checkpointing,
    estimate,
    options_that_fit,
    shape_of,
    shape_of_config,
    size,
    trained_weights,
)
from train.step import attention
from train.step.batch import make_batch
from train.text.tokens import Example

attention.register()

V = 500
SHAPE: dict[str, Any] = {
    "vocab_size": V,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
GPT2: dict[str, Any] = {"vocab_size": V, "n_embd": 64, "n_layer": 4, "n_head": 4, "attn_pdrop": 0.0}
NO_IDS: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None}
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=32)),
    "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**SHAPE, head_dim=16)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2, **NO_IDS)),
}
WIDE = LlamaConfig(
    vocab_size=128256,
    hidden_size=2048,
    intermediate_size=8192,
    num_hidden_layers=16,
    num_attention_heads=32,
    num_key_value_heads=8,
    tie_word_embeddings=True,
)
"""The shape of a Llama of 1.2 billion weights."""


def saved_bytes(trainee: Trainee, tokens: int) -> int:
    """Bytes that autograd holds for the backward pass of the layers, weights and the loss left out."""
    ids = np.random.default_rng(0).integers(3, V, tokens).astype(np.int32)
    half = tokens // 2
    examples = [Example(str(i), "a", 1.0, ids[:half], np.ones(half, np.bool_)) for i in range(2)]
    weights = {p.untyped_storage().data_ptr() for p in trainee.model.parameters()}
    held: dict[int, tuple[torch.Tensor, int]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = tensor, storage.nbytes()
        return tensor

    trainee.model.train()
    with trainee.device.compute(), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        trainee.hidden(make_batch(examples, [(0, 1)]))
        return sum(count for _, count in held.values())


def rank(method: str) -> dict[str, Any]:
    """A rank, for the method that has one."""
    return {"lora_r": 8} if method == "lora" else {}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("name", MODELS)
def test_activations_are_estimated_within_a_tenth_of_what_autograd_keeps(
    trainee_of: Callable[..., Trainee], name: str, method: str, precision: str
) -> None:
    network = MODELS[name]()
    shape = shape_of(network)
    trainee = trainee_of(network, method=method, precision=precision, **rank(method))
    assert shape_of(trainee.network) == shape  # adapters do not change it
    config = config_of(method=method, **rank(method))
    compute = torch.bfloat16 if precision == "bf16" else None
    memory = estimate(shape, config, compute=compute, on_gpu=False, checkpointing="none", tokens=512, targets=0)
    in_body = memory.casts - (2 * V * shape.hidden if compute else 0)  # the head's cast is made with the loss
    assert memory.activations + in_body == pytest.approx(saved_bytes(trainee, 512), rel=0.1)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("name", MODELS)
def test_weights_and_gradients_are_counted_exactly(trainee_of: Callable[..., Trainee], name: str, method: str) -> None:
    trainee = trainee_of(MODELS[name](), method=method, **rank(method))
    config = config_of(method=method, **rank(method))
    shape = shape_of(trainee.network)
    memory = estimate(shape, config, compute=None, on_gpu=False, checkpointing="none", tokens=0)
    assert memory.weights == sum(p.numel() * p.element_size() for p in trainee.model.parameters())
    trained = sum(p.numel() for _, p in trainee.trainable())
    assert trained_weights(shape, config) == trained
    assert (memory.gradients, memory.optimizer) == (4 * trained, 8 * trained)


@pytest.mark.parametrize("kind", ["selective", "full"])
def test_recomputed_activations_are_estimated_within_a_third_and_never_above_all(
    trainee_of: Callable[..., Trainee], kind: Any
) -> None:
    """What is recomputed comes and goes a layer at a time: the estimate counts one layer whole, autograd none."""
    trainee = trainee_of(LlamaForCausalLM(LlamaConfig(**SHAPE)), method="full", checkpointing=kind)
    shape, config = shape_of(trainee.network), config_of(method="full")
    whole, less = (
        estimate(shape, config, compute=None, on_gpu=False, checkpointing=k, tokens=512, targets=0).activations
        for k in ("none", kind)
    )
    one_layer = (whole - 2 * 4 * shape.hidden * 512) // shape.layers
    assert less < whole
    if kind == "full":
        assert less - one_layer == pytest.approx(saved_bytes(trainee, 512), rel=0.33)


def test_a_shape_is_known_from_a_configuration_without_its_weights() -> None:
    assert shape_of_config(LlamaConfig(**SHAPE)) == shape_of(LlamaForCausalLM(LlamaConfig(**SHAPE)))
    assert shape_of_config(WIDE).weights == 1_235_814_400


def needs(config: TrainConfig, kind: Any = "none") -> Memory:
    return estimate(shape_of_config(WIDE), config, compute=torch.bfloat16, on_gpu=True, checkpointing=kind)


def test_each_way_to_save_memory_saves_some() -> None:
    full = config_of(method="full", max_tokens=2048)
    assert needs(full, "full").total < needs(full, "selective").total < needs(full).total
    assert needs(config_of(method="full", max_tokens=2048, optimizer="adamw8bit")).total < needs(full).total
    lora, qlora = (config_of(method=method, max_tokens=2048) for method in ("lora", "qlora"))
    assert needs(qlora).weights < needs(lora).weights < needs(full).weights
    assert needs(config_of(method="lora", max_tokens=1024)).activations * 2 == needs(lora).activations
    assert needs(config_of(method="full", unfreeze=2, max_tokens=2048)).total < needs(full).total


def test_auto_takes_the_first_kind_of_checkpointing_that_fits() -> None:
    shape, config = shape_of_config(WIDE), config_of(method="full", max_tokens=4096, micro_batch=4)
    totals = {kind: needs(config, kind).total for kind in ("none", "selective", "full")}

    def chosen(capacity: float, **settings: Any) -> str:
        other = config.model_copy(update=settings)
        return choose_checkpointing(
            shape, other, compute=torch.bfloat16, on_gpu=settings.get("device") != "cpu", capacity=int(capacity)
        )

    assert chosen(totals["none"] * 1.2) == "none"
    assert chosen(totals["selective"] * 1.1) == "selective"
    assert chosen(totals["full"] * 1.1) == "full"
    assert chosen(1) == "full"
    assert chosen(1, device="cpu") == "none"
    assert chosen(1, checkpointing="none") == "none"


def test_the_options_that_are_told_fit_and_are_other_than_what_did_not() -> None:
    shape, config = shape_of_config(WIDE), config_of(method="full", max_tokens=4096, micro_batch=8)
    room = 12 * GIB
    options = options_that_fit(shape, config, compute=torch.bfloat16, on_gpu=True, capacity=room)
    assert options
    for option in options:
        other = config.model_copy(update=option.changes)
        assert other != config
        assert option.needed <= room
        kind: Any = "full" if other.checkpointing == "auto" else other.checkpointing
        assert needs(other, kind).total == option.needed
    assert "--method lora" in " ".join(map(str, options))
    assert not options_that_fit(shape, config, compute=torch.bfloat16, on_gpu=True, capacity=GIB // 4)


def test_the_small_preset_fits_what_it_promises() -> None:
    """A 1 B model under lora on 8 GB, by the estimate, and the quick one on no more."""
    for preset in ("small", "quick"):
        config = TrainConfig(model="x", **{"method": "lora", "max_tokens": 2048, **PRESETS[preset]})
        assert needs(config, "full").total < 7 * GIB


def test_sizes_are_written_for_people() -> None:
    assert [size(n) for n in (2048, 3 * 2**20, 1.5 * GIB, 200 * GIB)] == ["2 KiB", "3.0 MiB", "1.5 GiB", "200 GiB"]
