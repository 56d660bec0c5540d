"""Two records in one packed row get the logits they get alone, or the model is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AttentionInterface, MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from schemas.errors import CheckFailedError, SftError
from tests.train.preflight.conftest import config_of
from tests.train.world import make_records
from train.model.adapt import adapt
from train.model.load import load_base
from train.model.trainee import Trainee
from train.preflight.selftest import self_test
from train.step import attention
from train.step.attention import packed_attention
from train.text.template import Encoded


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_leak_between_records_is_refused(encoded: Encoded, trainee_of: Callable[..., Trainee], method: str) -> None:
    """The self-test can fail: attention that ignores the record bounds, as stock attention without a mask does."""

    def leaking(module: Any, q: Any, k: Any, v: Any, mask: Any, *, cu_seq_lens_q: torch.Tensor, **other: Any) -> Any:
        return packed_attention(module, q, k, v, mask, cu_seq_lens_q=cu_seq_lens_q[[0, -1]], **other)

    trainee = trainee_of(method=method)
    assert self_test(trainee, encoded.examples) < 1e-4
    AttentionInterface.register(attention.NAME, leaking)
    try:
        with pytest.raises(CheckFailedError, match="leak into each other"):
            self_test(trainee, encoded.examples)
    finally:
        attention.register()


def test_a_head_that_does_more_than_ours_is_refused(encoded: Encoded, trainee_of: Callable[..., Trainee]) -> None:
    trainee = trainee_of(method="full")
    forward = trainee.network.forward

    def scaled(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        output.logits = output.logits * 1.5
        return output

    trainee.network.forward = scaled
    with pytest.raises(CheckFailedError, match="head is not understood"):
        self_test(trainee, encoded.examples)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_sliding_window_is_the_models_own(
    encoded: Encoded, trainee_of: Callable[..., Trainee], precision: str
) -> None:
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    settings = MistralConfig(vocab_size=400, num_key_value_heads=2, sliding_window=5, initializer_range=0.2, **shape)
    torch.manual_seed(0)
    assert (
        self_test(trainee_of(MistralForCausalLM(settings), method="full", precision=precision), encoded.examples) < 0.1
    )


def test_one_record_is_enough_for_the_self_test(encoded: Encoded, trainee_of: Callable[..., Trainee]) -> None:
    assert self_test(trainee_of(method="full"), encoded.examples[:1]) < 1e-4


def test_a_model_of_nan_is_told_as_such_and_packing_is_not_blamed(
    encoded: Encoded, trainee_of: Callable[..., Trainee]
) -> None:
    trainee = trainee_of(method="full")
    with torch.no_grad():
        next(p for _, p in trainee.trainable())[:] = float("nan")
    with pytest.raises(CheckFailedError, match="the model gives NaN") as error:
        self_test(trainee, encoded.examples)
    assert "leak" not in str(error.value)


SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
GROUPED = {**SHAPE, "num_key_value_heads": 2}
EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
LINEAR = {f"linear_{name}": size for name, size in (("num_key_heads", 2), ("num_value_heads", 4))}
WIDTHS = {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "shared_expert_intermediate_size": 16, "head_dim": 8}
UNPACKABLE: list[tuple[str, str, dict[str, Any], str]] = [
    ("Qwen3NextForCausalLM", "Qwen3NextConfig", {**GROUPED, **EXPERTS, **LINEAR, **WIDTHS}, "linear_attention"),
    ("MambaForCausalLM", "MambaConfig", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}, "carry state"),
    ("Lfm2ForCausalLM", "Lfm2Config", {**GROUPED, "layer_types": ["conv", "full_attention"] * 2}, "conv"),
    ("Gemma2ForCausalLM", "Gemma2Config", {**GROUPED, "head_dim": 8}, "soft-capped"),
    ("BloomForCausalLM", "BloomConfig", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, "does its attention itself"),
    ("MptForCausalLM", "MptConfig", {"d_model": 32, "n_layers": 2, "n_heads": 4}, "does its attention itself"),
    ("FalconForCausalLM", "FalconConfig", {**SHAPE, "alibi": True}, "does its attention itself"),
    ("XLNetLMHeadModel", "XLNetConfig", {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}, "attention itself"),
    (
        "T5ForConditionalGeneration",
        "T5Config",
        {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
        "encoder-decoder",
    ),
    ("BertLMHeadModel", "BertConfig", SHAPE, "is causal, this layer is not|attention itself"),
    ("JambaForCausalLM", "JambaConfig", {**GROUPED, "use_mamba_kernels": False, "mamba_d_state": 4}, "mamba"),
    ("RecurrentGemmaForCausalLM", "RecurrentGemmaConfig", {**GROUPED, "head_dim": 8, "lru_width": 32}, "carry state"),
]
"""Linear attention, state spaces, convolutions, capped scores, ALiBi, relative positions, encoders, both directions."""


@pytest.mark.parametrize("case", UNPACKABLE, ids=[u[0] for u in UNPACKABLE])
def test_architectures_that_cannot_be_packed_are_refused_with_one_line_and_never_trained(
    tokenizer: PreTrainedTokenizerFast,
    encoded: Encoded,
    tmp_path: Path,
    case: tuple[str, str, dict[str, Any], str],
) -> None:
    """Their configuration says so, or their class, or else the self-test finds it."""
    torch.manual_seed(0)
    model, config, settings, words = case
    if config == "JambaConfig":
        settings = {**settings, "num_experts": 2, "num_experts_per_tok": 1, "mamba_dt_rank": 4}
    made = getattr(transformers, config)(vocab_size=len(tokenizer), **settings)
    getattr(transformers, model)(made).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    chosen = config_of(model=str(tmp_path), method="full")
    with pytest.raises(SftError, match=words) as error:
        self_test(adapt(load_base(chosen, make_records(4)), chosen), encoded.examples)
    assert "\n" not in str(error.value)
