"""Decoder layers compiled one by one: all layers of a kind share one graph, so compiling takes as long as one layer.

A graph is made for one shape, so batches of a run are padded to one (`make_batch`), and whatever is not a training step
runs as it is: scoring and generation have other shapes, and would compile again and again.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer


def decoder_layers(network: PreTrainedModel) -> list[nn.Module]:
    """List the layers of a model that are alike, in their order; none where a model is not built of such."""
    return [module for module in network.modules() if isinstance(module, GradientCheckpointingLayer)]


def compile_layers(network: PreTrainedModel, *, backend: str | Callable[..., Any] = "inductor") -> int:
    """Compile the forward of every decoder layer for training steps. Gives how many layers there are.

    To be called once adapters and recomputation are in place: both become part of the graph. Compilation itself happens
    at the first training step.
    """
    layers = decoder_layers(network)
    for layer in layers:
        _compile(layer, backend)
    return len(layers)


def _compile(layer: nn.Module, backend: str | Callable[..., Any]) -> None:
    plain = layer.forward
    compiled = torch.compile(plain, backend=backend, dynamic=False, fullgraph=True)

    def forward(*args: Any, **kwargs: Any) -> Any:
        training = layer.training and torch.is_grad_enabled()
        return compiled(*args, **kwargs) if training else plain(*args, **kwargs)

    layer.forward = forward
