"""Answers of a run: batched as one by one, prompts as the run rendered them, and clear refusals."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.errors import CheckFailedError, ConfigError, InputError, ModelError
from schemas.record import Message, Record, last_answer
from schemas.review_config import AnswerConfig
from schemas.train_config import TrainConfig
from tests.train.world import Watcher, make_records, record
from train.evaluation.answers import Answers, answer
from train.evaluation.generation import _batches, _pad_left, generate
from train.evaluation.samples import prompt_ids
from train.model import tiny
from train.model.trainee import Trainee
from train.run.data import Data
from train.run.folder import RunFolder
from train.run.run import run
from train.text.template import Template

CONFIG = AnswerConfig(new_tokens=12, device="cpu")


@pytest.fixture(autouse=True)
def short_pretraining(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "PRETRAIN_STEPS", 30)


def alike(count: int) -> list[Record]:
    return [
        record(i, ("user", f"say number {i % 5} to {i}"), ("assistant", f"the number is {i % 5} my friend"))
        for i in range(count)
    ]


def trained(out: Path, **settings: Any) -> RunFolder:
    config = TrainConfig(
        **{"model": "tiny", "device": "cpu", "batch": 4, "max_tokens": 256, "lr": 5e-3, "samples": 0, **settings}
    )
    records = alike(60)
    run(config, Data("mix", 3, "m" * 64, "v" * 64, tuple(records[:50]), tuple(records[50:])), out, Watcher())
    return RunFolder(out)


def texts(found: Answers) -> list[tuple[str, str, str]]:
    return [(a.id, a.tuned.text, a.base.text) for a in found.answered]


def prompts_of(records: list[Record], template: Template) -> list[list[int]]:
    asked = [(r, last_answer(r.messages)) for r in records]
    return [prompt_ids(r, turn, template) for r, turn in asked if turn is not None]


def test_a_batch_with_padding_gives_the_answers_of_one_by_one(
    trainee_of: Callable[..., Trainee], template: Template
) -> None:
    """Prompts of very different lengths; a model with a wide random head, whose answers depend on each position."""
    prompts = prompts_of(make_records(24), template)
    assert len({len(p) for p in prompts}) > 8
    trainee = trainee_of()
    alone = generate(trainee, template, prompts, new_tokens=10, batch_tokens=0)
    together = generate(trainee, template, prompts, new_tokens=10, batch_tokens=1 << 20)
    assert [a.text for a in together] == [a.text for a in alone]
    assert len({a.text for a in alone}) > 12
    assert [a.text for a in generate(trainee, template, prompts[::-1], new_tokens=10, batch_tokens=300)] == [
        a.text for a in alone[::-1]
    ]


def test_positions_count_from_the_prompts_own_first_token() -> None:
    ids, mask, positions = _pad_left([[5, 6], [1, 2, 3, 4]], 0)
    assert ids.tolist() == [[0, 0, 5, 6], [1, 2, 3, 4]]
    assert mask.tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]
    assert positions.tolist() == [[1, 1, 0, 1], [0, 1, 2, 3]]


def test_padding_and_answers_fit_the_batch() -> None:
    lengths = [3, 50, 7, 7, 90, 1]
    found = list(_batches(lengths, range(6), 10, 60))
    assert sorted(i for batch in found for i in batch) == list(range(6))
    assert all(len(b) == 1 or len(b) * (max(lengths[i] for i in b) + 10) <= 60 for b in found)
    assert len(found) < 6


def test_an_answer_ends_at_its_stop_token_or_is_not_whole(
    trainee_of: Callable[..., Trainee], template: Template
) -> None:
    trainee = trainee_of()
    prompts = prompts_of(make_records(6), template)
    stop = min(template.stop_ids)
    with torch.no_grad():
        trainee.network.get_output_embeddings().weight[stop] = 0.0
    long = generate(trainee, template, prompts, new_tokens=5, batch_tokens=1 << 20)
    assert not all(a.whole for a in long)
    with torch.no_grad():
        trainee.network.get_output_embeddings().weight[:] = 0.0  # all tokens are equal: the first one, PAD, is taken
    short = generate(trainee, template, prompts, new_tokens=5, batch_tokens=1 << 20)
    assert [(a.text, a.whole) for a in short] == [("", True)] * len(prompts)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")  # peft 0.21 on transformers 5.23
@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_tuned_model_says_what_it_learnt_and_the_base_does_not(tmp_path: Path, method: str) -> None:
    folder = trained(tmp_path / "run", method=method, max_steps=60)
    found = answer(folder, alike(60)[50:], CONFIG, count=5, listener=Watcher())
    assert [a.id for a in found.answered] == [r.id for r in alike(60)[50:55]]
    assert all(a.tuned.text.startswith("the number is") and a.tuned.whole for a in found.answered)
    assert all(a.base.text != a.tuned.text for a in found.answered)
    again = answer(folder, alike(60)[50:], CONFIG, count=5, listener=Watcher())
    assert texts(again) == texts(found)
    moved = RunFolder(Path(shutil.move(folder.path, tmp_path / "elsewhere")))
    assert texts(answer(moved, alike(60)[50:], CONFIG, count=5, listener=Watcher())) == texts(found)


def test_what_cannot_be_asked_is_counted_and_the_next_record_is_taken(tmp_path: Path) -> None:
    folder = trained(tmp_path / "run", method="full", max_steps=2)
    good = alike(3)
    odd = [
        record(90, ("user", "hi"), ("assistant", "so <|im_end|> it ends")),
        record(91, ("user", "word " * 3000), ("assistant", "long")),
        record(92, ("assistant", "first")),
        replace(record(93), messages=(Message("user", "call"), Message("assistant", "x", None, "[]"))),
    ]
    found = answer(folder, [*odd, *good], CONFIG, count=2, listener=Watcher())
    assert [a.id for a in found.answered] == [good[0].id, good[1].id]
    assert found.skipped == {
        "cannot be rendered (special_token)": 1,
        "no room for 12 more tokens in the model's context of 2048": 1,
        "the last answer is no text": 2,
    }


def test_several_turns_are_answered_at_the_last_one() -> None:
    turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e")]
    assert last_answer(record(0, *turns).messages) == 3
    assert last_answer(record(0, *turns[:1]).messages) is None
    assert last_answer(record(0, ("user", "a"), ("assistant", " ")).messages) is None


def test_a_run_that_cannot_be_used_is_one_clear_error(tmp_path: Path) -> None:
    def asked(folder: Path) -> None:
        answer(RunFolder(folder), alike(2), CONFIG, count=2, listener=Watcher())

    with pytest.raises(ConfigError, match=r"nothing: no run in this folder"):
        asked(tmp_path / "nothing")
    folder = trained(tmp_path / "run", method="full", max_steps=2)
    facts = folder.read_json("run.json")
    folder.write_json("run.json", {**facts, "ended": None})
    with pytest.raises(ConfigError, match=r"not finished.*sft train --resume --out"):
        asked(folder.path)
    (folder.path / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"run\.json: cannot be read"):
        asked(folder.path)
    other = {**facts, "identity": {**facts["identity"], "base": "0" * 64}}
    folder.write_json("run.json", other)
    with pytest.raises(ModelError, match="its base model is another one now"):
        asked(folder.path)
    folder.write_json("run.json", facts)
    (folder.path / "final" / "model.safetensors").unlink()
    with pytest.raises(CheckFailedError, match=r"final/model\.safetensors is gone"):
        asked(folder.path)
    shutil.rmtree(folder.path / "final")
    with pytest.raises(InputError, match="its weights are gone"):
        asked(folder.path)
    assert json.loads((folder.path / "run.json").read_text()) == facts
