"""Preference pairs: of corrections and comparisons, each once, never of a row or a text that is gone, deterministic."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curate.export import export
from curate.preferences import Preference, preferences
from curate.review.compare import ANSWERS, keep_answers
from curate.review.compare import Run as TrainingRun
from curate.review.outcome import COMPARISONS, COMPARISONS_OBJECT
from curate.store import Store
from schemas.dataset import Dataset
from schemas.errors import ConfigError
from schemas.record import OVERLAY_SCHEMA, VERDICT_SCHEMA, content_hash
from schemas.stages import ANNOTATION_COLUMNS
from tests.curate.conftest import chat, make_dataset, turns

ROWS: list[dict[str, Any]] = [
    chat("What is a fen?", "A wet meadow.", context="Fens are wet."),
    turns(("system", "Be brief."), ("user", "Who?"), ("assistant", "Mara."), ("user", "When?"), ("assistant", "Now.")),
    chat("Why?", "Because.", broken="ingest:wrong_type"),
    chat("Say it.", "It."),
]


def corrected(dataset: Dataset, store: Store, answers: Mapping[int, str], *, rejected: tuple[int, ...] = ()) -> Dataset:
    """Give the dataset with a review stage that corrects the last answers of rows, and rejects others."""
    [shard] = dataset.shards
    columns = pl.Schema({**VERDICT_SCHEMA, **ANNOTATION_COLUMNS["review"]})
    said = [{"override": "reject" if i in rejected else "keep" if i in answers else None} for i in range(shard.rows)]
    rows = shard.view(["messages", "context", "content_hash"]).collect().to_dicts()
    edited: list[dict[str, Any]] = []
    for i, answer in answers.items():
        messages = [*rows[i]["messages"][:-1], {**rows[i]["messages"][-1], "content": answer}]
        hashed = content_hash(messages, rows[i]["context"])
        edits = ["review:corrected"]
        before = rows[i]["content_hash"]
        edited.append(
            {**rows[i], "row": i, "messages": messages, "content_hash": hashed, "before_hash": before, "edits": edits}
        )
    place = {"stage": "review", "source": shard.source, "shard": shard.number}
    overlay = pl.DataFrame(edited, schema=OVERLAY_SCHEMA)
    files = [
        store.put(pl.DataFrame(said, schema=columns), role="annotation", **place),
        store.put(overlay, role="overlay", **place),
    ]
    manifest = dataset.manifest.model_copy(update={"files": (*dataset.manifest.files, *files)})
    return Dataset(manifest, store.root)


def compare(
    store: Store,
    dataset: Dataset,
    row: int,
    ranks: tuple[int, int, int],
    texts: tuple[str, str] = ("Tuned.", "Base."),
    *,
    run_id: str = "r1",
    of: str = "test",
    **changed: Any,
) -> None:
    """Register a comparison of a row as it stands: the places of tuned, base and reference."""
    run = TrainingRun(run_id, {"dataset": of, "seq": 1, "run_id": run_id})
    [record] = [r for r in _records(dataset) if r["id"] == dataset.scan(["id"]).collect()["id"][row]]
    answer = {
        "external": f"{run_id}{row}{texts}",
        "prompt": record["prompt"],
        "reference": record["answer"],
        "tuned": texts[0],
        "base": texts[1],
        "tuned_whole": True,
        "base_whole": True,
        "id": record["id"],
        "source": "mix",
        "split": "test",
        "tools": None,
        "new_tokens": 8,
        "seed": 1,
        "order": ["base", "tuned", "reference"],
        **changed,
    }
    keep_answers(store, run, pl.DataFrame([answer], schema=ANSWERS))
    said = {
        "review": "cmp",
        "external": answer["external"],
        "reviewer": "ann",
        "status": "submitted",
        "tuned": ranks[0],
        "base": ranks[1],
        "reference": ranks[2],
        "min_submitted": 1,
        "updated_at": "2026",
    }
    registered = next(r for r in store.runs() if r["run_id"] == run_id)
    path = store.run_object(registered, COMPARISONS_OBJECT)
    known = pl.read_ipc(path) if path else pl.DataFrame(schema=COMPARISONS)
    together = pl.concat([known, pl.DataFrame([said], schema=COMPARISONS)])
    written = store.put(together, role="index", stage="review")
    store.add_to_run(run_id, {}, {COMPARISONS_OBJECT: written.sha256})


def _records(dataset: Dataset) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for row in dataset.scan(["id", "messages", "context"]).collect().iter_rows(named=True):
        messages = [dict(m) for m in row["messages"]]
        if row["context"]:
            messages[0]["content"] += f"\n\n{row['context']}"
        found.append({"id": row["id"], "prompt": messages[:-1], "answer": messages[-1]["content"]})
    return found


@pytest.fixture
def dataset(store: Store) -> Dataset:
    return make_dataset(store, {"mix": ROWS})


def sides(pairs: list[Preference]) -> list[tuple[str, str, str]]:
    return [(p.kind, p.chosen, p.rejected) for p in pairs]


def test_a_correction_is_chosen_over_what_stood_there(store: Store, dataset: Dataset, tmp_path: Path) -> None:
    reviewed = corrected(dataset, store, {0: "A meadow that is wet.", 1: "Today."})
    done = export(reviewed, "dpo", tmp_path / "out")
    assert (done.rows, done.skipped) == (2, {})
    first, second = [json.loads(line) for line in (tmp_path / "out" / "all.jsonl").read_text().splitlines()]
    assert first == {
        "prompt": [{"role": "user", "content": "What is a fen?\n\nFens are wet."}],
        "chosen": [{"role": "assistant", "content": "A meadow that is wet."}],
        "rejected": [{"role": "assistant", "content": "A wet meadow."}],
        "id": first["id"],
        "source": "mix",
        "kind": "correction",
    }
    assert [m["role"] for m in second["prompt"]] == ["system", "user", "assistant", "user"]
    assert (second["chosen"][0]["content"], second["rejected"][0]["content"]) == ("Today.", "Now.")


def test_winners_are_chosen_over_losers_and_ties_give_none(store: Store, dataset: Dataset) -> None:
    compare(store, dataset, 3, (1, 3, 2))
    compare(store, dataset, 0, (2, 2, 1))
    pairs, left = preferences(dataset, store)
    assert sides(pairs) == [
        ("comparison", "A wet meadow.", "Tuned."),
        ("comparison", "A wet meadow.", "Base."),
        ("comparison", "Tuned.", "Base."),
        ("comparison", "Tuned.", "It."),
        ("comparison", "It.", "Base."),
    ]
    assert [e.reason for e in left] == ["tie"]


def test_rows_that_are_not_kept_give_none(store: Store, dataset: Dataset) -> None:
    reviewed = corrected(dataset, store, {0: "Other.", 3: "That."}, rejected=(3,))
    compare(store, dataset, 3, (1, 2, 3))
    compare(store, dataset, 2, (1, 2, 3))
    pairs, left = preferences(reviewed, store)
    assert sides(pairs) == [("correction", "Other.", "A wet meadow.")]
    assert [e.reason for e in left] == ["row not kept", "row not kept"]


def test_a_text_that_was_edited_since_does_not_come_back(store: Store, dataset: Dataset) -> None:
    """What was redacted in the prompt or the row's own answer stays out of the pairs of older comparisons."""
    old = [{"role": "user", "content": "Say my secret.", "name": None, "tool_calls": None}]
    compare(store, dataset, 3, (1, 2, 3), prompt=old)
    compare(store, dataset, 0, (1, 2, 3), reference="With a secret.")
    pairs, left = preferences(dataset, store)
    assert sides(pairs) == []
    assert sorted(e.reason for e in left) == ["prompt edited", "reference edited"]


