"""The proof: packed and chunked, loss and gradients are those of a plain reference, whatever the shape and the method.

The reference is what anybody would write: transformers' own attention, one record after the other without padding, all
logits of all positions in fp32, torch's cross_entropy over shifted labels, summed and divided by all targets.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from train.model.trainee import Trainee
from train.step import attention
from train.step.batch import IGNORE, make_batch
from train.step.loss import target_nll
from train.text.tokens import Example

attention.register()

TOLERANCE = 1e-5
"""Relative: |ours - reference| / |reference|, of the loss and of the norm of every weight's gradient."""

VOCABULARY = 61
LENGTHS = (9, 23, 2, 14, 31, 7, 12)
ROWS = ((0, 1, 2), (3, 5), (4,), (6,))
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
WINDOW = 5
"""Smaller than most records, so that a window that is off by one shows."""


def llama(**settings: Any) -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**SHAPE, **settings))


def qwen2(**settings: Any) -> PreTrainedModel:
    return Qwen2ForCausalLM(Qwen2Config(**SHAPE, **settings))


def qwen3(**settings: Any) -> PreTrainedModel:
    return Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=8, **settings))


def gemma(**settings: Any) -> PreTrainedModel:
    return GemmaForCausalLM(GemmaConfig(**SHAPE, head_dim=8, **settings))


def gemma3(**settings: Any) -> PreTrainedModel:
    """Windows in every other layer, each kind with its own rope, queries and embeddings scaled."""
    kinds = ["sliding_attention", "full_attention"]
    shape = {"head_dim": 8, "sliding_window": WINDOW, "layer_types": kinds, "query_pre_attn_scalar": 20}
    return Gemma3ForCausalLM(Gemma3TextConfig(**SHAPE, **shape, **settings))


def mistral(**settings: Any) -> PreTrainedModel:
    return MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=WINDOW, **settings))


def gpt2(**settings: Any) -> PreTrainedModel:
    shape = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.3}
    silent = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, **shape, **silent, **settings))


KINDS: dict[str, Callable[..., PreTrainedModel]] = {
    f.__name__: f for f in (llama, qwen2, qwen3, gemma, gemma3, mistral, gpt2)
}


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    """Records of random tokens, with answers in their middle and at their end."""
    random = np.random.default_rng(3)
    made: list[Example] = []
    for i, length in enumerate(LENGTHS):
        ids = random.integers(0, VOCABULARY, length).astype(np.int32)
        supervised = random.random(length) < 0.6
        supervised[-1] = True
        made.append(Example(str(i), "a", 1.0, ids, supervised))
    return made


