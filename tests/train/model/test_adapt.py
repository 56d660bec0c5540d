"""What each method trains, and that the result is what was trained when plain libraries load it."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from schemas.errors import ConfigError, ModelError
from schemas.train_config import TrainConfig
from tests.train.model.conftest import KINDS, logits_of
from tests.train.world import make_records
from train.model.adapt import adapt
from train.model.base import Base, has_tied_head
from train.model.load import load_base
from train.model.trainee import Trainee
from train.run.weights import save_weights
from train.step.batch import IGNORE, make_batch
from train.text.template import Template, encode

Taught = Callable[..., tuple[Base, Trainee]]
NEW = ("<|think|>", "<|done|>")

# peft 0.21 on transformers 5.23; transformers' word on the rows that AutoPeftModel makes room for
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")


def ids_of(base: Base) -> list[int]:
    return [5, 6, *base.added, 7, 8]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("settings", [{}, {"dora": True}, {"rslora": True}, {"add_tokens": NEW}])
def test_adapters_load_with_plain_peft_and_give_the_same_logits(
    taught: Taught, tmp_path: Path, kind: str, settings: dict[str, Any]
) -> None:
    base, trainee = taught(kind, method="lora", **settings)
    untrained = logits_of(AutoModelForCausalLM.from_pretrained(base.source.folder), [5, 6, 7, 8])
    save_weights(trainee, tmp_path / "final")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out")  # GPT-2's layers are transposed
        again = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "final")
    with trainee.stock_attention():
        torch.testing.assert_close(logits_of(again, ids_of(base)), logits_of(trainee.network, ids_of(base)))
        learnt = logits_of(trainee.network, [5, 6, 7, 8])[:, : untrained.shape[1]]
    assert (learnt - untrained).abs().max() > 0.01
    assert {p.name for p in (tmp_path / "final").iterdir()} >= {"adapter_model.safetensors", "tokenizer.json"}
    assert not (tmp_path / "final" / "README.md").exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("settings", [{}, {"add_tokens": NEW}, {"unfreeze": 1}, {"unfreeze": 1, "add_tokens": NEW}])
def test_whole_weights_load_with_plain_transformers_and_give_the_same_logits(
    taught: Taught, tmp_path: Path, kind: str, settings: dict[str, Any]
) -> None:
    base, trainee = taught(kind, method="full", **settings)
    save_weights(trainee, tmp_path / "final")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    with trainee.stock_attention():
        torch.testing.assert_close(logits_of(again, ids_of(base)), logits_of(trainee.network, ids_of(base)))
    assert has_tied_head(again) is (kind != "llama")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "final")
    assert [tokenizer.encode(token) for token in settings.get("add_tokens", ())] == [[i] for i in base.added]


def test_what_is_trained_beside_adapters_is_held_in_fp32(saved: Callable[..., Path]) -> None:
    """As on a GPU, where the base is held in half precision: a moment of it would not decay."""
    base = load_base(TrainConfig(model=str(saved()), device="cpu"), [])
    base = replace(base, name="tiny", model=base.model.to(torch.bfloat16))
    trainee = adapt(base, TrainConfig(model="tiny", device="cpu"))
    assert {p.dtype for _, p in trainee.trainable()} == {torch.float32}
    assert any("modules_to_save" in name for name, _ in trainee.trainable())


@pytest.mark.parametrize("kind", ["llama", "tied"])
def test_the_loss_sees_new_tokens_in_a_head_tied_or_not(taught: Taught, kind: str) -> None:
    """Loss and gradients through our head are those of the model's own forward, also once adapters have moved."""
    base, trainee = taught(kind, method="lora", add_tokens=NEW)
    (one,) = encode(make_records(1), Template(trainee.tokenizer, kind), max_tokens=256).examples
    ids = one.input_ids.copy()
    ids[-4:-2] = base.added  # as targets: what the head makes of them counts
    example = replace(one, input_ids=ids)
    trainee.model.train()
    batch = make_batch([example], [(0,)])
    ours = trainee.nll(batch).sum()
    ours.backward()
    found = {name: weight.grad.clone() for name, weight in trainee.trainable() if weight.grad is not None}
    trainee.model.zero_grad()
    ids_1N = torch.from_numpy(ids).long()[None]
    labels = torch.where(torch.tensor(example.supervised), ids_1N[0], IGNORE)
    with trainee.stock_attention():
        logits = trainee.network(input_ids=ids_1N, use_cache=False).logits[0]
    plain = F.cross_entropy(logits[:-1], labels[1:], ignore_index=IGNORE, reduction="sum")
    plain.backward()
    torch.testing.assert_close(ours, plain)
    for name, weight in trainee.trainable():
        torch.testing.assert_close(found[name], weight.grad, rtol=1e-4, atol=1e-6)
    assert sum("trainable_tokens" in name for name in found) == (2 if kind == "llama" else 1)


