"""A model shared out among processes (FSDP2): each holds a part of every weight, gradient and moment.

    decoder layer 0, 1, …    a group each: gathered before it runs, dropped after it, forward and backward
    the rest                 embeddings, last norm, head: one group, gathered for the whole pass

Every process sees other rows. FSDP averages gradients over processes, so each loss is multiplied by their number: what
comes out is the gradient of all rows (gloo has no operation that would do both at once).

Layers keep what was done to them before: recomputation and compiling lie inside a layer's own forward.
"""

from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from schemas.errors import ConfigError
from schemas.train_config import TrainConfig
from train.step import processes
from train.step.compiled import decoder_layers

T = TypeVar("T")


def check(config: TrainConfig) -> None:
    """Raise ConfigError for settings that several processes have not been shown to agree with."""
    for option, found, expected in (
        ("--method", "qlora" if config.method == "qlora" else None, "lora or full"),
        ("--optimizer", config.optimizer if config.optimizer != "adamw" else None, "adamw"),
        ("--precision", "fp16" if config.precision == "fp16" else None, "bf16 or fp32"),
        ("--dora", "on" if config.dora else None, "lora without it"),
        ("--add-tokens", "under lora" if config.add_tokens and config.method != "full" else None, "--method full"),
    ):
        if found:
            raise ConfigError(option, f"{found}, with several processes", expected, "or start one process")


def shard(network: PreTrainedModel, *, device: torch.device, autocast: torch.dtype | None) -> None:
    """Share out the weights of a network that lies whole, and alike, on every process. One process keeps them all."""
    if processes.ranks() == 1 or isinstance(network, FSDPModule):
        return
    if autocast is torch.float16:  # which `auto` takes where a GPU has no bf16
        raise ConfigError("--precision", "fp16, with several processes", "bf16 or fp32", "or start one process")
    mesh = init_device_mesh(device.type, (processes.ranks(),))
    # Autocast casts what layers are given, as on one GPU; what is gathered is cast before it travels.
    policy = MixedPrecisionPolicy(
        param_dtype=autocast if device.type == "cuda" else None, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for layer in decoder_layers(network):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(network, mesh=mesh, mp_policy=policy)
    setattr(network, "packed_pass", MethodType(_call, network))  # noqa: B010 # no attribute that a model's type declares
    register_fsdp_forward_method(network, "packed_pass")


def passed(network: nn.Module, forward: Callable[..., T], *inputs: Any) -> T:
    """Call a forward pass through parts of a network so that its weights are there, whole."""
    if not isinstance(network, FSDPModule):
        return forward(*inputs)
    found: T = getattr(network, "packed_pass")(forward, *inputs)  # noqa: B009 # set by `shard`
    if not torch.is_grad_enabled():
        settle(network)
    return found


def settle(model: nn.Module) -> None:
    """Drop what a pass has gathered and no backward pass has used up: each process holds its parts alone again.

    Until then the model's weights are not those that an optimizer may hold, or a checkpoint fill.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole(tensor: Tensor) -> Tensor:
    """Give a tensor whole; all processes must ask for one that is shared out."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def collected(tensor: Tensor) -> Tensor:
    """Give a tensor for a file: one that is shared out whole, in the leader's main memory, and empty to the others.

    Weights and moments of a model that is shared out need not fit, all of them whole, into one GPU. All must ask.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    gathered = tensor.full_tensor()
    return gathered.cpu() if processes.leads() else gathered.new_empty(0)


def local(tensor: Tensor) -> Tensor:
    """Give the part of a tensor that this process holds."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shared_like(tensor: Tensor, model: Tensor) -> Tensor:
    """Share out a tensor, which lies whole on every process, as `model` is, where the two have one shape."""
    if not isinstance(model, DTensor) or tensor.shape != model.shape:
        return tensor
    place = tensor.to(model.device_mesh.device_type)
    return distribute_tensor(place, model.device_mesh, model.placements, src_data_rank=None)


def whole_state(model: nn.Module, *, frozen: bool) -> Mapping[str, Tensor] | None:
    """Give a model's state with its weights collected, tied ones as one tensor; None where none is shared out.

    Without `frozen`, those that are not trained stay as they are. All processes must ask.
    """
    settle(model)
    weights = dict(model.named_parameters(remove_duplicate=False))
    if not any(isinstance(weight, DTensor) for weight in weights.values()):
        return None
    made: dict[int, Tensor] = {}
    state = model.state_dict()
    for name, weight in weights.items():
        if name in state and (frozen or weight.requires_grad):
            if id(weight) not in made:
                made[id(weight)] = collected(weight.detach())
            state[name] = made[id(weight)]
    return state


def _call(_network: nn.Module, forward: Callable[..., T], *inputs: Any) -> T:
    return forward(*inputs)
