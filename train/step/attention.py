"""Attention within records: tokens of a packed row see their own record and nothing of its neighbours.

Registered with transformers' AttentionInterface under a name that has none of "flash", "sdpa" and "flex_attention" in
it, and without a mask function: transformers then builds no mask and passes our `cu_seq_lens_q` through. On CUDA in
half precision it is torch's variable-length kernel; on a CPU its flash kernel, record by record, as one operator that
torch.compile and recomputation see whole; elsewhere one SDPA call per record. Whatever it cannot do right
(soft-capping, sinks, dropout, no record bounds) raises: the alternative is a model that silently trains on leaks.

Legend: B rows, H query heads, G key heads, T tokens per row, N = B*T, D head size, S records + 1.
"""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.torch_version import TorchVersion
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AttentionInterface, PretrainedConfig

from schemas.errors import CheckFailedError, ModelError
from train.step.batch import PackedBatch

NAME = "sft_packed"

SOFTMAX_LAYERS = frozenset({"full_attention", "sliding_attention", "attention"})
"""Layer types whose attention is softmax over keys, bounded by our record bounds. Linear attention and state-space
layers carry state from one record into the next (axolotl#3453)."""

KERNEL_GROUPS = TorchVersion(torch.__version__) >= "2.12"
"""Whether the variable-length kernel takes fewer key heads than query heads."""

LENGTH_ROPES = frozenset({"longrope", "dynamic"})
"""Rotary embeddings whose factors depend on the longest record of a pass."""


_AMPERE = (8, 0)
"""The compute capability from which GPUs have the variable-length kernel."""
_has_kernel = False


def register() -> None:
    """Make `attn_implementation="sft_packed"` known to transformers. Registering twice changes nothing."""
    global _has_kernel  # noqa: PLW0603 # asked once: compiled layers take it for a constant
    _has_kernel = torch.cuda.is_available() and torch.cuda.get_device_capability() >= _AMPERE
    AttentionInterface.register(NAME, packed_attention)


def packed_attention(
    module: nn.Module,
    q_BHTD: Tensor,
    k_BGTD: Tensor,
    v_BGTD: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **other: Any,
) -> tuple[Tensor, None]:
    """Attend causally within each record: (B, T, H, D), and no weights. Records lie end to end in the B*T tokens.

    Raises ValueError for what it would get wrong; a run's self-test turns that into one line.
    """
    if cu_seq_lens_q is None:
        raise ValueError("packed attention needs cu_seq_lens_q: without it records would see each other")
    if attention_mask is not None:
        raise ValueError("packed attention takes no mask: the record bounds are the mask")
    for name in ("softcap", "s_aux", "position_bias", "score_mod"):
        if other.get(name) is not None:
            raise ValueError(f"packed attention has no {name}")
    if dropout:
        raise ValueError(f"packed attention has no dropout, found {dropout}")
    if not (getattr(module, "is_causal", True) and other.get("is_causal", True) is not False):
        raise ValueError("packed attention is causal, this layer is not")
    batch, heads, tokens, size = q_BHTD.shape
    q_NHD, k_NGD, v_NGD = (x.transpose(1, 2).reshape(batch * tokens, x.shape[1], -1) for x in (q_BHTD, k_BGTD, v_BGTD))
    if torch.is_autocast_enabled(q_BHTD.device.type):
        # Rotary embeddings give fp32 under autocast, and the kernel is not on autocast's list.
        half = torch.get_autocast_dtype(q_BHTD.device.type)
        q_NHD, k_NGD, v_NGD = q_NHD.to(half), k_NGD.to(half), v_NGD.to(half)
    if _kernel_fits(q_NHD, v_NGD):
        out_NHD = _varlen(
            q_NHD, k_NGD, v_NGD, cu_seq_lens_q, longest=max_length_q, scale=scaling, window=sliding_window
        )
    elif q_NHD.device.type == "cpu" and size == v_NGD.shape[-1]:
        groups = heads // k_NGD.shape[1]
        k_NHD, v_NHD = k_NGD.repeat_interleave(groups, 1), v_NGD.repeat_interleave(groups, 1)
        out_NHD, _ = attend_records(q_NHD, k_NHD, v_NHD, cu_seq_lens_q, scaling, sliding_window)
    else:
        out_NHD = _per_record(q_NHD, k_NGD, v_NGD, cu_seq_lens_q, scale=scaling, window=sliding_window)
    return out_NHD.view(batch, tokens, heads, v_NGD.shape[-1] if size != v_NGD.shape[-1] else size), None


