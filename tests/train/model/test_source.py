"""Where a model comes from: a hub by id and commit, or a folder; no pickle is opened, no code is run unasked."""

import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from schemas.errors import ModelError
from schemas.train_config import TrainConfig
from tests.hub import COMMIT, Hub, serve
from tests.train.model.conftest import logits_of
from train.model import source
from train.model.base import Base
from train.model.load import load_base

CODE = """
from transformers import LlamaConfig, LlamaForCausalLM
class OurConfig(LlamaConfig):
    model_type = "ours"
class OurModel(LlamaForCausalLM):
    config_class = OurConfig
"""


def load(name: str | Path, **settings: object) -> Base:
    return load_base(TrainConfig(model=str(name), device="cpu", **settings), [])  # type: ignore[arg-type] # of a TrainConfig


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve() as running:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", running.url)
        template = f"{running.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _s: None)  # it asks six times
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS", True)
        yield running


@pytest.mark.parametrize("revision", [None, "v1", COMMIT])
def test_a_model_of_the_hub_is_what_its_commit_says(hub: Hub, saved: Callable[..., Path], revision: str | None) -> None:
    folder = saved()
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    (folder / "consolidated.safetensors").write_bytes(b"the same weights in another format")
    hub.models["org/small"] = folder
    base = load("org/small", revision=revision)
    assert base.digest == f"hub:{COMMIT}"
    assert base.model.name_or_path == "org/small"
    assert base.source is not None
    assert (base.source.commit, base.source.license()) == (COMMIT, "apache-2.0")
    base.model.set_attn_implementation("sdpa")
    torch.testing.assert_close(
        logits_of(base.model, [1, 2, 3]), logits_of(AutoModelForCausalLM.from_pretrained(folder), [1, 2, 3])
    )
    assert not any("consolidated" in path for _, path in hub.asked if "resolve" in path)


def test_what_was_fetched_is_found_again_without_a_network(
    hub: Hub, saved: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.models["org/small"] = saved()
    load("org/small")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.asked.clear()
    assert load("org/small").digest == f"hub:{COMMIT}"
    assert hub.asked == []


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("org/nothing", {}, "the hub has no such model, or it is private.*hf auth login"),
        ("org/gated", {}, r"gated, and you have no access.*Accept its terms at http\S+/org/gated"),
        ("org/broken", {}, "answers with 500"),
        ("org/small", {"revision": "v9"}, "no revision v9"),
        ("no such name", {}, "no name that the hub could have"),
        ("a/b/c", {}, "no such folder"),
    ],
)
def test_what_the_hub_refuses_is_one_line_that_says_what_to_do(
    hub: Hub, saved: Callable[..., Path], name: str, settings: dict[str, str], said: str
) -> None:
    folder = saved()
    hub.models |= {"org/small": folder, "org/gated": folder, "org/broken": folder}
    hub.refuse |= {"org/gated/resolve": (403, "GatedRepo"), "org/broken/resolve": (500, "Boom")}
    with pytest.raises(ModelError, match=said) as error:
        load(name, **settings)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("hub")
def test_a_hub_that_cannot_be_reached_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as gone:
        pass
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", gone.url)
    with pytest.raises(ModelError, match=r"gives no answer.*Check the name and the network"):
        load("org/small")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        load("org/small")


def test_a_full_disk_is_told_with_the_folder_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(source, "snapshot_download", full)
    with pytest.raises(ModelError, match=r"no space left for it in .*HF_HUB_CACHE"):
        load("org/small")


def test_pickled_weights_are_refused_with_how_to_convert_them(saved: Callable[..., Path]) -> None:
    folder = saved()
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(ModelError, match=r"its weights are pickled \(pytorch_model\.bin\).*save_pretrained"):
        load(folder)


def test_pickled_weights_of_the_hub_are_not_even_fetched(hub: Hub, saved: Callable[..., Path]) -> None:
    folder = saved()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    hub.models["org/old"] = folder
    with pytest.raises(ModelError, match=r"no model\.safetensors.*a pickle can run code.*Convert"):
        load("org/old")
    assert not any("pytorch_model" in path for _, path in hub.asked if "resolve" in path)


def test_weights_that_an_index_names_and_nobody_has_are_refused(saved: Callable[..., Path]) -> None:
    folder = saved()
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(ModelError, match=r"model-00002-of-00002\.safetensors is missing"):
        load(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "../model.safetensors", "{outside}", "*.safetensors", "weights"])
def test_an_index_names_safetensors_beside_it_and_nothing_else(
    saved: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    """transformers opens what an index names: a pickle too, or a file that no digest is taken over."""
    folder = saved()
    name = name.format(outside=tmp_path / "model.safetensors")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(tmp_path / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "weights").write_bytes((tmp_path / "model.safetensors").read_bytes())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(weights, name)}))
    with pytest.raises(ModelError, match=r"index\.json names .*expected safetensors files that lie beside it"):
        load(folder)


