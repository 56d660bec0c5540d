import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    Qwen3NextConfig,
)

from schemas.errors import CheckFailedError, ConfigError, ModelError
from schemas.train_config import TrainConfig
from tests.train.world import make_records, small_llama
from train.model import tiny
from train.model.adapt import adapt
from train.model.base import Base
from train.model.device import choose_device
from train.model.load import load_base, located
from train.model.trainee import Trainee
from train.preflight.selftest import self_test
from train.run.weights import save_weights
from train.text.template import Encoded


def load(name: str | Path, method: str = "full") -> Base:
    return load_base(TrainConfig(model=str(name), method=method, device="cpu"), [])  # type: ignore[arg-type] # a Literal


def test_weights_saved_in_half_precision_are_trained_in_fp32(model_folder: Path) -> None:
    AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16).save_pretrained(model_folder)
    assert json.loads((model_folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert {p.dtype for p in load(model_folder).model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("remove", "said"),
    [("tokenizer", "no tokenizer in the folder"), ("config.json", "no config.json"), ("model", "no model.safetensors")],
)
def test_a_folder_that_lacks_something_says_what(model_folder: Path, remove: str, said: str) -> None:
    for file in model_folder.glob(f"{remove}*"):
        file.unlink()
    for file in model_folder.glob("chat_template*"):
        file.unlink()
    with pytest.raises(ModelError, match=said):
        load(model_folder)


def test_a_hybrid_model_is_refused_before_its_weights_are_read(model_folder: Path) -> None:
    """Trap 8: layers of linear attention carry one packed record into the next, whatever its positions say."""
    small = {"hidden_size": 16, "intermediate_size": 16, "moe_intermediate_size": 8, "num_experts": 2, "vocab_size": 64}
    Qwen3NextConfig(num_hidden_layers=4, **small).save_pretrained(model_folder)
    with pytest.raises(CheckFailedError, match="linear_attention"):
        load(model_folder)


def test_broken_weights_are_one_line(model_folder: Path) -> None:
    (model_folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="cannot be loaded") as error:
        load(model_folder)
    assert "\n" not in str(error.value)


def test_an_adapter_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="without its base model"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "nobody/nothing-at-all"])
def test_a_model_that_is_nowhere_is_one_line_with_the_ways_out(name: str) -> None:
    with pytest.raises(ModelError, match="no such folder") as error:
        load(name)
    assert "tiny" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="sees no GPU"):
        choose_device(TrainConfig(model="x", device="cuda"))


def test_more_processes_than_gpus_are_refused_in_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    torchrun = {"WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in {**torchrun, "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="3 processes on a machine with 2 GPUs"):
        choose_device(TrainConfig(model="x"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert choose_device(TrainConfig(model="x")).device == torch.device("cuda", 0)


def test_gpt2_trains_packed_with_its_attention_dropout_silenced_and_said(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, encoded: Encoded
) -> None:
    shape = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 512}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0, **shape)).save_pretrained(
        tmp_path
    )
    tokenizer.save_pretrained(tmp_path)
    base = load(tmp_path, "lora")
    assert base.notes == ("attn_pdrop 0.1 set to 0: packed attention has no dropout",)
    assert base.model.config.embd_pdrop == 0.1
    trainee = adapt(base, TrainConfig(model="gpt2", device="cpu"))
    assert self_test(trainee, encoded.examples) < 1e-3


def test_full_weights_load_with_plain_transformers_and_give_the_same_logits(
    tmp_path: Path, trainee_of: Callable[..., Trainee]
) -> None:
    trainee = trainee_of(method="full")
    save_weights(trainee, tmp_path / "final")
    assert "sft_packed" not in (tmp_path / "final" / "config.json").read_text()
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    ids = torch.tensor([[5, 6, 7, 8]])
    with trainee.stock_attention(), torch.no_grad():
        torch.testing.assert_close(again(input_ids=ids).logits, trainee.network(input_ids=ids).logits)
    assert AutoTokenizer.from_pretrained(tmp_path / "final").get_vocab() == trainee.tokenizer.get_vocab()


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")  # peft 0.21 on transformers 5.23
def test_adapters_load_with_plain_peft_on_the_base_that_they_name(model_folder: Path, tmp_path: Path) -> None:
    trainee = adapt(load(model_folder, "lora"), TrainConfig(model="x", device="cpu"))
    for name, weight in trainee.trainable():
        assert "lora_" in name
        assert "lm_head" not in name
        torch.nn.init.normal_(weight, std=0.1)
    save_weights(trainee, tmp_path / "final")
    again = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "final")
    ids = torch.tensor([[5, 6, 7, 8]])
    trainee.model.eval()
    with trainee.stock_attention(), torch.no_grad():
        torch.testing.assert_close(again(input_ids=ids).logits, trainee.model(input_ids=ids).logits)


def test_tiny_is_the_same_for_the_same_records_and_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "PRETRAIN_STEPS", 5)
    records = make_records(12)
    one, again, other = (load_base(TrainConfig(model="tiny", device="cpu", seed=seed), records) for seed in (1, 1, 2))
    assert one.digest == again.digest != other.digest
    assert len(one.tokenizer) <= tiny.VOCABULARY
    text = "any text: κόσμος 🐈\n"
    assert one.tokenizer.decode(one.tokenizer(text)["input_ids"]) == text


def test_a_model_with_fewer_embeddings_than_tokens_is_refused(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    small = small_llama(len(tokenizer) - 1)
    small.set_attn_implementation("sdpa")
    small.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="embeddings for a tokenizer"):
        load(tmp_path)


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_weights_that_the_files_lack_are_refused_by_name(model_folder: Path) -> None:
    names = [f"model.layers.1.self_attn.{x}_proj.weight" for x in "kqvo"]
    rewrite(model_folder, lambda weights: [weights.pop(name) for name in names] and None)
    with pytest.raises(ModelError, match=r"lacks 4 weights .*model\.layers\.1\.self_attn\.k_proj\.weight.*, …\)"):
        load(model_folder)


def test_weights_of_another_shape_are_refused_by_name(model_folder: Path) -> None:
    rewrite(model_folder, lambda weights: weights.update({"model.norm.weight": torch.ones(17)}))
    with pytest.raises(ModelError, match=r"other shapes for 1 weights .*\(model\.norm\.weight\)"):
        load(model_folder)


def test_weights_without_a_place_are_a_note(model_folder: Path) -> None:
    rewrite(model_folder, lambda weights: weights.update({"adapter.extra": torch.ones(3)}))
    (note,) = load(model_folder).notes
    assert "1 weights" in note
    assert "adapter.extra" in note


def test_tied_weights_are_not_missing(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    model = small_llama(len(tokenizer), tie_word_embeddings=True)
    model.set_attn_implementation("sdpa")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    assert load(tmp_path).notes == ()


def test_local_models_are_absolute_and_hub_ids_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    assert located("model") == located("./model") == str(tmp_path.resolve() / "model")
    assert [located(name) for name in ("tiny", "org/name", "./nowhere")] == ["tiny", "org/name", "./nowhere"]
