"""Licences stated anew, and `select --commercial`, which goes by them."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curate.pipeline import apply_stage
from curate.select import STAGE as SELECT
from curate.store import Store
from curate.terms import restate
from curate.verify import verify
from schemas.config import SelectConfig
from schemas.dataset import Dataset
from schemas.errors import ConfigError
from tests.rows import dataset_of, question, staged

ROWS = [question(f"What is {n}?", f"It is {n}.") for n in range(4)]


def stated(dataset: Dataset, source: str, **more: Any) -> Dataset:
    given: dict[Any, str] = more
    done = restate(Store(dataset.root), dataset, source, given)
    return Dataset(done.commit.manifest, dataset.root)


@pytest.fixture
def mix(tmp_path: Path) -> Dataset:
    """One source free, one bound (CC-BY-NC-4.0), one told (MIT with terms), one of which nothing is stated."""
    dataset = dataset_of(tmp_path, {"free": ROWS, "bound": ROWS, "told": ROWS, "silent": ROWS})
    dataset = stated(dataset, "free", license="CC-BY-SA-3.0")
    dataset = stated(dataset, "bound", license="CC-BY-NC-4.0")
    return stated(dataset, "told", license="MIT", terms="OpenAI terms")


def kept(dataset: Dataset) -> dict[str, int]:
    rows = dataset.scan(["source", "kept"]).filter("kept").collect()
    return {str(s): int(n) for s, n in rows.group_by("source").len().sort("source").iter_rows()}


def test_a_statement_is_a_version_of_its_own_and_changes_no_row(mix: Dataset) -> None:
    after = stated(mix, "bound", license="MIT")
    m = after.manifest
    assert (m.seq, m.message) == (mix.manifest.seq + 1, "bound: licence CC-BY-NC-4.0 -> MIT")
    assert m.files == mix.manifest.files
    assert m.id != mix.manifest.id
    assert not verify(after, deep=True)


def test_the_same_statement_again_commits_nothing(mix: Dataset) -> None:
    assert stated(mix, "bound", license="CC-BY-NC-4.0").manifest == mix.manifest


def test_a_statement_is_taken_back_by_an_empty_one_and_others_stay(mix: Dataset) -> None:
    source = stated(mix, "told", terms="").manifest.source("told")
    assert source
    assert (source.license, source.terms) == ("MIT", None)


def test_what_cannot_be_stated_is_a_clear_error(mix: Dataset) -> None:
    with pytest.raises(ConfigError, match=r"source 'nope': not in d@4; expected one of its sources \(bound, free"):
        stated(mix, "nope", license="MIT")
    with pytest.raises(ConfigError, match="nothing is stated"):
        stated(mix, "free")


def test_commercial_keeps_only_sources_that_clearly_allow_it_and_says_why(mix: Dataset) -> None:
    after = staged(mix, "select", commercial=True)
    assert kept(after) == {"free": 4}
    out = after.scan(["source", "reject_reason", "reject_detail"]).filter(pl.col("source") != "free").collect()
    assert set(out["reject_reason"]) == {"select:licence"}
    details = dict(out.select("source", "reject_detail").unique().iter_rows())
    assert details["bound"] == "CC-BY-NC-4.0 allows no commercial use."
    assert details["silent"] == "No licence is stated."
    assert details["told"].startswith("MIT allows commercial use, but a person must read the terms: OpenAI terms.")


def test_without_commercial_licences_decide_nothing(mix: Dataset) -> None:
    after = staged(mix, "select")
    assert sum(kept(after).values()) == 16
    assert stated(after, "free", license="CC-BY-NC-4.0").stale() == []


def test_no_budget_is_spent_on_rows_that_the_licence_leaves_out(mix: Dataset) -> None:
    after = staged(mix, "select", commercial=True, rows=3, control="random")
    assert kept(after) == {"free": 3}


def test_another_licence_makes_the_selection_stale_and_the_next_one_sees_it(mix: Dataset) -> None:
    """Neither what a version says of itself, nor what is remembered of finished stages, holds for other licences."""
    store, config = Store(mix.root), SelectConfig(commercial=True)
    first, _ = apply_stage(store, mix, SELECT.name, config)
    again, done = apply_stage(store, mix, SELECT.name, config)
    assert again.cached
    opened = stated(Dataset(done.manifest, mix.root), "bound", license="CC0-1.0")
    assert opened.stale() == ["select"]
    second, done = apply_stage(store, opened, SELECT.name, config)
    assert not second.cached
    assert second.entry.reads != first.entry.reads
    after = Dataset(done.manifest, mix.root)
    assert (kept(after), after.stale()) == ({"bound": 4, "free": 4}, [])
