"""How much memory a run needs, from the model's shape and the settings alone, and what would fit where it does not.

What a training step holds, per weight and per token (c: bytes of the computation, 4 in fp32 and 2 in bf16 and fp16):

    weights       4 a weight (fp32 master weights); c where the base is frozen on a GPU; about half a byte under qlora
    casts         c a weight that autocast casts, held until the backward pass has used it
    gradients     4 a trained weight
    optimizer     8 a trained weight (two fp32 moments); 2 in 8 bits; 0 paged, which may lie in the machine's memory
    activations   what the layers keep for the backward pass: below
    loss          the logits of one chunk twice, the targets' hidden states, and the head's new gradient
    workspace     what the libraries take for themselves

Per layer and token the backward pass needs: the input of every norm (fp32; once more, normed, where its weight is
trained), of every linear layer, of attention (query, key, value, and what came out), and of the MLP's product. Under
autocast each linear layer casts its own copy of its input; in fp32 query, key and value share one. These counts are
held against what autograd really saves by tests, for Llama, Qwen 3, Gemma 3 and GPT-2, full and LoRA, fp32 and bf16:
within a tenth. Compiled layers save less.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from schemas.train_config import TrainConfig
from train.step.attention import KERNEL_GROUPS
from train.step.loss import CHUNK_BYTES

Checkpointing = Literal["none", "selective", "full"]

GIB = 2**30

MOMENTS = {"adamw": 8.0, "adamw8bit": 2.06, "paged_adamw8bit": 0.0}
"""Bytes of the optimizer per trained weight; the 8-bit ones hold a scale per block of 256 values besides."""

FOUR_BITS = 0.52
"""Bytes per weight in nf4 with double quantisation: half a byte, and 0.127 bits of scales (arXiv 2305.14314)."""

WORKSPACE = GIB // 4
"""cuBLAS and attention workspaces of a process on a GPU; its CUDA context lies outside what torch counts."""

ROOM = 0.92
"""The share of the memory that a run may plan with: the allocator's fragments take the rest."""

SHARDED = ("lora_", "modules_to_save", "original_module")
"""Marks of the parts that adapters add to a model: no part of its shape."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a model decides its memory. Counts of weights are of the whole model, widths of one layer."""

    layers: int
    hidden: int
    query: int
    """Width of all query heads."""
    key: int
    """Width of all key heads; the value heads have the same."""
    inner: int
    """Width inside the MLP; of all experts that one token goes to."""
    inner_copies: int
    """How often the MLP keeps its inner width beside the input of its last layer: gate, activation and up are 3."""
    vocabulary: int
    weights: int
    linear_weights: int
    """Weights of the layers' linear layers: what adapters stand beside, and what qlora holds in 4 bits."""
    linear_inputs: int
    """Inputs of a layer's linear layers, summed."""
    linear_ends: int
    """Inputs and outputs of all linear layers, summed: the weights of adapters of rank 1."""
    linear_count: int
    """Linear layers of a layer."""
    norm_width: int
    """Widths of a layer's norms, summed over the heads where they stand on heads."""
    norm_keeps_result: bool
    """Whether a norm with a trained weight keeps its result beside its input, as RMSNorm in python does."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The bytes that a run holds at its peak."""

    weights: int
    casts: int
    gradients: int
    optimizer: int
    activations: int
    loss: int
    workspace: int

    @property
    def total(self) -> int:
        """All of it."""
        return (
            self.weights + self.casts + self.gradients + self.optimizer + self.activations + self.loss + self.workspace
        )

    def __str__(self) -> str:
        parts = (
            ("weights", self.weights + self.casts),
            ("gradients and optimizer", self.gradients + self.optimizer),
            ("activations", self.activations + self.loss),
        )
        return f"{size(self.total)} ({', '.join(f'{what} {size(held)}' for what, held in parts)})"


@dataclass(frozen=True, slots=True)
class Option:
    """Settings that differ from those of a run, and what they would need."""

    changes: dict[str, Any]
    needed: int

    def __str__(self) -> str:
        typed = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in self.changes.items())
        return f"{typed} ({size(self.needed)})"


def size(held: float) -> str:
    """Write bytes for a person, in powers of 1024."""
    for unit, name in ((GIB, "GiB"), (2**20, "MiB")):
        if held >= unit:
            return f"{held / unit:.1f} {name}" if held < 100 * unit else f"{held / unit:,.0f} {name}"
    return f"{held / 1024:.0f} KiB"


