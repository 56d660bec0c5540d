"""Decoder layers compiled one by one: layers that are alike share one graph, so compiling takes as long as one layer.

A graph is made for one shape, so all batches of a run are padded to one (`fixed_shape`), and whatever is not a training
step runs as it is: scoring and generation have other shapes, and would compile again and again.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from schemas.train_config import TrainConfig
from train.step.memory import is_out_of_memory

TILE = 128
"""Tokens that an attention kernel works on together."""


def wants_compile(config: TrainConfig, device: torch.device) -> bool:
    """Whether the configuration asks for compiled layers: `auto` does so on a GPU, where it computes in half precision.

    In fp32 there is no kernel for packed rows, and attention goes record by record, which does not compile.
    """
    on_gpu = device.type == "cuda" and config.precision != "fp32"
    return config.compile == "on" or (config.compile == "auto" and on_gpu)


def fixed_shape(records: int, longest: int, *, micro_batch: int, max_tokens: int) -> dict[str, int]:
    """Give the one shape that passes of `micro_batch` rows can be padded to, as `make_batch` takes it.

    `records` is the most that a pass holds: `Plan.records_per_pass`. `longest`: tokens of the longest record; attention
    kernels make room for as many in every record, so it is no larger than it must be.
    """
    tokens = micro_batch * max_tokens
    longest = min(max_tokens, -(-longest // TILE) * TILE)
    # Padding lies in pieces of its own, none longer than the longest record: attention within them costs little.
    return {"pad_tokens": tokens, "pad_records": records + -(-tokens // longest) + 1, "pad_longest": longest}


def decoder_layers(network: PreTrainedModel) -> list[nn.Module]:
    """List the layers of a model that are alike, in their order; none where a model is not built of such."""
    return [module for module in network.modules() if isinstance(module, GradientCheckpointingLayer)]


def compile_layers(
    network: PreTrainedModel,
    *,
    backend: str | Callable[..., Any] = "inductor",
    say: Callable[[str], None] = lambda _: None,
) -> int:
    """Compile the forward of every decoder layer for training steps. Gives how many layers there are.

    To be called once adapters and recomputation are in place: both become part of the graph. Compilation itself happens
    at the first training step; where it fails there (a machine without a C compiler, say), `say` hears of it once, and
    layers run as they are. Calling it twice changes nothing.
    """
    layers = decoder_layers(network)
    failed: list[RuntimeError] = []

    def fail(error: RuntimeError) -> None:
        if not failed:
            # The first paragraph is the cause; what follows it is where torch's developers look further.
            cause = " ".join(str(error).strip().split("\n\n")[0].split())[:200] or type(error).__name__
            say(f"warning: the layers cannot be compiled ({cause}); training goes on uncompiled, which is slower")
        failed.append(error)

    for layer in layers:
        if "forward" not in vars(layer):
            _compile(layer, backend, failed, fail)
    return len(layers)


def _compile(
    layer: nn.Module,
    backend: str | Callable[..., Any],
    failed: Sequence[RuntimeError],
    fail: Callable[[RuntimeError], None],
) -> None:
    plain = _recomputing(layer)
    # Not fullgraph: a layer that cannot be one graph runs in pieces, instead of ending the run.
    compiled = torch.compile(plain, backend=backend, dynamic=False)
    ran = False  # a layer that ran compiled once goes on so: recomputation must do what the forward pass did

    def forward(*args: Any, **kwargs: Any) -> Any:
        nonlocal ran
        training = layer.training and torch.is_grad_enabled()
        if training and (ran or not failed):
            try:
                output = compiled(*args, **kwargs)
            except RuntimeError as error:  # all that a compiler raises; what the layer itself raises comes again below
                if ran or is_out_of_memory(error):
                    raise
                fail(error)
            else:
                ran = True
                return output
        return plain(*args, **kwargs)

    layer.forward = forward


def _recomputing(layer: Any) -> Callable[..., Any]:
    """Give a layer's forward with its recomputation inside, so that both are compiled as one.

    Older transformers recompute around a layer's __call__; outside of what is compiled, selective recomputation would
    meet operators that write into buffers of the compiler's, and take their results for its own.
    """
    inner = layer.forward
    if "__call__" not in vars(GradientCheckpointingLayer) or not layer.gradient_checkpointing:
        return inner
    again, layer.gradient_checkpointing = layer._gradient_checkpointing_func, False

    def forward(*args: Any, **kwargs: Any) -> Any:
        return again(partial(inner, **kwargs), *args) if layer.training else inner(*args, **kwargs)

    return forward
