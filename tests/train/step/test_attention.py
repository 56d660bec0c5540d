from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, Qwen3NextConfig

from schemas.errors import CheckFailedError, ModelError
from train.step.attention import _per_record, packed_attention, refuse_unpackable

CAUSAL: Any = SimpleNamespace(is_causal=True)
BOUNDS = [0, 5, 5, 6, 13]


def projections(heads: int = 4, groups: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(1, n, BOUNDS[-1], 8, generator=generator) for n in (heads, groups, groups)]
    return made[0], made[1], made[2]


@pytest.mark.parametrize("window", [None, 3, 7])
def test_each_record_attends_as_if_it_were_alone(window: int | None) -> None:
    q, k, v = projections()
    cu = torch.tensor(BOUNDS, dtype=torch.int32)
    got, _ = packed_attention(CAUSAL, q, k, v, None, cu_seq_lens_q=cu, sliding_window=window, scaling=0.3)
    k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
    # The plain reference: one matrix of all pairs, everything but own record, past and window masked.
    at = torch.arange(BOUNDS[-1])
    owner = torch.bucketize(at, cu[1:], right=True)
    back = at[:, None] - at[None, :]
    seen = (owner[:, None] == owner[None, :]) & (back >= 0) & (back < (window or 99))
    scores = (q @ k.transpose(-1, -2) * 0.3).masked_fill(~seen, -torch.inf)
    expected = (F.softmax(scores, -1) @ v).transpose(1, 2)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("window", [None, 3])
def test_where_no_kernel_is_records_attend_one_by_one(window: int | None) -> None:
    q, k, v = projections()
    cu = torch.tensor(BOUNDS, dtype=torch.int32)
    expected, _ = packed_attention(CAUSAL, q, k, v, None, cu_seq_lens_q=cu, sliding_window=window, scaling=0.3)
    q, k, v = (x.transpose(1, 2)[0] for x in (q, k, v))
    got = _per_record(q, k, v, cu, scale=0.3, window=window)
    torch.testing.assert_close(got[None], expected, rtol=1e-5, atol=1e-6)


def test_without_record_bounds_it_raises_instead_of_leaking() -> None:
    with pytest.raises(ValueError, match="cu_seq_lens_q"):
        packed_attention(CAUSAL, *projections(), None)


@pytest.mark.parametrize(
    ("name", "value"), [("softcap", 50.0), ("s_aux", torch.zeros(4)), ("dropout", 0.1), ("is_causal", False)]
)
def test_what_it_cannot_do_right_raises(name: str, value: object) -> None:
    cu = torch.tensor(BOUNDS, dtype=torch.int32)
    settings: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match="packed attention"):
        packed_attention(CAUSAL, *projections(), None, cu_seq_lens_q=cu, **settings)


def test_linear_attention_layers_are_refused_and_sliding_ones_are_not() -> None:
    with pytest.raises(CheckFailedError, match="linear_attention"):
        refuse_unpackable(Qwen3NextConfig(num_hidden_layers=4), "hybrid")
    plain = LlamaConfig(num_hidden_layers=2)
    plain.layer_types = ["full_attention", "sliding_attention"]
    refuse_unpackable(plain, "plain")


def test_soft_capped_scores_are_refused() -> None:
    capped = LlamaConfig(num_hidden_layers=2)
    capped.attn_logit_softcapping = 50.0
    with pytest.raises(ModelError, match="soft-capped"):
        refuse_unpackable(capped, "capped")
