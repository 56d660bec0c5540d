from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AttentionInterface, MistralConfig, MistralForCausalLM

from schemas.errors import CheckFailedError
from tests.train.world import record
from train.model.load import Trainee
from train.plan import make_plan
from train.run.preflight import preflight, self_test
from train.step import attention
from train.step.attention import packed_attention
from train.text.template import Encoded, Refusal, Template, encode
from train.text.tokens import Example


def checked(trainee: Trainee, template: Template, train: Encoded, val: Encoded | None = None) -> Any:
    plan = make_plan(train.examples, max_tokens=256, batch=4, max_epochs=2, max_steps=None, seed=1)
    return preflight(trainee, template, train=train, val=val or Encoded((), (), 0), plan=plan)


def test_a_sound_run_is_described_before_it_starts(
    encoded: Encoded, template: Template, trainee_of: Callable[..., Trainee]
) -> None:
    refused = tuple(Refusal(str(i), "ab"[i % 2], "overlong", "300 tokens") for i in range(3))
    report = checked(trainee_of(method="full"), template, Encoded(encoded.examples, refused, 0))
    assert report.train_records == 24
    assert report.tokens == 2 * sum(len(e) for e in encoded.examples)
    assert report.targets == 2 * sum(e.targets for e in encoded.examples)
    assert 0.5 < report.packing_efficiency <= 1
    assert report.logit_difference < 1e-4
    told = "\n".join(report.lines())
    assert "3 train records not used (overlong): 2 of a, 1 of b" in told
    assert "no validation records" in told


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


def test_two_bos_are_refused(tokenizer: Any, trainee_of: Callable[..., Trainee]) -> None:
    tokenizer.bos_token = "<|pad|>"  # noqa: S105 # no password
    tokenizer.chat_template = (
        "{{ bos_token + bos_token }}{% for message in messages %}{{ message['content'] + '<|im_end|>' }}{% endfor %}"
    )
    template = Template(tokenizer, "test")
    found = encode([record(1, ("user", "hi"), ("assistant", "there"))], template, max_tokens=99)
    with pytest.raises(CheckFailedError, match="begins with two"):
        checked(trainee_of(method="full"), template, found)


def test_a_turn_without_its_stop_token_among_the_targets_is_refused(
    encoded: Encoded, template: Template, trainee_of: Callable[..., Trainee]
) -> None:
    one = encoded.examples[0]
    cut = one.supervised.copy()
    cut[np.flatnonzero(cut)[-1]] = False
    broken = Encoded((Example(one.id, one.source, 1.0, one.input_ids, cut),), (), 0)
    with pytest.raises(CheckFailedError, match="does not end in a stop token"):
        checked(trainee_of(method="full"), template, broken)


def test_a_model_of_nan_is_told_as_such_and_packing_is_not_blamed(
    encoded: Encoded, trainee_of: Callable[..., Trainee]
) -> None:
    trainee = trainee_of(method="full")
    with torch.no_grad():
        next(p for _, p in trainee.trainable())[:] = float("nan")
    with pytest.raises(CheckFailedError, match="the model gives NaN") as error:
        self_test(trainee, encoded.examples)
    assert "leak" not in str(error.value)
