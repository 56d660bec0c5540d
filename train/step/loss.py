"""The loss of each supervised token: hidden states of targets alone go through the head, in chunks.

Labels are aligned with inputs; the shift is here, once: the hidden state at t predicts the label at t + 1. What comes
out is the negative log-likelihood per target in nats, so that the loss of a record or a source is a sum over it. Sums
are divided by the targets of the whole accumulation window, by whoever accumulates (transformers#34191).

Logits are the largest thing that training makes, so only one chunk of them is alive at a time. A plain linear head
gives its gradients in the forward pass, chunk by chunk, while the logits are there: nothing is computed twice. Any
other head (an adapter on it, scaled or capped logits) computes each chunk again in the backward pass.

Legend: N tokens of the batch, M targets among them, K targets of a chunk, C hidden size, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PretrainedConfig

from train.step.batch import PackedBatch

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

    def plain_weight(self) -> Tensor | None:
        """Give the (V, C) weight where logits are nothing but a product with it; None where the layer must be called.

        A weight that is sharded or quantised is of another class than Parameter, and hooks would be passed by.
        """
        layer = self.layer
        if type(layer) is not nn.Linear or type(layer.weight) is not nn.Parameter:
            return None
        bias: Tensor | None = getattr(layer, "bias", None)  # torch types it as always there
        hooked = any(vars(layer)[name] for name in ("_forward_hooks", "_forward_pre_hooks"))
        plain = bias is None and not hooked and self.multiplier == 1.0 and self.softcap is None
        return layer.weight if plain else None


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
    hidden_MC = hidden_1NC[0].index_select(0, batch.targets_M)
    labels_M = batch.labels_1N[0].index_select(0, batch.targets_M + 1)
    chunk = max(1, chunk_bytes // (4 * _vocabulary(head.layer)))
    weight_VC = head.plain_weight()
    if weight_VC is not None:
        nll_M: Any = _LinearNLL.apply(hidden_MC, weight_VC, labels_M, chunk, torch.is_grad_enabled())
        return nll_M
    if len(labels_M) <= chunk:
        return _nll(head, hidden_MC, labels_M)
    parts = [
        checkpoint(_nll, head, h, labels, use_reentrant=False)
        for h, labels in zip(hidden_MC.split(chunk), labels_M.split(chunk), strict=True)
    ]
    return torch.cat(parts)


def _nll(head: Head, hidden_MC: Tensor, labels_M: Tensor) -> Tensor:
    return F.cross_entropy(head(hidden_MC), labels_M, reduction="none")


class _LinearNLL(torch.autograd.Function):
    """nll_M = cross_entropy(hidden @ weight.T, labels), per target, with gradients made in the forward pass.

    They are made for the sum of all targets. Whoever weighs all targets alike, as training does, then multiplies them
    by one number; gradients that differ from target to target are computed anew, which is as right, and slower.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 # autograd passes inputs by place
        ctx: Any, hidden_MC: Tensor, weight_VC: Tensor, labels_M: Tensor, chunk: int, grads: bool
    ) -> Tensor:
        kind = hidden_MC.device.type
        ctx.dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden_MC.dtype
        ctx.chunk = chunk
        ctx.needs = (grads and ctx.needs_input_grad[0], grads and ctx.needs_input_grad[1])
        ctx.save_for_backward(hidden_MC, weight_VC, labels_M)
        nll_M, *ctx.of_sum = _linear_nll(
            hidden_MC.to(ctx.dtype), weight_VC.to(ctx.dtype), labels_M, None, chunk=chunk, needs=ctx.needs
        )
        return nll_M

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        (grad_M,) = grad_outputs
        hidden_MC, weight_VC, labels_M = ctx.saved_tensors
        made, ctx.of_sum = ctx.of_sum, None  # held no longer than needed, and good for one pass
        alike = grad_M.numel() == 1 or grad_M.stride() == (0,)  # one number, spread out by a sum: known without a sync
        if made is None or not alike:
            hidden, weight = hidden_MC.to(ctx.dtype), weight_VC.to(ctx.dtype)
            _, *made = _linear_nll(hidden, weight, labels_M, grad_M, chunk=ctx.chunk, needs=ctx.needs)
            alike = False
        d_hidden, d_weight = (
            None if made_for is None else made_for.to(x.dtype)
            for made_for, x in zip(made, (hidden_MC, weight_VC), strict=True)
        )
        if alike and len(labels_M):  # without targets all is 0
            for d in (d_hidden, d_weight):
                if d is not None:
                    d.mul_(grad_M[0])
        return d_hidden, d_weight, None, None, None


def _linear_nll(
    hidden_MC: Tensor,
    weight_VC: Tensor,
    labels_M: Tensor,
    weigh_M: Tensor | None,
    *,
    chunk: int,
    needs: tuple[bool, bool],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Give nll_M and the gradients of its sum, weighed by `weigh_M`: of hidden_MC, and of weight_VC in fp32."""
    nll_M = torch.empty(len(labels_M), dtype=torch.float32, device=hidden_MC.device)
    d_hidden_MC = torch.empty_like(hidden_MC) if needs[0] else None
    d_weight_VC = torch.zeros_like(weight_VC, dtype=torch.float32) if needs[1] else None
    for at in range(0, len(labels_M), chunk):
        part = slice(at, at + chunk)
        hidden_KC, labels_K1 = hidden_MC[part], labels_M[part, None]
        # One (K, V) tensor in fp32, changed in place: logits, their exponentials, probabilities, gradients.
        p_KV = F.linear(hidden_KC, weight_VC).float()
        p_KV -= p_KV.amax(1, keepdim=True)
        label_K1 = p_KV.gather(1, labels_K1)
        total_K1 = p_KV.exp_().sum(1, keepdim=True)
        nll_M[part] = (total_K1.log() - label_K1)[:, 0]
        if not any(needs):
            continue
        p_KV /= total_K1
        p_KV.scatter_add_(1, labels_K1, torch.full_like(label_K1, -1.0))
        if weigh_M is not None:
            p_KV *= weigh_M[part, None]
        d_KV = p_KV.to(hidden_MC.dtype)
        if d_hidden_MC is not None:
            torch.mm(d_KV, weight_VC, out=d_hidden_MC[part])
        if d_weight_VC is None:
            continue
        if d_KV.dtype == d_weight_VC.dtype:
            d_weight_VC.addmm_(d_KV.T, hidden_KC)
        else:  # a sum of many chunks in half precision would lose the small ones
            d_weight_VC += d_KV.T @ hidden_KC
    return nll_M, d_hidden_MC, d_weight_VC


def _vocabulary(layer: nn.Module) -> int:
    found = getattr(layer, "out_features", None) or getattr(layer, "weight").shape[0]  # noqa: B009 # typed as Module
    return int(found)
