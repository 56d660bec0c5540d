"""Merged adapters say what the adapters said, in fp32; what a cast changes is measured."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraModel
from safetensors.torch import load_file, save_file

from schemas.errors import CheckFailedError, ModelError
from schemas.train_config import TrainConfig
from tests.train.model.conftest import KINDS, logits_of
from train.model.base import Base, has_tied_head
from train.model.merge import cast, merged, probes
from train.model.trainee import Trainee
from train.model.tuned import base_of, load_trained
from train.run.weights import save_weights

Taught = Callable[..., tuple[Base, Trainee]]
NEW = ("<|think|>", "<|done|>")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("settings", [{}, {"dora": True}, {"rslora": True}, {"add_tokens": NEW}])
def test_a_merged_model_gives_the_logits_of_the_adapted_one(
    taught: Taught, tmp_path: Path, kind: str, settings: dict[str, Any]
) -> None:
    base, trainee = taught(kind, method="lora", **settings)
    save_weights(trainee, tmp_path / "final")
    again = load_trained(TrainConfig(model=str(tmp_path / "final"), device="cpu"))
    assert has_tied_head(again.model) is (kind != "llama")
    again.model.set_attn_implementation("sdpa")
    ids = [5, 6, *base.added, 7]
    with trainee.stock_attention():
        torch.testing.assert_close(logits_of(again.model, ids), logits_of(trainee.network, ids), rtol=1e-4, atol=1e-4)
    assert again.digest != base.digest


def test_a_merge_that_says_something_else_is_refused(
    taught: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, trainee = taught(method="lora")
    save_weights(trainee, tmp_path / "final")
    real = LoraModel.merge_and_unload

    def wrong(self: Any) -> Any:
        model = real(self)
        with torch.no_grad():
            model.lm_head.weight[3] += 0.1
        return model

    monkeypatch.setattr(LoraModel, "merge_and_unload", wrong)
    base = base_of(TrainConfig(model="x", device="cpu"), tmp_path / "final" / "adapter_config.json")
    with pytest.raises(CheckFailedError, match="they give other logits"):
        merged(base, tmp_path / "final")


def test_pickled_adapters_are_not_opened(taught: Taught, tmp_path: Path) -> None:
    _, trainee = taught(method="lora")
    save_weights(trainee, tmp_path / "final")
    (tmp_path / "final" / "adapter_model.safetensors").rename(tmp_path / "final" / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
        load_trained(TrainConfig(model=str(tmp_path / "final"), device="cpu"))


def test_adapters_of_another_shape_are_one_line(taught: Taught, tmp_path: Path) -> None:
    _, trainee = taught(method="lora")
    save_weights(trainee, tmp_path / "final")
    file = tmp_path / "final" / "adapter_model.safetensors"
    save_file({name: torch.cat([w, w]) for name, w in load_file(file).items()}, file, {"format": "pt"})
    with pytest.raises(ModelError, match="adapters that cannot be loaded") as error:
        load_trained(TrainConfig(model=str(tmp_path / "final"), device="cpu"))
    assert "\n" not in str(error.value)


def test_adapters_find_their_base_by_the_name_they_hold(taught: Taught, tmp_path: Path) -> None:
    base, trainee = taught(method="lora")
    save_weights(trainee, tmp_path / "final")
    assert base.source is not None
    held = json.loads((tmp_path / "final" / "adapter_config.json").read_text())
    assert held["base_model_name_or_path"] == str(base.source.folder)


def test_what_a_cast_changes_is_measured(taught: Taught) -> None:
    base, trainee = taught(method="full")
    asked = probes(trainee.tokenizer, ["the cat sat on a mat"])
    found = cast(base.model, torch.bfloat16, asked)
    assert 1e-4 < found.difference < 0.5
    assert 0.5 < found.agreement <= 1
    assert found.positions == sum(map(len, asked))
    assert cast(base.model, torch.bfloat16, asked).difference == 0


def test_weights_that_half_precision_cannot_hold_are_refused(taught: Taught) -> None:
    base, trainee = taught(method="full")
    with torch.no_grad():
        base.model.lm_head.weight[3] *= 1e7
    with pytest.raises(CheckFailedError, match="--dtype bf16 or fp32"):
        cast(base.model, torch.float16, probes(trainee.tokenizer, []))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_revision_of_a_base_is_not_looked_for_in_what_was_made_of_it(
    taught: Taught, tmp_path: Path, method: str
) -> None:
    _, trainee = taught(method=method)
    save_weights(trainee, tmp_path / "final")
    again = load_trained(TrainConfig(model=str(tmp_path / "final"), device="cpu", method="full", revision="v1"))
    assert len(again.tokenizer) == len(trainee.tokenizer)
