"""A base model made trainable: all of it, its last layers, or adapters beside its linear layers.

Adapters are fp32 whatever the base is held in. The base beneath them is frozen, so nothing asks for a gradient of the
embeddings, unless `--add-tokens` names tokens to train: then those rows alone are trained, in the head too where it is
a layer of its own, and as one where it is tied to the embeddings.
"""

import warnings
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from schemas.errors import ConfigError, ModelError
from schemas.train_config import TINY, TrainConfig
from train.model import tiny
from train.model.adapters import LoraConfig, PeftModel, get_peft_model
from train.model.base import Base, has_tied_head
from train.model.trainee import Trainee
from train.step.adapter import AdaptedLinear
from train.step.loss import head_of
from train.step.recompute import recompute


def adapt(base: Base, config: TrainConfig) -> Trainee:
    """Make the base trainable by `config.method`.

    Raises ConfigError for layers that are not there, ModelError for a model that cannot be trained so.
    """
    notes = list(base.notes)
    network: PreTrainedModel = base.model
    model: PreTrainedModel | PeftModel = network
    torch.manual_seed(config.seed)
    if config.method != "full":
        model = _with_adapters(base, config)
        for weight in model.parameters():  # what is trained beside the adapters, in the base's precision until here
            if weight.requires_grad and weight.is_floating_point():
                weight.data = weight.data.float()
    elif config.unfreeze is not None:
        notes.append(_freeze_all_but(base, config.unfreeze))
    recompute(network, "none" if config.checkpointing == "auto" else config.checkpointing)
    layer = network.get_output_embeddings()
    if layer is None:
        raise ModelError(f"model {base.name}", "it has no output layer", "a causal language model")
    nn.Module.to(model, base.device.device)
    return Trainee(
        model=model,
        network=network,
        backbone=network.base_model,
        head=head_of(layer, network.config),
        tokenizer=base.tokenizer,
        name=base.name,
        device=base.device,
        notes=tuple(notes),
        neftune=config.neftune,
    )


def linear_layers(network: PreTrainedModel) -> list[str]:
    """Name the layers that adapters can stand beside, in the model's order: linear ones, but not a tied head."""
    head = network.get_output_embeddings()
    tied = has_tied_head(network)
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and not (tied and module is head)
    ]


def _with_adapters(base: Base, config: TrainConfig) -> PeftModel:
    network = base.model
    whole = base.name == TINY  # its embeddings have never seen the template's tokens: all of them are trained
    _check_targets(network, config.lora_targets, base.name)
    if (whole or base.added) and (head := _targeted_head(network, config.lora_targets)):
        why = "it is trained whole, as part of tiny" if whole else "--add-tokens trains rows of it"
        raise ConfigError("--lora-targets", f"{head}: {why}", "other layers", "leave one of the two out")
    lora = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=list(config.lora_targets) or "all-linear",
        use_dora=config.dora,
        use_rslora=config.rslora,
        modules_to_save=list(tiny.NEW_TO_CHAT) if whole else None,
        trainable_token_indices=None if whole else _token_rows(base),
        revision=base.source.commit if base.source else None,
        task_type="CAUSAL_LM",
    )
    if config.method == "lora":  # over layers of 4 bits peft has its own
        lora._register_custom_module({nn.Linear: AdaptedLinear})  # pyright: ignore[reportPrivateUsage] # the one way that peft documents
    try:
        with warnings.catch_warnings():
            # GPT-2 keeps its linear layers transposed; peft notices, sets fan_in_fan_out itself, and warns.
            warnings.filterwarnings("ignore", message="fan_in_fan_out")
            # peft 0.21 reads an attribute that transformers 5.23 has renamed.
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
            return get_peft_model(network, lora)  # pyright: ignore[reportReturnType] # no mixed adapters were asked for
    except (ValueError, NotImplementedError) as error:
        raise ModelError(f"model {base.name}", f"no adapters: {error}", "linear layers", "use --method full") from error


def _check_targets(network: PreTrainedModel, targets: tuple[str, ...], name: str) -> None:
    """Raise ConfigError for a target that names no linear layer, with the names that there are."""
    layers = linear_layers(network)
    for target in targets:
        if not any(layer == target or layer.endswith(f".{target}") for layer in layers):
            ends = sorted({layer.rsplit(".", 1)[-1] for layer in layers})
            raise ConfigError(
                "--lora-targets", f"{target}: no such linear layer in {name}", f"one of {', '.join(ends)}"
            )


def _targeted_head(network: PreTrainedModel, targets: tuple[str, ...]) -> str | None:
    """Name the head where it is one of the targets, and a layer of its own."""
    head = network.get_output_embeddings()
    own = next((name for name, module in network.named_modules() if module is head), "")
    named = any(own == target or own.endswith(f".{target}") for target in targets)
    return own if named and not has_tied_head(network) else None


def _token_rows(base: Base) -> dict[str, list[int]] | None:
    """Say which rows of which layers are trained for new tokens. peft ties the head's rows itself where it is tied."""
    if not base.added:
        return None
    network = base.model
    head: Any = network.get_output_embeddings()
    names = {id(module): name for name, module in network.named_modules()}
    rows = {names[id(network.get_input_embeddings())]: list(base.added)}
    if head is not None and not has_tied_head(network):
        if getattr(head, "bias", None) is not None:
            found = "its head has a bias, which peft's trained tokens leave out"
            raise ModelError(f"model {base.name}", found, "--add-tokens with a head without one", "use --method full")
        rows[names[id(head)]] = list(base.added)
    return rows


def _freeze_all_but(base: Base, last: int) -> str:
    """Freeze all but the last layers, the norm after them, and the head, and say so.

    A tied head stays frozen: to train it would train the embeddings, for which the gradient would have to go back
    through all the frozen layers. Embeddings are trained where new tokens ask for it, and a tied head with them.
    """
    network = base.model
    total = int(network.config.get_text_config().num_hidden_layers)
    if last > total:
        raise ConfigError("--unfreeze", f"{last}, and {base.name} has {total} layers", f"at most {total}")
    parent, layers = _decoder(network.base_model, total, base.name)
    network.requires_grad_(requires_grad=False)
    norms = [m for m in parent.children() if "norm" in type(m).__name__.lower() and m is not layers]
    tied = has_tied_head(network)
    head = network.get_output_embeddings()
    for module in [*layers[total - last :], *norms, *([head] if head is not None and not tied else [])]:
        module.requires_grad_(requires_grad=True)
    trained = [f"the last {last} of {total} layers", "the final norm"]
    if base.added:
        network.get_input_embeddings().requires_grad_(requires_grad=True)
        trained.append("the embeddings, for the new tokens")
    if not tied:
        trained.append("the head")
    frozen = "; the head is tied to the embeddings and stays as they are" if tied and not base.added else ""
    return f"trained: {', '.join(trained)}{frozen}"


def _decoder(backbone: nn.Module, total: int, name: str) -> tuple[nn.Module, nn.ModuleList]:
    """Find the list of decoder layers, and the module that holds it."""
    for parent in backbone.modules():
        for child in parent.children():
            if isinstance(child, nn.ModuleList) and len(child) == total:
                return parent, child
    raise ModelError(f"model {name}", f"no list of {total} layers", "one for --unfreeze", "use --method lora")
