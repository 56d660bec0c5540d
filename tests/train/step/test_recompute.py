"""What recomputation is for: less is held between the forward and the backward pass."""

import warnings
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from schemas.errors import ConfigError
from tests.train.world import small_llama
from train.model.trainee import Trainee
from train.step.batch import make_batch
from train.step.recompute import recompute
from train.text.template import Encoded


class Alive(TorchDispatchMode):
    """Watches what operators make, and tells how many bytes of it are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)
                self._made.setdefault(reference.cdata, (reference, storage.nbytes()))
        return made

    def bytes(self) -> int:
        return sum(size for reference, size in self._made.values() if not reference.expired())


def test_selective_holds_less_than_none_and_full_less_than_selective(
    encoded: Encoded, trainee_of: Callable[..., Trainee]
) -> None:
    trainee = trainee_of(small_llama(400, num_hidden_layers=4), method="full")
    trainee.model.train()
    batch = make_batch(encoded.examples, [(0, 1, 2, 3)])
    held: list[int] = []
    modes: tuple[Literal["none", "selective", "full"], ...] = ("none", "selective", "full")
    for mode in modes:
        recompute(trainee.network, mode)
        with Alive() as alive:
            hidden = trainee.hidden(batch)
        held.append(alive.bytes())
        del hidden
    none, selective, full = held
    assert selective < 0.75 * none
    assert full < 0.5 * selective


def test_under_adapters_the_embeddings_need_no_gradient_and_their_weight_gets_none(
    encoded: Encoded, trainee_of: Callable[..., Trainee]
) -> None:
    trainee = trainee_of(method="lora", checkpointing="full")
    trainee.model.train()
    seen: list[bool] = []
    embeddings = trainee.network.get_input_embeddings()
    embeddings.register_forward_hook(lambda _layer, _inputs, output: seen.append(output.requires_grad))
    trainee.nll(make_batch(encoded.examples, [(0, 1)])).sum().backward()
    assert seen == [False]
    assert all(p.grad is not None for _, p in trainee.trainable())
    assert embeddings.weight.grad is None


def test_a_model_that_cannot_recompute_says_so(trainee_of: Callable[..., Trainee]) -> None:
    network = trainee_of(method="full").network
    network.supports_gradient_checkpointing = False
    with warnings.catch_warnings():
        recompute(network, "none")
        with pytest.raises(ConfigError, match="cannot recompute"):
            recompute(network, "full")
