"""Steps: each stage is told in words, with the settings that it ran with and the counts that came of it."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curate.publish.layout import publish
from curate.publish.steps import in_words, steps_of
from curate.stages import stage
from curate.store import Store
from schemas.dataset import Dataset
from schemas.manifest import StageEntry
from schemas.record import VERDICT_SCHEMA
from schemas.stages import ANNOTATION_COLUMNS
from tests.rows import dataset_of, question, staged


@pytest.mark.parametrize(
    "name", ["normalize", "rules", "pii", "signals", "dedup", "decontaminate", "score", "select", "split"]
)
def test_every_stage_is_a_sentence(name: str) -> None:
    said = in_words(name, stage(name).config().model_dump(mode="json"))
    assert said.endswith(".")
    assert "None" not in said


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("rules", {"disable": ("refusal",)}, "Not applied: refusal."),
        ("pii", {"action": "redact", "kinds": ("email",)}, "(email) were searched for and replaced by placeholders."),
        (
            "dedup",
            {"threshold": 0.7, "against": "evals@1"},
            "0.7 or more), one was kept, and what is in evals@1 was left",
        ),
        (
            "decontaminate",
            {"eval": ("gsm8k", "mmlu"), "action": "report"},
            "of gsm8k, mmlu were searched for and reported",
        ),
        ("score", {"judge": "m-1", "judge_url": "http://x"}, "Rows were scored: judge by m-1."),
        ("dedup", {"against": "/home/mara/s/evals.json:00ff"}, "what is in evals.json:00ff was left"),
        ("decontaminate", {"eval": (f"/home/mara/own.jsonl:{'0' * 64}", "gsm8k")}, "of own.jsonl, gsm8k were"),
        ("score", {"difficulty": "C:\\models\\small", "embed": "acme/e5"}, "difficulty by small, embed by acme/e5."),
        ("select", {"top": 0.5, "quota": ("a=3",)}, "Rows were chosen: top 0.5; quota a=3."),
        ("split", {"train": 0.9, "val": 0.1, "test": 0.0}, "0.9 / 0.1 / 0."),
    ],
)
def test_settings_that_matter_are_told(name: str, settings: dict[str, Any], said: str) -> None:
    assert said in in_words(name, stage(name).config(**settings).model_dump(mode="json"))


def test_the_datasets_own_rules_have_their_own_sentences(tmp_path: Path) -> None:
    rule = '[[rule]]\nname = "greets"\nseverity = "reject"\nsentence = "It greets first."\nmatches = "^Hello"\n'
    (tmp_path / "own.toml").write_text(rule)
    rows = [question("Who?", "Hello, it is Mara."), question("Where?", "In the fen.")]
    dataset = staged(dataset_of(tmp_path / "s", {"a": rows}), "rules", rules=str(tmp_path / "own.toml"))
    step = steps_of(dataset)[-1]
    assert [(n.name, n.sentence, n.rows) for n in step.rejected] == [("custom:greets", "It greets first.", 1)]
    assert step.entered == step.kept + sum(n.rows for n in step.rejected)


def test_evaluation_sets_are_named_with_what_was_left_out(tmp_path: Path) -> None:
    asked = "How many reeds grow along the eastern ditch of the old fen in spring?"
    (tmp_path / "reeds.jsonl").write_text(json.dumps({"question": asked, "answer": "Nine."}) + "\n")
    rows = [question(asked, "Nine."), question("Where is the mill?", "By the ditch.")]
    dataset = staged(dataset_of(tmp_path / "s", {"a": rows}), "decontaminate", eval=(str(tmp_path / "reeds.jsonl"),))
    done = publish(dataset, tmp_path / "out")
    assert {name: len(sha256 or "") for name, sha256 in (done.facts.evals or {}).items()} == {"reeds.jsonl": 64}
    assert "searched for items of reeds.jsonl; 1 row was left out" in (tmp_path / "out/README.md").read_text()
    assert str(tmp_path) not in (tmp_path / "out/data-card.json").read_text()


def test_reviews_are_counted_over_what_is_published(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path / "s", {"a": [question(f"{i}?", f"It is {i}.") for i in range(4)]})
    told: dict[str, Any] = {
        "verdict": [None] * 4,
        "detail": [None] * 4,
        "override": ["keep", "reject", None, "keep"],
        "review_status": ["decided", "decided", None, "decided"],
        "reviewers": [["mara"], ["mara", "li"], None, ["mara", "li"]],
        "agreement": [None, 1.0, None, 0.5],
    }
    schema = VERDICT_SCHEMA | ANNOTATION_COLUMNS["review"]
    frame = pl.DataFrame(told, schema={n: schema[n] for n in told})
    frame = frame.with_columns(**{n: pl.lit(None, dtype=t) for n, t in schema.items() if n not in told}).select(
        list(schema)
    )
    file = Store(dataset.root).put(frame, role="annotation", stage="review", source="a", shard=0)
    entry = StageEntry(name="review", version=1, config={}, reads="0" * 64)
    changes = {"files": (*dataset.manifest.files, file), "stages": (*dataset.manifest.stages, entry)}
    reviewed = Dataset(dataset.manifest.model_copy(update=changes), dataset.root)
    done = publish(reviewed, tmp_path / "out")
    assert done.rows == 3
    assert done.facts.reviewing is not None
    assert (done.facts.reviewing.rows, done.facts.reviewing.per_row, done.facts.reviewing.agreement) == (2, (1, 2), 0.5)
    assert json.loads((tmp_path / "out/croissant.json").read_text())["rai:annotationsPerItem"] == "1 to 2"
