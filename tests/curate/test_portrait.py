"""A portrait: its numbers add up, and its samples are drawn by seed and id alone."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curate.measures import ALL
from curate.portrait import KEPT, portray
from curate.samples import MOST_CHARACTERS, draw, sample_rows
from schemas.dataset import Dataset
from schemas.record import lineage_id
from tests.rows import dataset_of, question, staged


def rows(n: int) -> list[dict[str, Any]]:
    return [question(f"Which of the {i} lamps is lit?", f"Lamp {i} is lit until {i}.", key=f"k{i}") for i in range(n)]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    made = dataset_of(tmp_path, {"a": [*rows(30), question("Dark?", "", key="dark")], "b": rows(6)})
    for stage in ("rules", "signals", "split"):
        made = staged(made, stage)
    return made


def test_the_numbers_of_a_portrait_add_up(dataset: Dataset) -> None:
    found = portray(dataset)
    assert [(s.name, s.rows, s.kept) for s in found.sources] == [("a", 31, 30), ("b", 6, 6)]
    assert sum(s.tokens for s in found.sources) == found.tokens == sum(found.tokens_by_split.values())
    assert found.sources[0].rejected == {"rule:empty_response": 1}
    assert set(found.measures) == {"a", "b", ALL}
    assert {"tokens", "turns", "words", "quality", "task"} <= set(found.measures[ALL])
    assert "score" not in found.measures[ALL], "nothing has been scored"
    assert found.measures["a"]["tokens"].rows == 30
    assert found.coverage is not None
    assert found.coverage.rows == 36
    assert found.reviews == {}


def test_the_histograms_of_all_sources_share_their_edges(dataset: Dataset) -> None:
    measures = portray(dataset).measures
    assert len({getattr(of["tokens"], "edges", None) for of in measures.values()}) == 1


def test_samples_are_of_each_fate_and_the_same_for_the_same_seed(dataset: Dataset) -> None:
    found = portray(dataset, seed=3, samples=4)
    assert list(found.samples) == [KEPT, "rule:empty_response"]
    assert [len(some) for some in found.samples.values()] == [4, 1]
    assert all(row.kept for row in found.samples[KEPT])
    [dark] = found.samples["rule:empty_response"]
    assert (dark.place, dark.reason, dark.turns) == (
        "a:31",
        "rule:empty_response",
        (("user", "Dark?"), ("assistant", "")),
    )
    assert portray(dataset, seed=3, samples=4).samples == found.samples
    assert portray(dataset, seed=4, samples=4).samples[KEPT] != found.samples[KEPT]


def test_a_version_that_nothing_ran_on_has_a_portrait(tmp_path: Path) -> None:
    found = portray(dataset_of(tmp_path, {"a": rows(3)}))
    assert (found.coverage, found.tokens_by_split, list(found.measures)) == (None, {}, ["a"])


def test_rows_that_come_and_go_change_nothing_about_the_chance_of_others() -> None:
    ids = [lineage_id("s", str(i)) for i in range(200)]
    few, more = (draw(pl.Series(some), 7, 20) for some in (ids[:150], ids))
    assert set(more) - set(few) <= set(ids[150:])
    assert draw(pl.Series(ids[::-1]), 7, 20) == more
    assert draw(pl.Series([], dtype=pl.String), 7, 20) == []


def test_a_sample_shows_the_context_and_cuts_what_is_long(tmp_path: Path) -> None:
    long = "a" * (MOST_CHARACTERS + 500)
    made = dataset_of(tmp_path, {"s": [question("Why?", long, context="Because.", key="x")]})
    [row] = sample_rows(made, [lineage_id("s", "x"), lineage_id("s", "other")]).values()
    assert [role for role, _ in row.turns] == ["user", "context", "assistant"]
    assert row.turns[2][1] == "a" * MOST_CHARACTERS + " … 500 more characters"
