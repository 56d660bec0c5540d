"""The card and the provenance of weights: what is known, nothing that is not, and never markup from a name."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.train.run.small_run import train_in
from train.run.card import text

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
    assert "| a | 9 | 3 | cc-by-4.0 |" in said
    assert "| b | 9 | 3 | unknown |" in said
    facts = json.loads((left / "run.json").read_text())
    for value in (*(facts["identity"][name] for name in ("manifest", "template", "plan", "base", "tokenizer")),):
        assert value in said
    assert f"{facts['val_loss_last']:.4f}" in said
    assert "Some sources of the data state no licence" in said
    provenance = json.loads((left / which / "provenance.json").read_text())
    assert provenance["files"] == facts["weights"][which]
    assert set(provenance["files"]) == {p.name for p in (left / which).iterdir()} - {"README.md", "provenance.json"}


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
