"""A base model as it was found."""

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from train.model.device import Device
from train.model.source import Source


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """A base model and its tokenizer. `digest` says which weights these are; `notes` what a person should know."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    digest: str
    device: Device
    notes: tuple[str, ...] = ()
    added: tuple[int, ...] = ()
    """Ids of the tokens that `--add-tokens` names: their embeddings are trained whatever the method."""
    source: Source | None = None
    """Where its files lie; None for `tiny` before it was saved."""


def has_tied_head(network: PreTrainedModel) -> bool:
    """Whether the output layer shares its weights with the input embeddings."""
    head: nn.Module | None = network.get_output_embeddings()
    return head is not None and getattr(head, "weight", None) is getattr(network.get_input_embeddings(), "weight", 0)
