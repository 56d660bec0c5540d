"""Tokens that a tokenizer lacks, and an embedding for each.

A new token begins at the mean of the embeddings that there are, on the way in and on the way out: what the model then
expects of it is what it expects of an average token, so its other predictions hardly move (Hewitt, "Initializing New
Word Embeddings for Pretrained Language Models", 2021). transformers draws from a normal distribution around that mean,
of a width of 1e-5: that decides nothing and takes minutes with a large vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import AddedToken, PreTrainedModel, PreTrainedTokenizerBase

from schemas.errors import ConfigError, ModelError


def add_tokens(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]) -> tuple[tuple[int, ...], list[str]]:
    """Make each of `tokens` a special token. Gives their ids, and those that were not in the vocabulary before.

    Raises ConfigError for an empty text.
    """
    if empty := [token for token in tokens if not token.strip()]:
        raise ConfigError("--add-tokens", f"{empty[0]!r}", "the text of a token, such as <|im_end|>")
    wanted = list(dict.fromkeys(tokens))
    known = tokenizer.get_vocab()
    new = [token for token in wanted if token not in known]
    if wanted:
        made: list[str | AddedToken] = [AddedToken(token, special=True, normalized=False) for token in wanted]
        tokenizer.add_tokens(made, special_tokens=True)
    vocabulary = tokenizer.get_vocab()
    return tuple(int(vocabulary[token]) for token in wanted), new


def fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    added: Sequence[int],
    new: Sequence[str],
    name: str,
) -> None:
    """Give `added` tokens that are `new`, or that the model has no row for, one at the mean of those that there are.

    Raises ModelError for a tokenizer that has more tokens than the model has embeddings, but for the added ones.
    """
    embeddings = _weight(model.get_input_embeddings())
    rows = len(embeddings)
    vocabulary = tokenizer.get_vocab()
    new_ids = sorted({int(vocabulary[token]) for token in new} | {i for i in added if i >= rows})
    without = sorted((i, token) for token, i in vocabulary.items() if i >= rows and i not in added)
    if without:
        named = ", ".join(repr(token) for _, token in without[:3]) + (", …" if len(without) > 3 else "")
        raise ModelError(
            f"model {name}",
            f"{rows} embeddings for a tokenizer of {max(vocabulary.values()) + 1} tokens: {named} have none",
            "an embedding for each token",
            "give the tokenizer that belongs to the model, or name these tokens by --add-tokens to train them",
        )
    if not new_ids:
        return
    size = max(vocabulary.values()) + 1
    means = [_mean(layer, min(rows, size - len(new_ids))) for layer in _layers(model)]
    if size > rows:
        model.resize_token_embeddings(size, mean_resizing=False)
    with torch.no_grad():
        for layer, mean in zip(_layers(model), means, strict=True):
            _weight(layer)[new_ids] = mean.to(_weight(layer))


def grow(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make room for all tokens of a trained tokenizer; what fills the new rows comes from the adapters."""
    size = max(tokenizer.get_vocab().values()) + 1
    if size > len(_weight(model.get_input_embeddings())):
        model.resize_token_embeddings(size, mean_resizing=False)


def _layers(model: PreTrainedModel) -> list[nn.Module]:
    """Give the embeddings on the way in and on the way out; one layer where they are tied is in both places."""
    return [layer for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer is not None]


def _weight(layer: nn.Module) -> Tensor:
    return getattr(layer, "weight")  # noqa: B009 # typed as Module


def _mean(layer: nn.Module, rows: int) -> Tensor:
    """(C,) fp32, over the first `rows` embeddings."""
    return _weight(layer).detach()[:rows].float().mean(0)
