"""QLoRA for real: bitsandbytes has a CPU path for 4-bit linear layers, forward and backward."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from schemas.errors import ConfigError
from schemas.train_config import TrainConfig
from tests.train.model.conftest import KINDS, logits_of
from train.model import adapters
from train.model.base import Base
from train.model.load import load_base
from train.model.merge import merged
from train.model.trainee import Trainee
from train.model.tuned import base_of
from train.run.weights import save_weights

pytest.importorskip("bitsandbytes")

Taught = Callable[..., tuple[Base, Trainee]]

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated"),  # peft 0.21 on transformers 5.23
    pytest.mark.filterwarnings("ignore:.*fan_in_fan_out"),  # GPT-2's layers are transposed
]


@pytest.mark.parametrize("kind", KINDS)
def test_linear_layers_are_four_bits_and_nothing_else_is(taught: Taught, kind: str) -> None:
    base, trainee = taught(kind, method="qlora")
    four = {name for name, weight in base.model.named_parameters() if type(weight).__name__ == "Params4bit"}
    assert len(four) == (14 if kind != "gpt2" else 8)
    assert not any("lm_head" in name or "embed" in name or "wte" in name or "norm" in name for name in four)
    assert all(base.model.get_parameter(name).quant_state.nested for name in four)  # double quantisation
    assert {base.model.get_parameter(name).quant_state.quant_type for name in four} == {"nf4"}
    assert {weight.dtype for _, weight in trainee.trainable()} == {torch.float32}
    assert all("lora_" in name for name, _ in trainee.trainable())
    assert any("4 bits" in note for note in base.notes)


@pytest.mark.parametrize("settings", [{}, {"dora": True}, {"add_tokens": ("<|think|>",)}])
def test_adapters_over_four_bits_load_with_plain_peft_over_four_bits(
    taught: Taught, tmp_path: Path, settings: dict[str, Any]
) -> None:
    base, trainee = taught("tied", method="qlora", **settings)
    save_weights(trainee, tmp_path / "final")
    assert base.source is not None
    four = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    plain = AutoModelForCausalLM.from_pretrained(base.source.folder, quantization_config=four, dtype=torch.float32)
    if base.added:
        plain.resize_token_embeddings(len(trainee.tokenizer), mean_resizing=False)
    again = PeftModel.from_pretrained(plain, tmp_path / "final").train()
    trainee.model.train()  # in evaluation bitsandbytes may compute in bf16 on a CPU; ours does not
    ids = [5, 6, *base.added, 7]
    with trainee.stock_attention():
        torch.testing.assert_close(logits_of(again, ids), logits_of(trainee.network, ids), rtol=1e-4, atol=1e-5)


def test_evaluation_computes_as_training_does(taught: Taught) -> None:
    _, trainee = taught(method="qlora")
    with trainee.stock_attention():
        alike = [logits_of(trainee.network.train(mode), [5, 6, 7]) for mode in (True, False, True)]
    torch.testing.assert_close(alike[0], alike[1], rtol=0, atol=0)
    torch.testing.assert_close(alike[0], alike[2], rtol=0, atol=0)


def test_adapters_over_four_bits_are_merged_into_the_whole_base(taught: Taught, tmp_path: Path) -> None:
    _, trainee = taught(method="qlora")
    save_weights(trainee, tmp_path / "final")
    config = TrainConfig(model=str(tmp_path), device="cpu", method="qlora")
    whole, difference = merged(base_of(config, tmp_path / "final" / "adapter_config.json"), tmp_path / "final")
    assert difference < 1e-4
    assert {weight.dtype for weight in whole.model.parameters()} == {torch.float32}


def test_without_bitsandbytes_one_line_says_what_to_install(
    saved: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"--method qlora: bitsandbytes is not installed.*sft-toolkit\[qlora\]"):
        load_base(TrainConfig(model=str(saved()), device="cpu", method="qlora"), [])


def test_bitsandbytes_is_imported_only_where_it_is_used_and_in_silence() -> None:
    code = (
        "import sys; import train.model.load as load; assert 'bitsandbytes' not in sys.modules; "
        "load.use_bitsandbytes('x'); assert sys.modules['bitsandbytes']; assert 'kernels' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
