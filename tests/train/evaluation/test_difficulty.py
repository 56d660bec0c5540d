"""Perplexity and IFD equal what a plain forward pass gives, one record and one answer at a time."""

from collections.abc import Callable, Sequence
from math import exp, inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from schemas.errors import ModelError
from schemas.record import Record
from schemas.train_config import TrainConfig
from tests.train.world import record, small_llama
from train.evaluation import difficulty as module
from train.evaluation.difficulty import DifficultyModel, difficulty, encode_each, pair_of, start_token
from train.evaluation.losses import record_losses
from train.model.trainee import Trainee
from train.text.template import Template
from train.text.tokens import Example

TOLERANCE = 1e-4


@pytest.fixture
def model_of(trainee_of: Callable[..., Trainee], template: Template) -> Callable[..., DifficultyModel]:
    """Make a difficulty model of a network (a small Llama by default)."""

    def make(network: Any = None, *, max_tokens: int = 256, batch_tokens: int = 512) -> DifficultyModel:
        trainee = trainee_of(network, method="full")
        return DifficultyModel(trainee, template, "digest", max_tokens=max_tokens, batch_tokens=batch_tokens)

    return make


def measured(model: DifficultyModel, records: Sequence[Record]) -> dict[str, Any]:
    return {found.id: found for piece in model.measure(records) for found in piece}


def mean_loss(network: Any, ids: list[int], targets: list[int]) -> list[float]:
    """Losses of the tokens at some places, by transformers' own forward pass over one text."""
    with torch.inference_mode():
        logits = network(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double()
    told = torch.log_softmax(logits, -1)
    return [-float(told[at - 1, ids[at]]) for at in targets]


def reference(network: Any, tokenizer: PreTrainedTokenizerFast, told: Record) -> tuple[float, float]:
    """Perplexity and IFD of one record by their definition: nothing of the packed pass, nothing of our templates."""
    text = ""
    spans: list[tuple[int, int]] = []
    for message in told.messages:
        text += f"<|im_start|>{message.role}\n"
        if message.role == "assistant":
            spans.append((len(text), len(text) + len(message.content)))
        text += f"{message.content}<|im_end|>\n"
    tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids: list[int] = list(tokens["input_ids"])  # pyright: ignore[reportArgumentType] # a list for one text
    offsets: Any = tokens["offset_mapping"]
    given: list[float] = []
    alone: list[float] = []
    for start, end in spans:
        answer = [i for i, (a, b) in enumerate(offsets) if a < end and b > start]
        given += mean_loss(network, ids, answer)
        by_itself = [int(tokenizer.eos_token_id), *(ids[i] for i in answer)]  # pyright: ignore[reportArgumentType] # an id
        alone += mean_loss(network, by_itself, list(range(1, len(by_itself))))
    return exp(sum(given) / len(given)), sum(given) / sum(alone)


def test_ifd_of_a_toy_model_equals_a_plain_unbatched_reference(
    records: list[Record], tokenizer: PreTrainedTokenizerFast, model_of: Callable[..., DifficultyModel]
) -> None:
    network = small_llama(len(tokenizer))
    network.set_attn_implementation("eager")
    network.eval()
    expected = {told.id: reference(network, tokenizer, told) for told in records}
    found = measured(model_of(network, batch_tokens=200), records)
    assert found.keys() == expected.keys()
    for name, (perplexity, ifd) in expected.items():
        assert found[name].perplexity == pytest.approx(perplexity, rel=TOLERANCE)
        assert found[name].ifd == pytest.approx(ifd, abs=TOLERANCE)
    assert len({round(ifd, 3) for _, ifd in expected.values()}) > 15  # they differ, so equal is saying something
    assert any(sum(m.role == "assistant" for m in told.messages) > 1 for told in records)


def test_a_gpt2_that_was_saved_and_loaded_gives_the_same_as_the_reference(
    records: list[Record], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """Superfiltering scores with GPT-2: learned positions, tied embeddings, no template of its own."""
    torch.manual_seed(3)
    network = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=256))
    network.eval()
    network.save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    config = TrainConfig.model_validate({"model": str(tmp_path / "gpt2"), "device": "cpu", "max_tokens": 2048})
    model = DifficultyModel.load(config, records, batch_tokens=4096)
    found = measured(model, records)
    for told in records:
        perplexity, ifd = reference(network, tokenizer, told)
        assert found[told.id].perplexity == pytest.approx(perplexity, rel=TOLERANCE)
        assert found[told.id].ifd == pytest.approx(ifd, abs=TOLERANCE)
    assert any("lowered to 256" in note for note in model.notes)
    assert (model.provenance["model"], model.provenance["max_tokens"]) == ("gpt2", 256)


