"""Base models as anybody would save them: Llama with a head of its own or a tied one, and GPT-2."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from schemas.train_config import TrainConfig
from tests.train.world import make_records, small_llama
from train.model.adapt import adapt
from train.model.base import Base
from train.model.load import load_base
from train.model.trainee import Trainee
from train.step.batch import make_batch
from train.text.template import Template, encode

KINDS = ("llama", "tied", "gpt2")


@pytest.fixture
def saved(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Callable[..., Path]:
    """Save a small base model of a kind, with its tokenizer."""

    def save(kind: str = "llama") -> Path:
        folder = tmp_path / kind
        if kind == "gpt2":
            torch.manual_seed(0)
            shape = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 512}
            ends = {"bos_token_id": 0, "eos_token_id": 0}
            model: Any = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), initializer_range=0.2, **shape, **ends))
        else:
            model = small_llama(len(tokenizer), tie_word_embeddings=kind == "tied")
            model.set_attn_implementation("sdpa")
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.fixture
def taught(saved: Callable[..., Path]) -> Callable[..., tuple[Base, Trainee]]:
    """Train a base model of a kind for a few steps, by the settings of a TrainConfig."""

    def teach(kind: str = "llama", **settings: Any) -> tuple[Base, Trainee]:
        config = TrainConfig(model=str(saved(kind)), device="cpu", **settings)
        base = load_base(config, [])
        trainee = adapt(base, config)
        examples = encode(make_records(4), Template(trainee.tokenizer, kind), max_tokens=256).examples
        optimizer = torch.optim.SGD([weight for _, weight in trainee.trainable()], lr=0.3)
        trainee.model.train()
        batch = make_batch(examples, [(0, 1, 2, 3)])
        for _ in range(3):
            trainee.nll(batch).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        trainee.model.eval()
        return base, trainee

    return teach


def logits_of(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0]