def test_what_a_model_learnt_by_heart_before_it_was_redacted_does_not_come_back(store: Store, dataset: Dataset) -> None:
    compare(store, dataset, 3, (1, 2, 3), ("Call 555-0100.", "Base."), reference="Call 555-0100.")
    pairs, left = preferences(dataset, store)
    assert (pairs, [e.reason for e in left]) == ([], ["reference edited"])


def test_answers_of_models_still_compare_where_reviewers_corrected_the_row(store: Store, dataset: Dataset) -> None:
    """The reference is no longer what was compared; tuned and base still are."""
    compare(store, dataset, 3, (1, 3, 2))
    pairs, left = preferences(corrected(dataset, store, {3: "That."}), store)
    assert sides(pairs) == [("correction", "That.", "It."), ("comparison", "Tuned.", "Base.")]
    assert [e.reason for e in left] == ["reference edited", "reference edited"]


def test_no_pair_comes_twice_is_contradicted_or_has_equal_sides(store: Store, dataset: Dataset) -> None:
    compare(store, dataset, 3, (1, 2, 2), ("A.", "B."))
    compare(store, dataset, 3, (1, 2, 2), ("A.", "B."), run_id="r2")
    compare(store, dataset, 0, (1, 2, 2), ("A.", "B."))
    compare(store, dataset, 0, (2, 1, 2), ("A.", "B."), run_id="r2")
    compare(store, dataset, 1, (1, 2, 3), ("Now. ", " "))
    pairs, left = preferences(dataset, store)
    assert len({(p.prompt, p.chosen, p.rejected) for p in pairs}) == len(pairs)
    reasons = [e.reason for e in left]
    assert reasons.count("contradiction") == 2
    assert reasons.count("same pair") == 2  # A over B, A over the reference
    assert not [p for p in pairs if p.chosen.strip() == p.rejected.strip() or not p.chosen.strip()]