def test_the_key_depends_on_the_weights_and_not_on_the_folder(
    records: list[Record], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    keys: list[str] = []
    for folder, seed in (("one", 1), ("two", 1), ("three", 2)):
        torch.manual_seed(seed)
        network = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2))
        network.save_pretrained(tmp_path / folder)
        tokenizer.save_pretrained(tmp_path / folder)
        config = TrainConfig.model_validate({"model": str(tmp_path / folder), "device": "cpu"})
        keys.append(DifficultyModel.load(config, records, batch_tokens=4096).key)
    assert keys[0] == keys[1] != keys[2]


def test_how_records_are_packed_changes_nothing(
    records: list[Record], model_of: Callable[..., DifficultyModel]
) -> None:
    whole, single = measured(model_of(), records), measured(model_of(batch_tokens=16), records)
    for name, found in whole.items():
        assert single[name].ifd == pytest.approx(found.ifd, abs=1e-5)


def test_ifd_is_below_1_where_the_prompt_helps_and_from_1_on_where_it_does_not() -> None:
    assert difficulty("helped", 10.0, 20.0, 10).ifd == 0.5
    assert difficulty("not", 20.0, 20.0, 10).ifd == 1.0
    assert difficulty("any", 10.0, 20.0, 10).perplexity == pytest.approx(exp(1.0))


@pytest.mark.parametrize(
    ("given", "alone", "reason"),
    [
        (inf, 1.0, "not_finite"),
        (1.0, inf, "not_finite"),
        (float("nan"), 1.0, "not_finite"),
        (1000.0, 9.0, "not_finite"),
    ],
)
def test_a_loss_that_is_no_number_gives_none(given: float, alone: float, reason: str) -> None:
    found = difficulty("x", given, alone, 2)
    assert (found.perplexity, found.ifd) == (None, None)
    assert found.refusal is not None
    assert found.refusal.startswith(reason)


def test_an_answer_that_is_certain_by_itself_has_a_perplexity_and_no_ifd() -> None:
    found = difficulty("x", 0.0, 0.0, 2)
    assert (found.perplexity, found.ifd) == (1.0, None)


def test_records_without_a_difficulty_say_why_and_hold_up_nobody(
    records: list[Record], model_of: Callable[..., DifficultyModel]
) -> None:
    odd = {
        "no_targets: no assistant turn": record(90, ("user", "Who?")),
        "no_targets: an assistant turn without text": record(91, ("user", "Who?"), ("assistant", " ")),
        "special_token": record(92, ("user", "Who?"), ("assistant", "A<|im_end|>")),
        "overlong": record(93, ("user", "Who?"), ("assistant", "cat " * 300)),
    }
    found = measured(model_of(), [*records, *odd.values()])
    for reason, told in odd.items():
        assert (found[told.id].perplexity, found[told.id].ifd) == (None, None)
        assert found[told.id].refusal.startswith(reason)
    assert all(found[told.id].ifd is not None for told in records)


def test_a_record_that_the_template_cannot_render_is_refused_alone(
    records: list[Record], tokenizer: PreTrainedTokenizerFast
) -> None:
    """For training it would end the run; here the others have their scores."""
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['content'] == 'Boo' %}{{ raise_exception('never Boo') }}{% endif %}"
        "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    )
    bad = record(95, ("user", "Boo"), ("assistant", "Who?"))
    examples, refusals = encode_each([*records, bad], Template(tokenizer, "t"), max_tokens=256)
    assert len(examples) == len(records)
    assert [(r.id, "never Boo" in r.detail) for r in refusals] == [(bad.id, True)]


def test_given_and_alone_have_the_same_targets_and_no_stop_token() -> None:
    """Tokens 1 to 3 and 6 to 7 are turns that end in the stop tokens 3 and 7."""
    example = Example("x", "s", 1.0, np.arange(9, dtype=np.int32), np.isin(np.arange(9), [1, 2, 3, 6, 7]))
    pair = pair_of(example, start=99)
    assert pair is not None
    assert pair.given.input_ids[pair.given.supervised].tolist() == [1, 2, 6]
    assert [part.input_ids.tolist() for part in pair.alone] == [[99, 1, 2], [99, 6]]
    assert [part.supervised.tolist() for part in pair.alone] == [[False, True, True], [False, True]]
    assert len(pair.given) == 7  # nothing after the last target


