"""The weights that a run changes: gathered to be saved, and put back. What holds them only in part comes here, once."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from schemas.errors import ConfigError
from train.model.adapters import PeftModel
from train.model.trainee import Trainee
from train.run.folder import whole_folder


def gathered(trainee: Trainee) -> dict[str, Tensor]:
    """Give the trainable weights, whole and by name. They are those of the model: copy what is to stay as it is."""
    return {name: parameter.detach().contiguous() for name, parameter in trainee.trainable()}


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
            parameter.copy_(weights[name])


def save_weights(trainee: Trainee, path: Path) -> None:
    """Write weights and tokenizer so that plain transformers (full) or plain peft (lora) loads them."""
    with trainee.stock_attention(), whole_folder(path) as place:
        if isinstance(trainee.model, PeftModel):
            # Without this peft asks the hub whether the base model's vocabulary has grown; ours never does.
            trainee.model.save_pretrained(str(place), save_embedding_layers=False)
            if getattr(trainee.network, "generation_config", None) is not None:  # which tokens it was taught to stop at
                trainee.network.generation_config.save_pretrained(str(place))
            (place / "README.md").unlink(missing_ok=True)  # peft's form to fill in; train.run.card writes a real one
        else:
            trainee.model.save_pretrained(str(place))
        trainee.tokenizer.save_pretrained(str(place))
