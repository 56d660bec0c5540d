"""Activations that are computed again in the backward pass instead of held: none, the cheap ones, or all.

    none       every activation is held
    selective  a decoder layer holds what matrix products and attention gave; the rest is computed again from that
    full       a decoder layer holds its input alone, and runs forward twice: a third more work

transformers' own hooks do it, layer by layer, without reentrance: gradients then flow through a layer whose input needs
none, as under adapters, and nothing has to be told to need one.
"""

import warnings
from functools import partial
from typing import Any, Literal

from torch._ops import OpOverload  # has no public name
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from transformers import PreTrainedModel

from schemas.errors import ConfigError

Recompute = Literal["none", "selective", "full"]

EXPENSIVE = (
    "aten::mm",
    "aten::addmm",
    "aten::bmm",
    "aten::_grouped_mm",
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "torch_attn::_varlen_attn",
    "sft::attend_records",
    "sft::adapted_linear",
    "bitsandbytes::gemm_4bit",
)
"""Operators whose results selective recomputation holds: nearly all the arithmetic of a layer, and half its memory."""


def recompute(network: PreTrainedModel, mode: Recompute) -> None:
    """Make the decoder layers of a model recompute, or hold, their activations. The last call counts.

    Raises ConfigError for a model whose layers cannot.
    """
    if not network.supports_gradient_checkpointing:
        if mode == "none":
            return
        raise ConfigError("--checkpointing", f"{type(network).__name__} cannot recompute activations", "none")
    settings: dict[str, Any] = {"use_reentrant": False}
    if mode == "selective":
        settings["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    with warnings.catch_warnings():
        # Renamed in transformers 5.23; the old names work from 5.17 to v6.
        warnings.filterwarnings("ignore", message="`gradient_checkpointing_(en|dis)able` is deprecated")
        if mode == "none":
            network.gradient_checkpointing_disable()
        else:
            network.gradient_checkpointing_enable(gradient_checkpointing_kwargs=settings)
            # That is for reentrant recomputation: under adapters it would ask for a gradient nobody needs.
            network.disable_input_require_grads()


def _policy(_context: Any, operator: Any, *_args: Any, **_kwargs: Any) -> CheckpointPolicy:
    # By the whole name: an operator that writes into what it is given, as compiled code calls mm.out, cannot be held.
    held = isinstance(operator, OpOverload) and operator.name() in EXPENSIVE
    return CheckpointPolicy.MUST_SAVE if held else CheckpointPolicy.PREFER_RECOMPUTE