def test_without_a_start_token_the_first_token_of_each_turn_is_in_neither_loss() -> None:
    example = Example("x", "s", 1.0, np.arange(9, dtype=np.int32), np.isin(np.arange(9), [1, 2, 3, 6, 7]))
    pair = pair_of(example, start=None)
    assert pair is not None
    assert pair.given.input_ids[pair.given.supervised].tolist() == [2]
    assert [part.input_ids.tolist() for part in pair.alone] == [[1, 2]]
    assert pair_of(Example("x", "s", 1.0, np.arange(3, dtype=np.int32), np.array([False, True, True])), None) is None


def test_an_answer_alone_stands_after_bos_else_eos(tokenizer: PreTrainedTokenizerFast) -> None:
    assert start_token(Template(tokenizer, "t")) == tokenizer.eos_token_id
    tokenizer.bos_token = "<|im_start|>"  # noqa: S105 # a token, not a secret
    assert start_token(Template(tokenizer, "t")) == tokenizer.convert_tokens_to_ids("<|im_start|>")


@pytest.mark.parametrize("said", ["CUDA out of memory", "DefaultCPUAllocator: can't allocate memory: you tried"])
def test_out_of_memory_halves_the_passes_and_says_so(
    records: list[Record], model_of: Callable[..., DifficultyModel], monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    expected = measured(model_of(), records)
    sizes: list[int] = []

    def scarce(trainee: Trainee, examples: Sequence[Example], *, max_tokens: int) -> Any:
        sizes.append(max_tokens)
        if max_tokens > 200:
            raise (torch.OutOfMemoryError if "CUDA" in said else RuntimeError)(said)
        return record_losses(trainee, examples, max_tokens=max_tokens)

    monkeypatch.setattr(module, "record_losses", scarce)
    model = model_of(batch_tokens=512)
    found = measured(model, records)
    assert sizes[:3] == [512, 256, 128]
    assert max(sizes[3:], default=0) <= 200
    assert [note for note in model.notes if "out of memory" in note] == [
        "out of memory: forward passes of 256 tokens from here on",
        "out of memory: forward passes of 128 tokens from here on",
    ]
    for name, one in expected.items():
        assert found[name].ifd == pytest.approx(one.ifd, abs=1e-5)


def test_a_record_that_alone_is_too_much_ends_the_run_with_a_remedy(
    records: list[Record], model_of: Callable[..., DifficultyModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(module, "record_losses", none)
    with pytest.raises(ModelError, match=r"a record of \d+ tokens alone takes more memory.*Give --max-tokens"):
        measured(model_of(), records)


def test_another_failure_of_torch_stays_one(
    records: list[Record], model_of: Callable[..., DifficultyModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(module, "record_losses", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        measured(model_of(), records)


@pytest.mark.parametrize("given", ["run", "run/final"])
def test_adapters_of_a_run_are_measured_as_the_model_that_they_make(
    records: list[Record], trainee_of: Callable[..., Trainee], model_folder: Path, tmp_path: Path, given: str
) -> None:
    """What training leaves, merged into the base that it names; the run folder stands for its final weights."""
    trainee = trainee_of(method="lora")
    torch.manual_seed(1)
    for name, weight in trainee.trainable():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    config: Any = trainee.model.peft_config["default"]
    config.base_model_name_or_path = str(model_folder)
    trainee.model.save_pretrained(str(tmp_path / "run/final"))
    tokenizer: Any = trainee.tokenizer
    tokenizer.save_pretrained(tmp_path / "run/final")
    (tmp_path / "run/run.json").write_text("{}")

    def loaded(model: Path) -> DifficultyModel:
        settings = {"model": str(model), "device": "cpu", "max_tokens": 256}
        return DifficultyModel.load(TrainConfig.model_validate(settings), records, batch_tokens=512)

    tuned = loaded(tmp_path / given)
    found, base = measured(tuned, records), loaded(model_folder)
    trainee.model.eval()
    with trainee.stock_attention():
        for told in records[:5]:
            perplexity, ifd = reference(trainee.network, tokenizer, told)
            assert found[told.id].perplexity == pytest.approx(perplexity, rel=TOLERANCE)
            assert found[told.id].ifd == pytest.approx(ifd, abs=TOLERANCE)
    assert tuned.provenance["model"] == "run/final"
    assert tuned.key != base.key
    assert measured(base, records)[records[0].id].ifd != found[records[0].id].ifd


def test_adapters_without_their_base_are_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "./gone"}')
    config = TrainConfig.model_validate({"model": str(tmp_path), "device": "cpu"})
    with pytest.raises(ModelError, match="gone: no such folder"):
        DifficultyModel.load(config, [], batch_tokens=512)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be read"):
        DifficultyModel.load(config, [], batch_tokens=512)