def randomised(trainee: Trainee) -> Trainee:
    """Move adapters away from 0, where half of their gradients vanish, and norms away from 1."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in trainee.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
            elif weight.ndim == 1:
                weight.add_(torch.randn_like(weight) * 0.1)
    return trainee


def gradients(trainee: Trainee) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in trainee.trainable() if p.grad is not None}
    trainee.model.zero_grad()
    return found


def reference(trainee: Trainee, examples: list[Example]) -> tuple[float, dict[str, torch.Tensor]]:
    total = torch.zeros(())
    with trainee.stock_attention():
        for example in examples:
            ids = torch.tensor(example.input_ids, dtype=torch.int64)[None]
            labels = torch.where(torch.tensor(example.supervised), ids[0], IGNORE)
            logits = trainee.network(input_ids=ids, use_cache=False).logits[0].float()
            total = total + F.cross_entropy(logits[:-1], labels[1:], ignore_index=IGNORE, reduction="sum")
        loss = total / sum(e.targets for e in examples)
        loss.backward()
    return loss.item(), gradients(trainee)


def packed(
    trainee: Trainee, examples: list[Example], micro_batch: int, *, chunk: int = 8, padded: bool = False
) -> tuple[float, dict[str, torch.Tensor]]:
    """Ours: rows of several records, `micro_batch` of them a pass, the logits of `chunk` targets at a time."""
    targets, total = sum(e.targets for e in examples), 0.0
    for at in range(0, len(ROWS), micro_batch):
        shape = {"pad_tokens": 100, "pad_records": 12, "pad_longest": 64} if padded else {}
        batch = make_batch(examples, ROWS[at : at + micro_batch], **shape)
        nll_M = target_nll(trainee.head, trainee.hidden(batch), batch, chunk_bytes=chunk * 4 * VOCABULARY)
        loss = nll_M.sum() / targets
        loss.backward()
        total += loss.item()
    return total, gradients(trainee)


def assert_same(ours: tuple[float, dict[str, torch.Tensor]], expected: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert abs(ours[0] - expected[0]) / abs(expected[0]) < TOLERANCE
    assert ours[1].keys() == expected[1].keys()
    assert ours[1]
    for name, gradient in expected[1].items():
        assert gradient.norm() > 0, f"{name} has no gradient, so nothing is proven of it"
        assert (ours[1][name] - gradient).norm() < TOLERANCE * gradient.norm(), name


@pytest.mark.parametrize("checkpointing", ["none", "selective", "full"])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_and_chunked_equals_plain_unpacked_fp32(
    kind: str, method: str, checkpointing: str, examples: list[Example], trainee_of: Callable[..., Trainee]
) -> None:
    torch.manual_seed(0)
    trainee = randomised(trainee_of(KINDS[kind](), method=method, checkpointing=checkpointing))
    trainee.model.train()
    expected = reference(trainee, examples)
    for micro_batch in (1, 2, len(ROWS)):
        assert_same(packed(trainee, examples, micro_batch), expected)
    assert_same(packed(trainee, examples, 2, padded=True), expected)
    assert_same(packed(trainee, examples, 2, chunk=10**6), expected)


def cohere(**settings: Any) -> PreTrainedModel:
    return CohereForCausalLM(CohereConfig(**SHAPE, logit_scale=0.3, **settings))


def granite(**settings: Any) -> PreTrainedModel:
    return GraniteForCausalLM(GraniteConfig(**SHAPE, logits_scaling=7.0, **settings))


def capped(**settings: Any) -> PreTrainedModel:
    model = gemma3(**settings)
    model.config.final_logit_softcapping = 3.0
    return model


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (cohere, {"method": "full"}),
        (granite, {"method": "full"}),
        (capped, {"method": "full"}),
        (llama, {"method": "lora", "lora_targets": ("q_proj", "lm_head")}),
    ],
)
def test_a_head_that_does_more_than_a_product_is_not_passed_by(
    make: Callable[..., PreTrainedModel],
    settings: dict[str, Any],
    examples: list[Example],
    trainee_of: Callable[..., Trainee],
) -> None:
    """Trap 9: a shortcut past the head would miss an adapter on it, a scale or a cap."""
    torch.manual_seed(0)
    trainee = randomised(trainee_of(make(), **settings))
    assert trainee.head.plain_weight() is None
    assert_same(packed(trainee, examples, 2), reference(trainee, examples))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_targets_may_be_weighed_one_by_one(
    method: str, examples: list[Example], trainee_of: Callable[..., Trainee]
) -> None:
    """Gradients that were made for a sum are not used where targets count unequally, nor twice."""
    torch.manual_seed(0)
    trainee = randomised(trainee_of(llama(), method=method))
    batch = make_batch(examples, ROWS)
    weigh_M = torch.rand(batch.targets)
    labels_M = batch.labels_1N[0, batch.targets_M + 1]
    logits_MV = trainee.head(trainee.hidden(batch)[0, batch.targets_M])
    (F.cross_entropy(logits_MV, labels_M, reduction="none") * weigh_M).sum().backward()
    expected = gradients(trainee)
    loss = (target_nll(trainee.head, trainee.hidden(batch), batch, chunk_bytes=8 * 4 * VOCABULARY) * weigh_M).sum()
    for _ in range(2):
        loss.backward(retain_graph=True)
        assert_same((1.0, gradients(trainee)), (1.0, expected))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma", "gemma3", "gpt2"])
def test_tied_and_untied_heads_give_the_gradients_of_the_reference(
    kind: str, tied: bool, examples: list[Example], trainee_of: Callable[..., Trainee]
) -> None:
    torch.manual_seed(0)
    trainee = randomised(trainee_of(KINDS[kind](tie_word_embeddings=tied), method="full"))
    assert (trainee.network.get_input_embeddings().weight is trainee.network.get_output_embeddings().weight) == tied
    assert_same(packed(trainee, examples, 2), reference(trainee, examples))


def test_the_proof_fails_where_records_see_each_other(
    examples: list[Example], trainee_of: Callable[..., Trainee], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 1: without their bounds, records of a row are one long text."""
    torch.manual_seed(0)
    trainee = randomised(trainee_of(llama(), method="full"))
    expected = reference(trainee, examples)
    bounds = "train.step.attention._records"
    monkeypatch.setattr(bounds, lambda cu_S: [(0, int(cu_S[-1]))])
    with pytest.raises(AssertionError):
        assert_same(packed(trainee, examples, 2), expected)
