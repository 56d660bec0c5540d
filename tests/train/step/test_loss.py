"""The law: loss and gradients of packed rows are those of the same records one by one, through a plain forward."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import CohereConfig, CohereForCausalLM, GraniteConfig, GraniteForCausalLM

from tests.train.world import small_llama
from train.evaluation.losses import record_losses
from train.model.trainee import Trainee
from train.plan import make_plan
from train.step.batch import IGNORE, make_batch
from train.step.loss import target_nll
from train.text.template import Encoded
from train.text.tokens import Example

TOLERANCE = 1e-5


def plain_loss(trainee: Trainee, examples: tuple[Example, ...]) -> torch.Tensor:
    """The reference: each record alone, stock attention, all logits, -100 labels, summed; divided by all targets."""
    total = torch.zeros(())
    for example in examples:
        ids = torch.tensor(example.input_ids, dtype=torch.int64)[None]
        labels = torch.where(torch.tensor(example.supervised), ids[0], IGNORE)
        logits = trainee.network(input_ids=ids, use_cache=False).logits[0]
        total = total + F.cross_entropy(logits[:-1], labels[1:], ignore_index=IGNORE, reduction="sum")
    return total / sum(e.targets for e in examples)


def gradients(trainee: Trainee) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in trainee.trainable() if p.grad is not None}
    trainee.model.zero_grad()
    return found


@pytest.mark.parametrize("micro_batch", [1, 3])
@pytest.mark.parametrize(
    "settings",
    [
        {"method": "full"},
        {"method": "lora"},
        {"method": "full", "checkpointing": "full"},
        {"method": "lora", "checkpointing": "full"},
    ],
)
def test_packed_loss_and_gradients_equal_those_of_single_records(
    encoded: Encoded, trainee_of: Callable[..., Trainee], settings: dict[str, Any], micro_batch: int
) -> None:
    trainee = trainee_of(**settings)
    trainee.model.train()
    if settings["method"] == "lora":  # adapters begin at 0, where half of their gradients vanish
        torch.manual_seed(1)
        for name, weight in trainee.trainable():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
    examples = encoded.examples
    plan = make_plan(examples, max_tokens=256, batch=999, max_epochs=1, max_steps=None, seed=1)
    (step,) = plan
    assert max(map(len, step.rows)) > 1
    targets = sum(e.targets for e in examples)
    packed = 0.0
    for at in range(0, len(step.rows), micro_batch):
        batch = make_batch(examples, step.rows[at : at + micro_batch])
        loss = target_nll(trainee.head, trainee.hidden(batch), batch).sum() / targets
        loss.backward()
        packed += loss.item()
    found = gradients(trainee)
    with trainee.stock_attention():
        alone = plain_loss(trainee, examples)
        alone.backward()
    expected = gradients(trainee)

    assert abs(packed - alone.item()) / alone.item() < TOLERANCE
    assert found.keys() == expected.keys()
    assert found
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= TOLERANCE * gradient.norm(), name


def test_chunked_is_whole(encoded: Encoded, trainee_of: Callable[..., Trainee]) -> None:
    trainee = trainee_of(method="full")
    batch = make_batch(encoded.examples, [(0, 1, 2)])
    whole = target_nll(trainee.head, trainee.hidden(batch), batch)
    whole.sum().backward()
    expected = gradients(trainee)
    chunked = target_nll(trainee.head, trainee.hidden(batch), batch, chunk_bytes=7 * 4 * len(trainee.tokenizer))
    chunked.sum().backward()
    torch.testing.assert_close(chunked, whole)
    with torch.inference_mode():
        scored = target_nll(trainee.head, trainee.hidden(batch), batch, chunk_bytes=7 * 4 * len(trainee.tokenizer))
    torch.testing.assert_close(scored, whole.detach())
    for name, gradient in gradients(trainee).items():
        torch.testing.assert_close(gradient, expected[name])


def test_losses_of_single_records_are_those_of_their_tokens(
    encoded: Encoded, trainee_of: Callable[..., Trainee]
) -> None:
    trainee = trainee_of(method="full")
    scored = record_losses(trainee, encoded.examples, max_tokens=256, micro_batch=2)
    assert [s.id for s in scored] == [e.id for e in encoded.examples]
    with trainee.stock_attention(), torch.no_grad():
        for one, example in zip(scored, encoded.examples, strict=True):
            assert one.mean == pytest.approx(plain_loss(trainee, (example,)).item(), rel=1e-5)
    batch = make_batch(encoded.examples, [(4, 0)])
    counts = torch.bincount(batch.records_M).tolist()
    assert counts == [encoded.examples[4].targets, encoded.examples[0].targets]


SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


@pytest.mark.parametrize("kind", ["cohere", "granite", "llama"])
def test_the_head_scales_logits_as_the_model_does(
    kind: str, encoded: Encoded, trainee_of: Callable[..., Trainee]
) -> None:
    vocabulary = int(max(e.input_ids.max() for e in encoded.examples)) + 1
    model: Any = {
        "cohere": lambda: CohereForCausalLM(CohereConfig(vocab_size=vocabulary, logit_scale=0.3, **SHAPE)),
        "granite": lambda: GraniteForCausalLM(GraniteConfig(vocab_size=vocabulary, logits_scaling=7.0, **SHAPE)),
        "llama": lambda: small_llama(vocabulary),
    }[kind]()
    trainee = trainee_of(model, method="full")
    trainee.model.eval()
    batch = make_batch(encoded.examples, [(0,)])
    with torch.no_grad():
        ours = trainee.head(trainee.hidden(batch)[0])
        with trainee.stock_attention():
            theirs = trainee.network(input_ids=batch.input_ids_1N, use_cache=False).logits[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