def test_no_gradient_goes_into_the_embeddings_beneath_adapters(taught: Taught) -> None:
    _, trainee = taught(method="lora")
    seen: list[bool] = []
    embeddings = trainee.network.get_input_embeddings()
    embeddings.register_forward_hook(lambda _m, _i, out: seen.append(out.requires_grad))
    trainee.model.train()
    trainee.nll(make_batch(encode(make_records(1), Template(trainee.tokenizer, "x"), max_tokens=256).examples, [(0,)]))
    assert seen == [False]


@pytest.mark.parametrize("settings", [{}, {"add_tokens": NEW}, {"dora": True}])
def test_what_is_trained_is_fp32_over_a_base_in_half_precision(
    saved: Callable[..., Path], settings: dict[str, Any]
) -> None:
    config = TrainConfig(model=str(saved("tied")), device="cpu", **settings)
    base = load_base(config, [])
    base.model.bfloat16()
    trainee = adapt(base, config)
    assert {weight.dtype for _, weight in trainee.trainable()} == {torch.float32}
    assert {weight.dtype for weight in base.model.parameters() if not weight.requires_grad} == {torch.bfloat16}


@pytest.mark.parametrize(("kind", "head"), [("llama", True), ("tied", False), ("gpt2", False)])
def test_unfreeze_trains_the_last_layers_the_norm_and_a_head_of_its_own(taught: Taught, kind: str, head: bool) -> None:
    base, trainee = taught(kind, method="full", unfreeze=1)
    names = {name for name, _ in trainee.trainable()}
    assert all(".1." in name or "norm.weight" in name or "ln_f" in name or "lm_head" in name for name in names), names
    assert any(".1." in name for name in names)
    assert names & {"model.norm.weight", "transformer.ln_f.weight"}
    assert ("lm_head.weight" in names) is head
    assert any("tied" in note for note in trainee.notes) is not head
    before = AutoModelForCausalLM.from_pretrained(base.source.folder).state_dict()
    after = trainee.network.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == names
    assert all(weight.grad is None for weight in trainee.network.parameters() if not weight.requires_grad)


def test_new_tokens_are_trained_where_all_else_is_frozen(taught: Taught) -> None:
    _, trainee = taught("tied", method="full", unfreeze=1, add_tokens=NEW)
    assert "model.embed_tokens.weight" in {name for name, _ in trainee.trainable()}


def test_more_layers_than_there_are_cannot_be_unfrozen(taught: Taught) -> None:
    with pytest.raises(ConfigError, match=r"--unfreeze: 3, and .* has 2 layers"):
        taught(method="full", unfreeze=3)


def test_adapters_stand_where_they_were_asked_for(taught: Taught) -> None:
    _, trainee = taught(method="lora", lora_targets=("q_proj", "layers.1.mlp.up_proj"))
    layers = {name.split(".lora_")[0].removeprefix("base_model.model.model.") for name, _ in trainee.trainable()}
    assert layers == {"layers.0.self_attn.q_proj", "layers.1.self_attn.q_proj", "layers.1.mlp.up_proj"}


@pytest.mark.parametrize(
    ("kind", "target", "there"),
    [
        ("llama", "query", "down_proj, gate_proj, k_proj, lm_head"),
        ("tied", "lm_head", "q_proj"),
        ("gpt2", "q", "c_attn"),
    ],
)
def test_a_target_that_is_no_linear_layer_is_refused_with_those_that_are(
    saved: Callable[..., Path], kind: str, target: str, there: str
) -> None:
    config = TrainConfig(model=str(saved(kind)), device="cpu", lora_targets=(target,))
    with pytest.raises(ConfigError, match=f"--lora-targets: {target}: no such linear layer.*{there}"):
        adapt(load_base(config, []), config)


def test_adapters_on_a_head_whose_rows_are_trained_are_refused(saved: Callable[..., Path]) -> None:
    config = TrainConfig(model=str(saved()), device="cpu", add_tokens=NEW, lora_targets=("lm_head", "q_proj"))
    with pytest.raises(ConfigError, match="--lora-targets: lm_head: --add-tokens trains rows of it"):
        adapt(load_base(config, []), config)


def test_new_tokens_under_a_head_with_a_bias_are_refused(saved: Callable[..., Path]) -> None:
    config = TrainConfig(model=str(saved()), device="cpu", add_tokens=NEW)
    base = load_base(config, [])
    base.model.lm_head.bias = torch.nn.Parameter(torch.zeros(base.model.lm_head.out_features))
    with pytest.raises(ModelError, match="its head has a bias"):
        adapt(base, config)


def test_full_takes_new_tokens_under_a_head_with_a_bias(saved: Callable[..., Path]) -> None:
    config = TrainConfig(model=str(saved()), device="cpu", method="full", add_tokens=NEW)
    base = load_base(config, [])
    base.model.lm_head.bias = torch.nn.Parameter(torch.zeros(base.model.lm_head.out_features))
    assert len(list(adapt(base, config).trainable())) > 1