def packed_hidden(backbone: nn.Module, batch: PackedBatch) -> Tensor:
    """Run a model without its head over a packed batch: the last hidden states, (1, N, C).

    No mask and no cache, or transformers would take the row for one long text (measured: logits off by 0.5).
    """
    output = backbone(
        input_ids=batch.input_ids_1N,
        position_ids=batch.position_ids_1N,
        use_cache=False,
        cu_seq_lens_q=batch.cu_seqlens_S,
        cu_seq_lens_k=batch.cu_seqlens_S,
        max_length_q=batch.max_seqlen,
        max_length_k=batch.max_seqlen,
    )
    return output.last_hidden_state


def refuse_unpackable(config: PretrainedConfig, name: str) -> None:
    """Raise CheckFailedError for a model whose layers would carry one record into the next, or cap their scores.

    A class that does its attention itself (ALiBi, relative positions, many encoder-decoders) never hears of the record
    bounds: transformers says of each class whether its attention can be exchanged.
    """
    if config.is_encoder_decoder:
        raise CheckFailedError(f"model {name}", f"{config.model_type} is an encoder-decoder", "a causal language model")
    text = config.get_text_config()
    kinds: set[str] = set(getattr(text, "layer_types", None) or ()) | set(
        getattr(text, "layers_block_type", None) or ()
    )
    if other := sorted(kinds - SOFTMAX_LAYERS):
        raise CheckFailedError(
            f"model {name}",
            f"layers of type {', '.join(other)} reach across the records of a packed row: they carry state, or attend "
            "in pieces of a fixed size",
            "softmax attention, full or in a sliding window, in every layer",
            "choose a model without linear-attention or state-space layers",
        )
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if kind is not None and not kind.is_backend_compatible():
        raise CheckFailedError(
            f"model {name}",
            f"{kind.__name__} does its attention itself, as models with ALiBi or relative positions do: packed records "
            "would see each other",
            "a model whose attention goes through transformers' AttentionInterface",
        )
    if getattr(text, "attn_logit_softcapping", None):
        raise ModelError(f"model {name}", "attention scores are soft-capped", "plain softmax attention")


def context(config: PretrainedConfig) -> tuple[int | None, str]:
    """Give the tokens that a record may have, None for no bound, and what sets the bound.

    Some rotary embeddings take other factors for the whole pass once its longest record exceeds the original context:
    packed, a short record would then be turned by its neighbour's length.
    """
    text = config.get_text_config()
    bounds: list[tuple[int, str]] = []
    if (limit := getattr(text, "max_position_embeddings", None)) is not None:
        bounds.append((int(limit), "the model's context"))
    ropes: dict[str, Any] = getattr(text, "rope_parameters", None) or {}
    for rope in (ropes, *ropes.values()):  # one for all layers, or one per type of layer
        if isinstance(rope, dict) and rope.get("rope_type") in LENGTH_ROPES:
            original = rope.get("original_max_position_embeddings") or limit
            if original is not None:
                bounds.append((int(original), f"beyond which {rope['rope_type']} rope mixes the records of a row"))
    return min(bounds, default=(None, ""))


def _kernel_fits(q_NHD: Tensor, v_NGD: Tensor) -> bool:
    """Whether torch's variable-length kernel takes these: CUDA, half precision, equal head sizes up to 256."""
    half = q_NHD.dtype in (torch.bfloat16, torch.float16)
    size = q_NHD.shape[-1]
    return _has_kernel and q_NHD.is_cuda and half and size == v_NGD.shape[-1] and size <= 256 and size % 8 == 0


