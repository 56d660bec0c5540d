"""`sft curate score --from-reviews` as a person runs it: too few reviews, enough, again, weighed, in a recipe."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curate.review.responses import RESPONSES
from curate.review.stage import review_stage
from curate.stage import run_stage
from curate.store import Store
from curate.version import Draft, commit_version
from schemas.dataset import open_dataset
from schemas.review_config import ReviewConfig
from tests.cli.conftest import Sft
from tests.curate.review.simulated import exchanges, spoilt

POOL = spoilt(exchanges(150, 4), "careless", 0.4, 4)


@pytest.fixture
def mix(sft: Sft, tmp_path: Path) -> Store:
    """A dataset `mix` of 150 rows that nobody has reviewed yet."""
    rows: list[dict[str, Any]] = []
    for turns, context in POOL.rows.select("messages", "context").iter_rows():
        rows.append({"instruction": turns[0]["content"], "input": context or "", "output": turns[1]["content"]})
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    sft("curate", "ingest", "alpaca", "rows.json", "--name", "mix")
    return Store(tmp_path / "sft-data")


def review(store: Store, rows: int) -> None:
    """Put the verdicts of somebody who follows the hidden rule into the version, as a pull does."""
    dataset = open_dataset("mix", store.root)
    seen = dataset.scan(["id", "content_hash", "source_row"]).collect().sort("source_row").head(rows)
    said = [
        {
            **dict.fromkeys(RESPONSES),
            "review": "test",
            "id": row,
            "content_hash": text,
            "reviewer": "ann",
            "status": "submitted",
            "verdict": "keep" if good else "reject",
            "min_submitted": 1,
            "cut": False,
            "updated_at": "2026-01-01T00:00:00Z",
        }
        for (row, text, _), good in zip(seen.iter_rows(), POOL.good[:rows], strict=True)
    ]
    ledger = pl.DataFrame(said, schema=RESPONSES)
    result = run_stage(store, dataset, review_stage(ledger), ReviewConfig(), fresh=True)
    commit_version(store, Draft.of(dataset.manifest).with_stage(result), dataset.manifest, "pull")


def test_without_enough_reviews_one_line_says_how_many_are_needed(sft: Sft, mix: Store) -> None:
    for rows, words in ((0, "0 reviewed rows"), (30, "30 reviewed rows")):
        if rows:
            review(mix, rows)
        said = sft("curate", "score", "mix", "--from-reviews", code=2)
        assert words in said.err
        assert "expected at least 50" in " ".join(said.err.split())
        assert "Traceback" not in said.err


def test_reviews_score_all_rows_and_the_auc_is_told_with_its_interval(sft: Sft, mix: Store) -> None:
    review(mix, 100)
    said = sft("curate", "score", "mix", "--from-reviews", "--weights", "learned=1")
    told = " ".join(said.err.split())
    for words in ("learnt from 100 reviewed rows", "length of the answer alone", "by chance 0.500", "DeLong"):
        assert words in told
    assert "learned" in said.out
    assert "score = weighted mean of ranks: learned 1" in said.out
    again = sft("curate", "score", "mix", "--from-reviews", "--weights", "learned=1", "--json").json
    assert not again["committed"]
    assert again["columns"]["learned"]["rows"] == 150
    assert again["learning"]["auc"] > again["learning"]["length_auc"] + 0.1
    assert sft("verify", "mix", "--deep", "--json").json["ok"]


def test_why_names_what_gave_the_probability(sft: Sft, mix: Store) -> None:
    review(mix, 100)
    sft("curate", "score", "mix", "--from-reviews", "--weights", "learned=1")
    (event,) = [e for e in sft("why", "mix", "alpaca:140", "--json").json["history"] if e["stage"] == "score"]
    assert event["scored_by"] == ["reviews (logistic regression on 100 reviewed rows)"]
    assert 0 < event["learned"] < 1


def test_left_out_of_the_next_run_the_column_goes_and_that_is_told(sft: Sft, mix: Store) -> None:
    review(mix, 100)
    sft("curate", "signals", "mix")
    sft("curate", "score", "mix", "--from-reviews")
    said = sft("curate", "score", "mix")
    assert "this run leaves them out" in " ".join(said.err.split())
    assert "learned" not in said.out


def test_a_recipe_learns_as_the_command_does(sft: Sft, mix: Store, tmp_path: Path) -> None:
    review(mix, 100)
    (tmp_path / "recipe.toml").write_text('dataset = "mix"\n[score]\nfrom_reviews = true\nweights = "learned=1"\n')
    first = sft("curate", "run", "recipe.toml", "--json").json
    assert any("score: reviews: learnt from 100 reviewed rows" in note for note in first["notes"])
    assert not sft("curate", "score", "mix", "--from-reviews", "--weights", "learned=1", "--json").json["committed"]
