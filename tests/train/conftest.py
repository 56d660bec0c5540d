"""Fixtures of the trainer's tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from schemas.record import Record
from schemas.train_config import TrainConfig
from tests.train.world import make_records, small_llama
from train.model.adapt import adapt
from train.model.base import Base
from train.model.device import choose_device
from train.model.tiny import tiny_tokenizer
from train.model.trainee import Trainee
from train.step import attention
from train.text.template import Encoded, Template, encode


@pytest.fixture(scope="session")
def records() -> list[Record]:
    return make_records(24)


@pytest.fixture
def tokenizer(records: list[Record]) -> PreTrainedTokenizerFast:
    return tiny_tokenizer(records)


@pytest.fixture
def template(tokenizer: PreTrainedTokenizerFast) -> Template:
    return Template(tokenizer, "test")


@pytest.fixture
def encoded(records: list[Record], template: Template) -> Encoded:
    return encode(records, template, max_tokens=256)


@pytest.fixture
def trainee_of(tokenizer: PreTrainedTokenizerFast) -> Callable[..., Trainee]:
    """Make a trainee of a model (a small Llama by default), by the settings of a TrainConfig."""

    def make(model: Any = None, **settings: Any) -> Trainee:
        config = TrainConfig(model="small", device="cpu", **settings)
        model = small_llama(len(tokenizer)) if model is None else model
        model.set_attn_implementation(attention.NAME)
        return adapt(Base(model, tokenizer, "small", "digest", choose_device(config)), config)

    return make


@pytest.fixture
def model_folder(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A small Llama and its tokenizer, saved as anybody would."""
    folder = tmp_path / "model"
    model = small_llama(len(tokenizer))
    model.set_attn_implementation("sdpa")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
