"""Merged adapters say what the adapters said, in fp32; what a cast changes is measured."""

import json
import shutil
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
from train.model.device import Device
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


def test_adapters_are_merged_in_fp32_and_cast_only_then(
    taught: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 10: merged into a base in half precision, much of what was learnt is lost in rounding."""
    _, trainee = taught(method="lora")
    save_weights(trainee, tmp_path / "final")
    config = TrainConfig(model=str(tmp_path / "final"), device="cpu")
    whole = load_trained(config).model
    monkeypatch.setattr(Device, "frozen_dtype", lambda _: torch.bfloat16)  # as on a GPU
    half = load_trained(config).model
    for exact, cast_after in zip(whole.parameters(), half.parameters(), strict=True):
        assert (exact.dtype, cast_after.dtype) == (torch.float32, torch.bfloat16)
        assert torch.equal(exact.bfloat16(), cast_after)


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
    with pytest.raises(ModelError, match=r"adapters .*: cannot be loaded \(RuntimeError") as error:
        load_trained(TrainConfig(model=str(tmp_path / "final"), device="cpu"))
    assert "\n" not in str(error.value)


@pytest.fixture
def adapters(taught: Taught, tmp_path: Path) -> Path:
    _, trainee = taught(method="lora")
    save_weights(trainee, tmp_path / "mine" / "final")
    return tmp_path / "mine" / "final"


def load_again(folder: Path) -> Base:
    return load_trained(TrainConfig(model=str(folder), device="cpu"))


def change(file: Path, **settings: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def test_adapters_that_lack_a_weight_are_refused_by_its_name(adapters: Path) -> None:
    """peft only warns, and what is lacking then does nothing."""
    file = adapters / "adapter_model.safetensors"
    weights = load_file(file)
    lost = weights.pop("base_model.model.model.layers.1.mlp.up_proj.lora_B.weight")
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ModelError, match=r"lack weights .*layers\.1\.mlp\.up_proj\.lora_B"):
        load_again(adapters)
    weights |= {f"base_model.model.model.layers.{i}.mlp.up_proj.lora_B.weight": lost.clone() for i in (1, 2)}
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ModelError, match=r"without a place .*layers\.2\.mlp\.up_proj\.lora_B"):
        load_again(adapters)


@pytest.mark.parametrize("kind", ["IA3", "PROMPT_TUNING", "XLORA", "NOPE", 3])
def test_adapters_of_another_kind_are_refused(adapters: Path, kind: object) -> None:
    change(adapters / "adapter_config.json", peft_type=kind)
    with pytest.raises(ModelError, match=f"of the kind {kind}; expected LoRA"):
        load_again(adapters)


@pytest.mark.parametrize("base", [None, ["x"], "tiny", 3])
def test_adapters_that_name_no_base_are_refused(adapters: Path, base: object) -> None:
    change(adapters / "adapter_config.json", base_model_name_or_path=base)
    with pytest.raises(ModelError, match="names no base model"):
        load_again(adapters)


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_adapters_without_settings_are_one_line(adapters: Path, text: str) -> None:
    (adapters / "adapter_config.json").write_text(text)
    with pytest.raises(ModelError, match=r"adapter_config\.json: cannot be read"):
        load_again(adapters)


def test_how_strong_adapters_are_belongs_to_their_digest(adapters: Path) -> None:
    before = load_again(adapters).digest
    change(adapters / "adapter_config.json", lora_alpha=1)
    assert load_again(adapters).digest != before


def test_a_folder_that_happens_to_be_called_base_is_not_taken_for_theirs(adapters: Path) -> None:
    """Only a run of tiny has its base model beside its adapters."""
    named = Path(json.loads((adapters / "adapter_config.json").read_text())["base_model_name_or_path"])
    shutil.copytree(named, adapters.parent / "base")
    again = base_of(TrainConfig(model="x", device="cpu"), adapters / "adapter_config.json")
    assert again.source is not None
    assert again.source.folder == named


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