def _varlen(
    q_NHD: Tensor,
    k_NGD: Tensor,
    v_NGD: Tensor,
    cu_S: Tensor,
    *,
    longest: int | None,
    scale: float | None,
    window: int | None,
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 # a part of torch that only CUDA builds need

    if longest is None:
        longest = int((cu_S[1:] - cu_S[:-1]).max())
    more: dict[str, Any] = {}
    if q_NHD.shape[1] != k_NGD.shape[1]:
        if KERNEL_GROUPS:
            more = {"enable_gqa": True}
        else:
            groups = q_NHD.shape[1] // k_NGD.shape[1]
            k_NGD, v_NGD = k_NGD.repeat_interleave(groups, 1), v_NGD.repeat_interleave(groups, 1)
    left = -1 if window is None else window - 1
    out = varlen_attn(q_NHD, k_NGD, v_NGD, cu_S, cu_S, longest, longest, scale=scale, window_size=(left, 0), **more)
    return out if isinstance(out, Tensor) else out[0]


_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default  # what SDPA calls on a CPU
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


@torch.library.custom_op("sft::attend_records", mutates_args=(), device_types="cpu")
def attend_records(  # noqa: PLR0917 # an operator's inputs have places
    q_NHD: Tensor, k_NHD: Tensor, v_NHD: Tensor, cu_S: Tensor, scale: float | None, window: int | None
) -> tuple[Tensor, Tensor]:
    """Attend causally within each record on a CPU: (N, H, D), and the log of the softmax's sums, (H, N) fp32."""
    out_NHD = torch.empty_like(q_NHD)
    sums_HN = torch.empty(q_NHD.shape[1], q_NHD.shape[0], dtype=torch.float32)
    for start, end in _records(cu_S):
        seen = _bias(_window_mask(end - start, window, q_NHD.device), q_NHD.dtype)
        parts = [x[start:end].transpose(0, 1)[None] for x in (q_NHD, k_NHD, v_NHD)]
        out, sums = _flash(*parts, 0.0, seen is None, attn_mask=seen, scale=scale)
        out_NHD[start:end] = out[0].transpose(0, 1)
        sums_HN[:, start:end] = sums[0]
    return out_NHD, sums_HN


@torch.library.custom_op("sft::attend_records_backward", mutates_args=(), device_types="cpu")
def attend_records_backward(  # noqa: PLR0917 # an operator's inputs have places
    d_out_NHD: Tensor,
    q_NHD: Tensor,
    k_NHD: Tensor,
    v_NHD: Tensor,
    out_NHD: Tensor,
    sums_HN: Tensor,
    cu_S: Tensor,
    scale: float | None,
    window: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Give the gradients of queries, keys and values, (N, H, D) each."""
    grads = (torch.empty_like(q_NHD), torch.empty_like(k_NHD), torch.empty_like(v_NHD))
    for start, end in _records(cu_S):
        seen = _bias(_window_mask(end - start, window, q_NHD.device), q_NHD.dtype)
        tensors = (d_out_NHD, q_NHD, k_NHD, v_NHD, out_NHD)
        parts = [x[start:end].transpose(0, 1)[None] for x in tensors]
        sums = sums_HN[None, :, start:end].contiguous()
        found = _flash_backward(*parts, sums, 0.0, seen is None, attn_mask=seen, scale=scale)
        for grad_NHD, part in zip(grads, found, strict=True):
            grad_NHD[start:end] = part[0].transpose(0, 1)
    return grads


def _shapes(q_NHD: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q_NHD), q_NHD.new_empty(q_NHD.shape[1], q_NHD.shape[0], dtype=torch.float32)


def _shapes_backward(_d: Tensor, q_NHD: Tensor, k_NHD: Tensor, v_NHD: Tensor, *_: object) -> tuple[Tensor, ...]:
    return torch.empty_like(q_NHD), torch.empty_like(k_NHD), torch.empty_like(v_NHD)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.scale, ctx.window = inputs
    ctx.save_for_backward(*tensors, *output)


def _backward(ctx: Any, d_out_NHD: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    q_NHD, k_NHD, v_NHD, cu_S, out_NHD, sums_HN = ctx.saved_tensors
    grads = attend_records_backward(d_out_NHD, q_NHD, k_NHD, v_NHD, out_NHD, sums_HN, cu_S, ctx.scale, ctx.window)
    return *grads, None, None, None


attend_records.register_fake(_shapes)
attend_records.register_autograd(_backward, setup_context=_save)
attend_records_backward.register_fake(_shapes_backward)


@torch.compiler.disable()  # pyright: ignore[reportUntypedFunctionDecorator] # torch types it so; it reads the bounds of records
def _per_record(
    q_NHD: Tensor, k_NGD: Tensor, v_NGD: Tensor, cu_S: Tensor, *, scale: float | None, window: int | None
) -> Tensor:
    groups = q_NHD.shape[1] // k_NGD.shape[1]  # told of groups, SDPA has no fast kernel for fp32 or for masks
    k_NGD, v_NGD = k_NGD.repeat_interleave(groups, 1), v_NGD.repeat_interleave(groups, 1)
    lengths = [end - start for start, end in _records(cu_S)]
    parts: list[Tensor] = []
    for record in zip(*(x.split(lengths) for x in (q_NHD, k_NGD, v_NGD)), strict=True):
        q, k, v = (x.transpose(0, 1)[None] for x in record)  # (1, heads, record, D)
        seen = _window_mask(q.shape[2], window, q.device)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=seen is None, scale=scale)
        parts.append(out[0].transpose(0, 1))
    return torch.cat(parts)


def _records(cu_S: Tensor) -> list[tuple[int, int]]:
    """Where each record begins and ends; empty ones, which fixed shapes bring along, are left out."""
    bounds: list[int] = cu_S.tolist()
    return [(start, end) for start, end in pairwise(bounds) if end > start]


def _window_mask(tokens: int, window: int | None, device: torch.device) -> Tensor | None:
    """(tokens, tokens), True = seen: itself and the `window` - 1 tokens before it. None where causal says it all."""
    if window is None or tokens <= window:
        return None
    at = torch.arange(tokens, device=device)
    back = at[:, None] - at[None, :]
    return (back >= 0) & (back < window)


def _bias(seen: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """The mask as what is added to the scores: 0 where seen, else minus infinity."""
    return None if seen is None else torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, -torch.inf)
