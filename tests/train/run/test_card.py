"""The card and the provenance of weights: what is known, nothing that is not, and never markup from a name."""

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from tests.train.run.small_run import NEW, train_in
from train.run.card import text, write
from train.run.folder import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")  # peft 0.21

EVIL = "a](http://x)|<script>`#"


def front(card: Path) -> dict[str, Any]:
    return yaml.safe_load(card.read_text().split("---")[1])


@pytest.mark.parametrize("which", ["final", "best"])
def test_the_card_says_what_is_known_and_makes_nothing_up(left: Path, which: str) -> None:
    card = left / which / "README.md"
    said = card.read_text()
    assert front(card) == {
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "license": "apache-2.0",
        "datasets": ["org/rows"],
        "tags": ["sft", "lora"],
    }  # no base_model: a folder on this machine is nothing that the hub could look up
    assert str(left.parent) not in said
    records = pl.read_ipc(left / "records.arrow")
    for source, licence in (("a", "cc-by-4.0"), ("b", "unknown")):
        read = records.filter(pl.col("source") == source, pl.col("split") == "train", pl.col("seen") > 0).height
        assert 0 < read < 9  # two steps of four records: not all that there are
        assert f"| {source} | {read} | 3 | {licence} |" in said
    facts = json.loads((left / "run.json").read_text())
    for value in (*(facts["identity"][name] for name in ("manifest", "template", "plan", "base", "tokenizer")),):
        assert value in said
    assert f"{facts['val_loss_last']:.4f}" in said
    assert "Some sources of the data state no licence" in said
    provenance = json.loads((left / which / "provenance.json").read_text())
    assert provenance["files"] == facts["weights"][which]
    assert set(provenance["files"]) == {p.name for p in (left / which).iterdir()} - {"README.md", "provenance.json"}


@pytest.mark.parametrize(
    ("model", "settings", "said"),
    [
        ("x", {"method": "full"}, "All weights were trained."),
        ("x", {"method": "full", "unfreeze": 2}, "Only its last 2 layers, the final norm, the head where"),
        (
            "x",
            {"method": "full", "unfreeze": 1, "add_tokens": [NEW]},
            "layer of its own and the embeddings, for the added",
        ),
        ("x", {"method": "lora"}, "Adapters (LoRA) were trained; the other weights are those of the base model."),
        ("x", {"method": "lora", "add_tokens": [NEW]}, "Adapters (LoRA) and the embeddings of the added tokens were"),
        ("tiny", {"method": "lora"}, "Adapters (LoRA), and its embeddings and head as a whole were trained"),
        ("x", {"method": "qlora"}, "Adapters (LoRA) were trained over the base model held in 4 bits (QLoRA)"),
    ],
)
def test_the_card_says_which_weights_were_trained(
    left: Path, tmp_path: Path, model: str, settings: dict[str, Any], said: str
) -> None:
    shutil.copytree(left, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    config = folder.read_json("config.json")
    folder.write_json("config.json", {**config, "train": {**config["train"], "add_tokens": [], **settings}})
    facts = {**folder.read_json("run.json"), "model": model, "method": settings["method"]}
    write(folder.path / "final", folder, facts, which="final")
    card = (folder.path / "final" / "README.md").read_text()
    assert said in card
    assert ("All weights" in card) is (settings == {"method": "full"})


def test_replayed_rows_were_trained_on(left: Path, tmp_path: Path) -> None:
    shutil.copytree(left, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    records = pl.read_ipc(folder.path / "records.arrow")
    again = records.head(2).with_columns(split=pl.lit("replay"), source=pl.lit("general"), seen=pl.lit(3, pl.Int64))
    pl.concat([records, again]).write_ipc(folder.path / "records.arrow", compat_level=pl.CompatLevel.oldest())
    write(folder.path / "final", folder, folder.read_json("run.json"), which="final")
    assert "| general | 2 | 0 | unknown |" in (folder.path / "final" / "README.md").read_text()


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_snippet_of_the_card_runs(
    left: Path, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = left if method == "lora" else train_in(tmp_path, method="full")
    monkeypatch.chdir(folder / "final")
    (code,) = [part.split("```")[0] for part in Path("README.md").read_text().split("```python\n")[1:]]
    assert ("AutoPeftModelForCausalLM" in code) is (method == "lora")
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 # the snippet is what is tested
    assert capsys.readouterr().out.endswith("\n")


@pytest.mark.parametrize(
    "evil", [EVIL, "x\n---\nlicense: mit", "| a | b |", "<img src=x>", "**bold** _it_ ~~no~~ @who"]
)
def test_names_are_text_in_the_card_and_never_markup(evil: str) -> None:
    said = text(evil)
    assert "\n" not in said
    assert "<" not in said
    for sign in "|`[]*_~@":
        assert said.count(sign) == said.count(f"\\{sign}")
