"""The weights that a run changes: gathered to be saved, and put back. What holds them only in part comes here, once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from schemas.errors import ConfigError
from train.model.adapters import PeftModel
from train.model.trainee import Trainee
from train.run.folder import whole_folder
from train.step import processes, sharding


def gathered(trainee: Trainee) -> dict[str, Tensor]:
    """Give the trainable weights, whole and by name. They are those of the model: copy what is to stay as it is.

    Where weights are shared out all processes must ask, and the leader is given them.
    """
    return {name: sharding.collected(parameter.detach()).contiguous() for name, parameter in trainee.trainable()}


def put_back(trainee: Trainee, weights: Mapping[str, Tensor], where: str) -> None:
    """Set the trainable weights. Raises ConfigError where they are not those of this model and method."""
    own = dict(trainee.trainable())
    if odd := sorted(set(own) ^ set(weights)):
        raise ConfigError(
            where,
            f"{len(odd)} weights are in one and not in the other, {odd[0]} first",
            "the weights of this model and method",
            "resume with the same",
        )
    for name, parameter in own.items():
        if parameter.shape != weights[name].shape:
            shapes = [str(list(each.shape)) for each in (weights[name], parameter)]
            raise ConfigError(where, f"{name} is {shapes[0]} there and {shapes[1]} here", "the same model")
    with torch.no_grad():
        for name, parameter in own.items():
            sharding.local(parameter).copy_(sharding.local(sharding.shared_like(weights[name], parameter)))


def save_weights(trainee: Trainee, path: Path) -> None:
    """Write weights and tokenizer so that plain transformers (full) or plain peft (lora) loads them.

    The leader writes; where weights are shared out all processes must ask.
    """
    whole = sharding.whole_state(trainee.model, frozen=not isinstance(trainee.model, PeftModel))
    state: dict[str, Any] = {} if whole is None else {"state_dict": whole}
    if not processes.leads():
        return
    with trainee.stock_attention(), whole_folder(path) as place:
        if isinstance(trainee.model, PeftModel):
            _sort_targets(trainee.model)
            # Without this peft asks the hub whether the base model's vocabulary has grown; ours never does.
            trainee.model.save_pretrained(str(place), save_embedding_layers=False, **state)
            if getattr(trainee.network, "generation_config", None) is not None:  # which tokens it was taught to stop at
                trainee.network.generation_config.save_pretrained(str(place))
            (place / "README.md").unlink(missing_ok=True)  # peft's form to fill in; train.run.card writes a real one
        else:
            trainee.model.save_pretrained(str(place), **state)
        trainee.tokenizer.save_pretrained(str(place))


def _sort_targets(model: PeftModel) -> None:
    """Put the names that adapters are for into one order: peft keeps a set, and equal runs would save other bytes."""
    for config in model.peft_config.values():
        targets: Any = getattr(config, "target_modules", None)
        if isinstance(targets, set | list):
            config.target_modules = sorted(targets)  # pyright: ignore[reportAttributeAccessIssue] # of a kind that has it
