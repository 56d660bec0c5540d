"""A run's adapters merged: only what the run left, into what it was trained on; and what is written says so."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from schemas.errors import CheckFailedError, ConfigError, InputError, ModelError, SftError
from schemas.train_config import TrainConfig
from tests.train.run.small_run import NEW
from train.model.tuned import load_trained
from train.run import merge as merge_module
from train.run.folder import RunFolder
from train.run.merge import merge_run

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")  # peft 0.21


@pytest.fixture
def folder(left: Path, tmp_path: Path) -> RunFolder:
    shutil.copytree(left, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def merged(folder: RunFolder, **options: Any) -> merge_module.Merge:
    return merge_run(folder, **{"out": None, "dtype": "auto", "best": False, **options})


def test_a_merged_run_loads_with_plain_transformers_and_says_what_it_is(folder: RunFolder) -> None:
    done = merged(folder, dtype="fp32")
    assert done.folder == folder.path / "merged"
    assert done.found.difference < 1e-4
    assert done.found.cast_difference == 0
    again = AutoModelForCausalLM.from_pretrained(done.folder)
    adapted = load_trained(TrainConfig(model=str(folder.path), device="cpu"))
    adapted.model.set_attn_implementation("sdpa")
    tokenizer = AutoTokenizer.from_pretrained(done.folder)
    ids = torch.tensor([tokenizer.encode(f"the cat {NEW}")])
    assert len(tokenizer.encode(NEW)) == 1
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, adapted.model(ids).logits, rtol=1e-5, atol=1e-5)
    assert tokenizer.chat_template
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in again.generation_config.eos_token_id
    assert sorted(p.suffix for p in done.folder.iterdir() if "model" in p.name) == [".safetensors"]
    provenance = json.loads((done.folder / "provenance.json").read_text())
    assert provenance["run_id"] == folder.read_json("run.json")["run_id"]
    assert provenance["identity"] == folder.read_json("run.json")["identity"]
    assert provenance["merged"]["dtype"] == "fp32"
    assert "merged into the base model in fp32" in (done.folder / "README.md").read_text()


def test_auto_is_the_dtype_of_the_base_and_the_cast_is_measured(folder: RunFolder, tmp_path: Path) -> None:
    done = merged(folder, out=tmp_path / "elsewhere", best=True)
    assert done.found.dtype == "bf16"
    assert done.found.cast_difference > 1e-4
    assert 0 < done.found.agreement <= 1
    assert json.loads((done.folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert json.loads((done.folder / "provenance.json").read_text())["weights"] == "best"


def base_of(folder: RunFolder) -> Path:
    return Path(folder.read_json("run.json")["model"])


def change_adapters(folder: RunFolder) -> None:
    file = folder.path / "final" / "adapter_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def change_template(folder: RunFolder) -> None:
    with (folder.path / "final" / "chat_template.jinja").open("a") as stream:
        stream.write("{# another #}")


def add_file(folder: RunFolder) -> None:
    (folder.path / "final" / "extra.py").write_text("")


def forget_weights(folder: RunFolder) -> None:
    facts = folder.read_json("run.json")
    folder.write_json("run.json", {name: value for name, value in facts.items() if name != "weights"})


def other_identity(name: str) -> Callable[[RunFolder], None]:
    def change(folder: RunFolder) -> None:
        facts = folder.read_json("run.json")
        facts["identity"][name] = "0" * 32
        folder.write_json("run.json", facts)

    return change


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (change_adapters, CheckFailedError, "final/adapter_model.safetensors was changed"),
        (change_template, CheckFailedError, "final/chat_template.jinja was changed"),
        (add_file, CheckFailedError, "final/extra.py was not left by the run"),
        (forget_weights, ConfigError, "recorded no files of final"),
        (other_identity("base"), ModelError, "its base model is another one now"),
        (other_identity("template"), ModelError, "its chat template is another one now"),
        (other_identity("tokenizer"), ModelError, "its tokenizer is another one now"),
    ],
)
def test_what_the_run_did_not_leave_so_is_refused_by_name_and_nothing_is_written(
    folder: RunFolder, change: Callable[[RunFolder], None], error: type[SftError], said: str
) -> None:
    change(folder)
    with pytest.raises(error, match=said) as found:
        merged(folder)
    assert "\n" not in str(found.value)
    assert not (folder.path / "merged").exists()


def test_a_merge_that_cannot_be_written_leaves_nothing(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("transformers.LlamaForCausalLM.save_pretrained", full)
    with pytest.raises(ConfigError, match=r"cannot be written \(No space left"):
        merged(folder)
    assert not [p for p in folder.path.iterdir() if "merged" in p.name]


def test_a_folder_that_is_there_is_not_written_over(folder: RunFolder) -> None:
    (folder.path / "merged").mkdir()
    with pytest.raises(ConfigError, match="it is there already"):
        merged(folder)


def test_there_is_nothing_to_merge_where_all_weights_were_trained(folder: RunFolder) -> None:
    folder.write_json("run.json", {**folder.read_json("run.json"), "method": "full"})
    with pytest.raises(ConfigError, match=r"nothing to merge.*Its model is .*/run/final"):
        merged(folder)


@pytest.mark.parametrize("state", ["nothing", "unfinished", "gone"])
def test_a_run_that_is_not_whole_is_refused(folder: RunFolder, state: str) -> None:
    if state == "nothing":
        (folder.path / "run.json").unlink()
    elif state == "unfinished":
        folder.write_json("run.json", {**folder.read_json("run.json"), "ended": None})
    else:
        shutil.rmtree(folder.path / "final")
    with pytest.raises((ConfigError, InputError)):
        merged(folder)