@pytest.mark.parametrize("index", ["[]", '{"weight_map": []}', "{", "{}"])
def test_an_index_that_is_none_is_one_line(saved: Callable[..., Path], index: str) -> None:
    folder = saved()
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ModelError, match=r"index\.json cannot be read") as error:
        load(folder)
    assert "\n" not in str(error.value)


def change(file: Path, **settings: object) -> None:
    found = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**found, **settings}))


def test_weights_that_the_configuration_points_to_are_refused(saved: Callable[..., Path]) -> None:
    folder = saved()
    change(folder / "config.json", transformers_weights="other.safetensors")
    with pytest.raises(ModelError, match="names other weights by transformers_weights"):
        load(folder)


def test_adapters_beside_whole_weights_are_not_put_on_unseen(saved: Callable[..., Path]) -> None:
    folder = saved()
    change(folder / "adapter_config.json", peft_type="LORA", base_model_name_or_path="else/where")
    with pytest.raises(ModelError, match="a whole model and adapters in one folder"):
        load(folder)


@pytest.mark.parametrize(
    "settings", [{"model_type": ["x"]}, {"hidden_size": "x"}, {"auto_map": ["a.B"], "model_type": 3}]
)
def test_a_configuration_of_nonsense_is_one_line(saved: Callable[..., Path], settings: dict[str, object]) -> None:
    folder = saved()
    change(folder / "config.json", **settings)
    with pytest.raises(ModelError) as error:
        load(folder)
    assert "\n" not in str(error.value)


@pytest.fixture
def with_code(saved: Callable[..., Path]) -> Path:
    """A model that only its own Python can load."""
    folder = saved()
    settings = json.loads((folder / "config.json").read_text())
    settings |= {"model_type": "ours", "architectures": ["OurModel"]}
    settings["auto_map"] = {"AutoConfig": "modeling_ours.OurConfig", "AutoModelForCausalLM": "modeling_ours.OurModel"}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "modeling_ours.py").write_text(CODE)
    return folder


def test_code_that_comes_with_a_model_is_not_run_unasked(with_code: Path) -> None:
    (with_code / "modeling_ours.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(ModelError, match=r"only by Python that it brings along.*--trust-remote-code"):
        load(with_code)


def test_code_that_is_trusted_is_named_and_belongs_to_the_digest(
    with_code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    base = load(with_code, trust_remote_code=True)
    assert type(base.model).__name__ == "OurModel"
    assert any("runs the code of" in note and "modeling_ours.py" in note for note in base.notes)
    (with_code / "modeling_ours.py").write_text(CODE + "\n# another\n")
    assert load(with_code, trust_remote_code=True).digest != base.digest


def test_code_that_is_trusted_and_absent_or_no_python_is_one_line(
    with_code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    (with_code / "modeling_ours.py").write_text("def broken(:")
    with pytest.raises(ModelError, match=r"its tokenizer cannot be loaded \(SyntaxError"):
        load(with_code, trust_remote_code=True)
    (with_code / "modeling_ours.py").unlink()
    with pytest.raises(ModelError, match=r"name Python that is not there \(modeling_ours.OurConfig"):
        load(with_code, trust_remote_code=True)


def test_code_of_another_repository_is_refused(with_code: Path) -> None:
    settings = json.loads((with_code / "config.json").read_text())
    settings["auto_map"] = {name: f"else/where--{entry}" for name, entry in settings["auto_map"].items()}
    (with_code / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=r"another repository \(else/where\)"):
        load(with_code, trust_remote_code=True)


def test_code_of_the_tokenizer_alone_is_run_only_where_it_is_trusted(
    saved: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = saved()
    (folder / "ours.py").write_text(
        "from transformers import PreTrainedTokenizerFast\nclass T(PreTrainedTokenizerFast): 1"
    )
    change(folder / "tokenizer_config.json", tokenizer_class="T", auto_map={"AutoTokenizer": [None, "ours.T"]})
    with pytest.raises(ModelError, match="--trust-remote-code"):
        load(folder)
    base = load(folder, trust_remote_code=True)
    assert type(base.tokenizer).__name__ == "T"
    assert any("ours.py" in note for note in base.notes)
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "else/where--ours.T"]})
    with pytest.raises(ModelError, match=r"another repository \(else/where\)"):
        load(folder, trust_remote_code=True)


def test_a_model_that_was_quantised_before_is_refused(saved: Callable[..., Path]) -> None:
    folder = saved()
    settings = json.loads((folder / "config.json").read_text())
    settings["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="quantised already"):
        load(folder)


def test_a_revision_of_a_folder_is_refused(saved: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match="is a folder"):
        load(saved(), revision="v1")


@pytest.mark.parametrize(
    "card", ["", "# no header", "---\nlicense: [", "---\n- a list\n---\n", "---\nlicense: 3\n---\n"]
)
def test_a_licence_that_is_not_stated_is_unknown(tmp_path: Path, card: str) -> None:
    (tmp_path / "README.md").write_text(card)
    assert source.Source("x", tmp_path).license() is None
