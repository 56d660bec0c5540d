"""The loss of each supervised token: hidden states of targets alone go through the head, in chunks.

Labels are aligned with inputs; the shift is here, once: the hidden state at t predicts the label at t + 1. What comes
out is the negative log-likelihood per target in nats, so that the loss of a record or a source is a sum over it. Sums
are divided by the targets of the whole accumulation window, by whoever accumulates (transformers#34191).

Legend: N tokens of the batch, M targets among them, C hidden size, V vocabulary.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PretrainedConfig

from train.step.batch import IGNORE, PackedBatch

CHUNK_BYTES = 512 * 2**20
"""Logits of at most this size (fp32) are alive at once. Small chunks cost time: 256 tokens of a large vocabulary were
1.8 times slower (trl#5575), and this is some 900 tokens of a vocabulary of 150,000."""


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """From hidden states to logits, as the model's own forward does it.

    `multiplier` scales the logits (Cohere's logit_scale, 1 / Granite's logits_scaling); `softcap` bounds them (Gemma).
    The layer is called as a module, so an adapter on it takes part. Whether this is all that the model does between
    hidden states and logits is not believed: the self-test compares with the model's own logits before step 0.
    """

    layer: nn.Module
    multiplier: float = 1.0
    softcap: float | None = None

    def __call__(self, hidden_MC: Tensor) -> Tensor:
        """Give logits (M, V) in fp32."""
        logits_MV = self.layer(hidden_MC).float()
        if self.multiplier != 1.0:
            logits_MV = logits_MV * self.multiplier
        if self.softcap is not None:
            logits_MV = torch.tanh(logits_MV / self.softcap) * self.softcap
        return logits_MV


def head_of(layer: nn.Module, config: PretrainedConfig) -> Head:
    """Make the head of a model from its output layer and what its configuration says of the logits."""
    text = config.get_text_config()
    scale = getattr(text, "logit_scale", None)
    divisor = getattr(text, "logits_scaling", None)
    multiplier = float(scale) if scale is not None else 1.0 / float(divisor) if divisor else 1.0
    softcap = getattr(text, "final_logit_softcapping", None)
    return Head(layer, multiplier, None if softcap is None else float(softcap))


def target_nll(head: Head, hidden_1NC: Tensor, batch: PackedBatch, *, chunk_bytes: int = CHUNK_BYTES) -> Tensor:
    """Give the negative log-likelihood of each target, (M,) fp32 nats, in the order of the batch's tokens."""
    labels_N = batch.labels_1N[0, 1:]
    is_target_N = labels_N != IGNORE
    hidden_MC = hidden_1NC[0, :-1][is_target_N]
    labels_M = labels_N[is_target_N]
    vocabulary = _vocabulary(head.layer)
    chunk = max(1, chunk_bytes // (4 * vocabulary))
    if len(labels_M) <= chunk:
        return _nll(head, hidden_MC, labels_M)
    parts = [
        checkpoint(_nll, head, h, labels, use_reentrant=False)
        for h, labels in zip(hidden_MC.split(chunk), labels_M.split(chunk), strict=True)
    ]
    return torch.cat(parts)


def target_records(batch: PackedBatch) -> Tensor:
    """Give, for each target, which of the batch's records it belongs to: (M,) int64, aligned with `target_nll`."""
    return batch.segment_N[1:][batch.labels_1N[0, 1:] != IGNORE]


def _nll(head: Head, hidden_MC: Tensor, labels_M: Tensor) -> Tensor:
    return F.cross_entropy(head(hidden_MC), labels_M, reduction="none")


def _vocabulary(layer: nn.Module) -> int:
    found = getattr(layer, "out_features", None) or getattr(layer, "weight").shape[0]  # noqa: B009 # typed as Module
    return int(found)
