"""New tokens: special, one id each, at the mean of the embeddings; and a tokenizer that does not fit its model."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from schemas.errors import ConfigError, ModelError
from schemas.train_config import TrainConfig
from tests.train.world import small_llama
from train.model.base import Base
from train.model.load import load_base
from train.text.template import Template


def load(folder: Path, *tokens: str) -> Base:
    return load_base(TrainConfig(model=str(folder), device="cpu", add_tokens=tokens), [])


@pytest.mark.parametrize("kind", ["llama", "tied", "gpt2"])
def test_a_new_token_is_special_and_begins_at_the_mean(saved: Callable[..., Path], kind: str) -> None:
    folder = saved(kind)
    before = AutoModelForCausalLM.from_pretrained(folder)
    base = load(folder, "<|think|>", "<|done|>")
    rows = len(before.get_input_embeddings().weight)
    assert base.added == (rows, rows + 1)
    assert base.tokenizer.encode("a<|think|>b<|done|>").count(rows) == 1
    assert all(base.tokenizer.added_tokens_decoder[i].special for i in base.added)
    for ours, theirs in (
        (base.model.get_input_embeddings().weight, before.get_input_embeddings().weight),
        (base.model.get_output_embeddings().weight, before.get_output_embeddings().weight),
    ):
        torch.testing.assert_close(ours[:rows], theirs)
        torch.testing.assert_close(ours[rows:], theirs.mean(0).expand(2, -1))


def test_the_template_may_use_them(saved: Callable[..., Path]) -> None:
    """ChatML closes its turns with <|im_end|> where that is one token: also one that was just added."""
    folder = saved()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    base = load(folder, "<|im_end|>", "<|turn|>")
    assert Template(base.tokenizer, "x").stop_ids >= set(base.added)


def test_a_token_that_is_there_keeps_its_embedding_and_is_trained(saved: Callable[..., Path]) -> None:
    folder = saved()
    before = AutoModelForCausalLM.from_pretrained(folder).get_input_embeddings().weight
    base = load(folder, "<|im_end|>")
    torch.testing.assert_close(base.model.get_input_embeddings().weight, before)
    assert base.added == (base.tokenizer.convert_tokens_to_ids("<|im_end|>"),)
    assert "1 of them were in the vocabulary before" in " ".join(base.notes)


def test_rows_that_a_model_has_to_spare_are_used(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Models are padded to round sizes: a new token takes the first free row, and no row is added."""
    rows = len(tokenizer) + 7
    model = small_llama(rows)
    model.set_attn_implementation("sdpa")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    base = load(tmp_path, "<|think|>")
    weight = base.model.get_input_embeddings().weight
    assert len(weight) == rows
    torch.testing.assert_close(weight[base.added[0]], model.model.embed_tokens.weight[: len(tokenizer)].mean(0))


def test_a_tokenizer_with_tokens_of_its_own_is_refused_unless_they_are_named(saved: Callable[..., Path]) -> None:
    folder = saved()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<tool>", "</tool>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"'<tool>', '</tool>' have none.*--add-tokens"):
        load(folder)
    with pytest.raises(ModelError, match=r"'</tool>' have none"):
        load(folder, "<tool>")
    assert len(load(folder, "<tool>", "</tool>").added) == 2


def test_an_empty_token_is_refused(saved: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="--add-tokens: ' '"):
        load(saved(), " ")