def test_runs_on_another_dataset_are_not_looked_at(store: Store, dataset: Dataset) -> None:
    compare(store, dataset, 3, (1, 2, 3), of="other")
    assert preferences(dataset, store) == ([], [])


def test_pairs_go_to_the_file_of_their_rows_split_and_are_the_same_every_time(
    store: Store, dataset: Dataset, tmp_path: Path
) -> None:
    splits = pl.DataFrame(
        {"verdict": None, "detail": None, "split": ["train", "val", None, None]},
        schema={"verdict": pl.String, "detail": pl.String, "split": pl.String},
    )
    file = store.put(splits, role="annotation", stage="split", source="mix", shard=0)
    divided = Dataset(dataset.manifest.model_copy(update={"files": (*dataset.manifest.files, file)}), store.root)
    reviewed = corrected(divided, store, {0: "One.", 1: "Two.", 3: "Three."})
    done = export(reviewed, "dpo", tmp_path / "a")
    assert [f.name for f in done.files] == ["train.jsonl", "val.jsonl", "skipped.jsonl"]
    assert (done.rows, done.skipped) == (2, {"no split": 1})
    export(reviewed, "dpo", tmp_path / "b")
    assert [f.read_bytes() for f in sorted((tmp_path / "a").iterdir())] == [
        f.read_bytes() for f in sorted((tmp_path / "b").iterdir())
    ]
    assert export(reviewed, "dpo", tmp_path / "c", splits=("val",)).rows == 1
    with pytest.raises(ConfigError, match="2 of other splits"):
        export(reviewed, "dpo", tmp_path / "d", splits=("test",))
    assert not (tmp_path / "d").exists()


def test_without_pairs_it_says_why_and_writes_nothing(store: Store, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none: no corrections.*no comparisons.*sft curate review pull"):
        export(dataset, "dpo", tmp_path / "out")
    compare(store, dataset, 3, (1, 1, 1))
    with pytest.raises(ConfigError, match="none \\(3 left out: tie\\)"):
        export(dataset, "dpo", tmp_path / "out")
    assert not (tmp_path / "out").exists()