def shape_of(network: PreTrainedModel) -> Shape:
    """Read the shape off a model, on any device, with or without adapters on it."""
    text = network.config.get_text_config()
    hidden, layers = int(text.hidden_size), int(text.num_hidden_layers)
    heads = int(text.num_attention_heads)
    size_of_head = int(getattr(text, "head_dim", None) or hidden // heads)
    key_heads = int(getattr(text, "num_key_value_heads", None) or heads)
    linears = dict(_linears(network))
    names = " ".join(linears)
    norms = [(name, m) for name, m in network.named_modules() if "norm" in type(m).__name__.lower() and _own(name)]
    width = sum(_norm_width(name, norm, heads, key_heads) for name, norm in norms)
    gated = "gate" in names or hasattr(text, "num_local_experts") or hasattr(text, "num_experts")
    return Shape(
        layers=layers,
        hidden=hidden,
        query=heads * size_of_head,
        key=key_heads * size_of_head,
        inner=_inner(text, hidden),
        inner_copies=3 if gated else 4,
        vocabulary=int(text.vocab_size),
        weights=sum(_count(p) for name, p in network.named_parameters() if _own(name)),
        linear_weights=sum(a * b for a, b in linears.values()),
        linear_inputs=sum(a for a, _ in linears.values()) // layers,
        linear_ends=sum(a + b for a, b in linears.values()),
        linear_count=round(len(linears) / layers),
        norm_width=width // layers,
        norm_keeps_result=not any(isinstance(norm, nn.LayerNorm) for _, norm in norms),
    )


def shape_of_config(config: PretrainedConfig) -> Shape:
    """Give the shape of a model that is not loaded: built from its configuration without memory for its weights."""
    with torch.device("meta"):
        build: Any = AutoModelForCausalLM.from_config  # its stub gives no type
        return shape_of(build(config))


def estimate(
    shape: Shape,
    config: TrainConfig,
    *,
    compute: torch.dtype | None,
    on_gpu: bool,
    checkpointing: Checkpointing,
    tokens: int | None = None,
    targets: int | None = None,
) -> Memory:
    """Estimate the peak of a step whose micro-batches hold `tokens` tokens, `targets` of them targets.

    By default full rows in which every token is a target. `compute` is what autocast computes in, None for fp32.
    """
    tokens = config.micro_batch * config.max_tokens if tokens is None else tokens
    targets = tokens if targets is None else targets
    half = compute is not None
    c = 2 if half else 4
    frozen_half = half and on_gpu and config.method != "full"
    trained = trained_weights(shape, config)
    rest = shape.weights - shape.linear_weights
    if config.method == "full":
        weights = 4.0 * shape.weights
    else:
        base = FOUR_BITS if config.method == "qlora" else 2 if frozen_half else 4
        weights = base * shape.linear_weights + (2 if frozen_half else 4) * rest + 4.0 * trained
    head = shape.vocabulary * shape.hidden
    casts = 0.0
    if half:
        cast = trained if frozen_half or config.method == "qlora" else shape.linear_weights + head
        casts = 2.0 * cast
    if config.method == "qlora":
        casts += c * shape.linear_weights / max(1, shape.layers * shape.linear_count) * 2  # one layer at a time, opened
    kept = _kept(shape, config, checkpointing, c=c, residual=2 if frozen_half else 4)
    logits = min(CHUNK_BYTES, 4 * targets * shape.vocabulary)
    return Memory(
        weights=round(weights),
        casts=round(casts),
        gradients=4 * trained,
        optimizer=round(MOMENTS[config.optimizer] * trained),
        activations=round(kept * tokens),
        loss=2 * logits + targets * shape.hidden * (4 + c) + (4 * head if config.method == "full" else 0),
        workspace=WORKSPACE if on_gpu else 0,
    )


def trained_weights(shape: Shape, config: TrainConfig) -> int:
    """How many weights a method trains."""
    if config.method != "full":
        return config.lora_r * shape.linear_ends
    if config.unfreeze is None:
        return shape.weights
    part = min(1.0, config.unfreeze / shape.layers)
    return round(part * shape.linear_weights) + shape.vocabulary * shape.hidden


def choose_checkpointing(
    shape: Shape, config: TrainConfig, *, compute: torch.dtype | None, on_gpu: bool, capacity: int
) -> Checkpointing:
    """Resolve `checkpointing: auto`: the first of none, selective and full that fits `capacity` bytes by the estimate.

    `full` where none does: the rehearsal then tells whether it is enough. Settings other than auto stand.
    """
    if config.checkpointing != "auto":
        return config.checkpointing
    if not on_gpu:
        return "none"
    kinds: tuple[Checkpointing, ...] = ("none", "selective")
    for kind in kinds:
        if estimate(shape, config, compute=compute, on_gpu=on_gpu, checkpointing=kind).total <= ROOM * capacity:
            return kind
    return "full"


def options_that_fit(
    shape: Shape, config: TrainConfig, *, compute: torch.dtype | None, on_gpu: bool, capacity: int
) -> tuple[Option, ...]:
    """Give the settings that the estimate says would fit, those that change least first."""
    found: list[Option] = []
    for changes in _ways_out(config, on_gpu=on_gpu):
        other = config.model_copy(update=changes)
        kind = "full" if other.checkpointing == "auto" else other.checkpointing
        needed = estimate(shape, other, compute=compute, on_gpu=on_gpu, checkpointing=kind).total
        if needed <= ROOM * capacity:
            found.append(Option(dict(changes), needed))
    return tuple(found)


def _ways_out(config: TrainConfig, *, on_gpu: bool) -> Iterator[Mapping[str, Any]]:
    """Yield changes that take memory away, from the one that costs least to the one that changes most."""
    full = {} if config.checkpointing == "full" else {"checkpointing": "full"}
    rows = {"micro_batch": 1} if config.micro_batch > 1 else {}
    shorter = {"max_tokens": max(16, config.max_tokens // 2)}
    if full:
        yield full
    if rows:
        yield rows
        yield {**full, **rows}
    moments = {"optimizer": "adamw8bit"} if on_gpu and config.optimizer == "adamw" else {}
    if config.method == "full":
        if moments:
            yield {**full, **rows, **moments}
        yield {"method": "lora"}
        yield {"method": "lora", **full, **rows}
    if config.method != "qlora" and on_gpu:
        yield {"method": "qlora"}
        yield {"method": "qlora", **full, **rows}
    yield {**shorter, **full, **rows}
    if config.method != "qlora" and on_gpu:
        yield {**shorter, "method": "qlora", **full, **rows}


def _kept(shape: Shape, config: TrainConfig, checkpointing: Checkpointing, *, c: int, residual: int) -> float:
    """Bytes that the backward pass needs per token, over all layers and the last norm."""
    layer = _layer(shape, config, c=c)
    last = 4.0 * shape.hidden * 2
    entry = float(residual * shape.hidden)
    # Frozen layers below the last ones of --unfreeze keep nothing: no gradient passes them.
    layers = shape.layers if config.unfreeze is None else min(shape.layers, config.unfreeze)
    if checkpointing == "full":
        return layers * entry + layer + last
    if checkpointing == "selective":
        results = c * (2 * shape.query + 2 * shape.key + 2 * shape.hidden + (shape.inner_copies - 1) * shape.inner)
        return layers * min(layer, entry + results) + layer + last
    return layers * layer + last


def _layer(shape: Shape, config: TrainConfig, *, c: int) -> float:
    """Bytes that one layer keeps per token."""
    trains_norms = config.method == "full"
    norms = 4 * shape.norm_width * (2 if trains_norms and shape.norm_keeps_result else 1)
    inputs = shape.linear_inputs if c == 2 else 2 * shape.hidden + shape.query + shape.inner
    keys = shape.key if KERNEL_GROUPS or c != 2 else shape.query  # an older kernel wants as many heads of them
    attention = 2 * shape.query + 2 * keys
    adapters = 0 if config.method == "full" else config.lora_r * shape.linear_count
    return norms + c * (inputs + attention + shape.inner_copies * shape.inner + adapters)


def _linears(network: PreTrainedModel) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the linear layers inside a model's layers: name, inputs and outputs."""
    head = network.get_output_embeddings()
    for name, module in network.named_modules():
        if module is head or not _own(name) or "lm_head" in name:
            continue
        if isinstance(module, nn.Linear):
            yield name, (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            yield name, (int(module.nx), int(module.nf))


def _own(name: str) -> bool:
    return not any(mark in name for mark in SHARDED)


def _count(weight: nn.Parameter) -> int:
    """Weights of a parameter; one held in 4 bits stores two in a byte."""
    return weight.numel() * (2 if weight.dtype == torch.uint8 else 1)


def _norm_width(name: str, norm: nn.Module, heads: int, key_heads: int) -> int:
    """Width that a norm works on per token; norms on heads work on all of them."""
    weight: Any = getattr(norm, "weight", None)
    wide = int(weight.shape[-1]) if weight is not None else 0
    last = name.rsplit(".", 1)[-1]
    return wide * (heads if last.startswith("q_") else key_heads if last.startswith("k_") else 1)


def _inner(text: Any, hidden: int) -> int:
    """Width inside the MLP, of all the experts that one token goes to."""
    experts = int(getattr(text, "num_experts_per_tok", None) or 1)
    wide = getattr(text, "moe_intermediate_size", None) if experts > 1 else None
    inner = wide or getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None) or 4 * hidden
    return int(inner) * experts
