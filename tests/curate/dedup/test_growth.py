"""Contracts of growth: rows that come later are decided as if they had always been there, whatever they touch."""

import random
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.dedup import STAGE, growth
from curate.store import Store
from schemas.config import DedupConfig
from schemas.dataset import Dataset
from tests.curate.conftest import chat, make_dataset, run_on, view

Row = dict[str, Any]
SAID = ("id", "verdict_dedup", "detail_dedup", "duplicate_of", "jaccard", "cluster_id", "conflict_id", "answer_id")


def variants(draw: random.Random, count: int) -> list[Row]:
    """Rows of a few families: the same with words exchanged, answers exchanged, or other material."""
    families = [[f"f{f}w{k}" for k in range(30)] for f in range(4)]
    rows: list[Row] = []
    for i in range(count):
        words = [list(draw.choice(families)) for _ in range(2)]
        for text in words:
            for _ in range(draw.choice([0, 0, 1, 1, 2, 4])):
                text[draw.randrange(len(text))] = draw.choice("xyz")
        tail = ["more"] * draw.choice([0, 0, 1, 3])
        rows.append(chat(" ".join(words[0]), " ".join([*words[1], *tail]), source_key=f"k{i}"))
    return rows


def grown(store: Store, rows: list[Row], first: int, config: DedupConfig, *, name: str) -> tuple[Dataset, Dataset]:
    """Dedup the first rows, then all of them with the rest as another source; and all of them at once."""
    later = {name: rows[first:]}
    old, _ = run_on(store, make_dataset(store, {"m": rows[:first]}, shard_rows=7), STAGE, config)
    added = make_dataset(store, {"m": rows[:first], **later}, shard_rows=7)
    after = with_stage_of(added, old)
    return run_on(store, after, STAGE, config)[0], run_on(store, added, STAGE, config)[0]


def with_stage_of(dataset: Dataset, old: Dataset) -> Dataset:
    """Give a dataset what dedup said about some of its shards."""
    m, entry = dataset.manifest, old.manifest.stage("dedup")
    files = [*m.files, *old.manifest.files_of("dedup")]
    return Dataset(
        m.model_copy(update={"stages": (entry,), "files": tuple(sorted(files, key=lambda f: f.order))}), dataset.root
    )


@settings(max_examples=25, deadline=None)
@given(
    st.randoms(use_true_random=False),
    st.integers(1, 60),
    st.integers(1, 12),
    st.sampled_from([0.5, 0.7, 0.8, 1.0]),
    st.tuples(st.sampled_from(["a", "z"]), st.sampled_from(["fields", "record"])),
)
def test_added_rows_are_decided_as_if_they_had_always_been_there(
    draw: random.Random, first: int, later: int, threshold: float, named: tuple[str, str]
) -> None:
    name, compare = named
    config = DedupConfig.model_validate({"threshold": threshold, "ngram": 2, "compare": compare, "guard_rows": 10**6})
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(growth, "MOST_TOUCHED", 1.0)
        one, whole = grown(Store(Path(folder)), variants(draw, first + later), first, config, name=name)
        said = [view(dataset, *SAID) for dataset in (one, whole)]
        differ = said[0].filter(~pl.struct(said[0]).eq_missing(pl.struct(said[1])))
        assert said[0].equals(said[1]), differ
        assert one.manifest.id == whole.manifest.id


def test_growth_is_what_happens_when_a_source_is_added(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its result is used: a search over all rows would not come to pass."""
    from curate.dedup.search import Search

    texts = [(f"Question {i} about {i * 7} things", f"Answer {i} with {i * 13} words") for i in range(200)]
    rows = [chat(*text, source_key=f"k{i}") for i, text in enumerate(texts)]
    old, _ = run_on(store, make_dataset(store, {"m": rows}), STAGE)
    added = with_stage_of(make_dataset(store, {"m": rows, "n": rows[:3]}), old)
    monkeypatch.setattr(Search, "run", None)
    after, result = run_on(store, added, STAGE)
    assert view(after, "kept")["kept"].sum() == 200
    assert {f.sha256 for f in old.manifest.files if f.role == "index"} <= {f.sha256 for f in result.files}


def test_copies_of_copies_are_left_to_a_search_over_all_rows(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every added copy would be paired with every old one, in every band."""
    monkeypatch.setattr(growth, "MOST_PAIRS", 10_000)
    rows = [chat("The same question for all of them?", "The same answer for all of them.") for _ in range(300)]
    config = DedupConfig(guard_rows=10**6)
    old, _ = run_on(store, make_dataset(store, {"m": rows}), STAGE, config)
    dataset = make_dataset(store, {"m": rows, "n": rows[:100]})
    one, _ = run_on(store, with_stage_of(dataset, old), STAGE, config)
    whole, _ = run_on(store, dataset, STAGE, config)
    assert one.manifest.id == whole.manifest.id
    assert view(one, "kept")["kept"].sum() == 1


@pytest.mark.parametrize(("threshold", "share"), [(0.55, (55, 100)), (0.56, (28, 50)), (0.8, (67, 80))])
def test_a_pair_at_the_threshold_is_found_and_told_alike(
    threshold: float, share: tuple[int, int], store: Store
) -> None:
    """0.55 * 100 is above 55 as the machine computes it, and 67 / 80 is rounded otherwise in 32 bits."""
    words = [f"w{i}" for i in range(share[1])]
    rows = [chat("", " ".join(words)), chat("", " ".join(words[: share[0]])), chat("q", "Something else.")]
    config = DedupConfig(threshold=threshold, ngram=1)
    for first in (1, 2):
        one, whole = grown(store, rows, first, config, name="z")
        assert view(one, *SAID).equals(view(whole, *SAID))
        assert view(one, "kept")["kept"].to_list() == [True, False, True]


def test_rows_decided_under_the_cap_are_not_grown_from(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from curate.dedup import cluster

    monkeypatch.setattr(cluster, "MOST_CANDIDATES", 2)
    base = " ".join(f"word{i}" for i in range(100))
    rows = [chat("Say it.", f"{base} {' '.join(f'own{i}x{k}' for k in range(16))}") for i in range(12)]
    old, result = run_on(store, make_dataset(store, {"m": rows}), STAGE)
    assert "more look-alikes" in result.notes[-1]
    monkeypatch.setattr("curate.dedup.grow", None)
    added = with_stage_of(make_dataset(store, {"m": rows, "n": [chat("q", "a")]}), old)
    assert view(run_on(store, added, STAGE)[0], "kept")["kept"].all()


def test_an_index_is_made_anew_where_the_text_was_edited(store: Store) -> None:
    """Normalize before or after a first dedup: the same indexes and the same opinions."""
    from curate.normalize import STAGE as NORMALIZE

    tails = ["x " * (i % 5) for i in range(30)]
    rows = [chat(f"Question {i}\u200b?", f"Answer {i} e\u0301 with a tail {tail}") for i, tail in enumerate(tails)]
    dataset = make_dataset(store, {"m": rows})
    straight, _ = run_on(store, run_on(store, dataset, NORMALIZE)[0], STAGE)
    early, _ = run_on(store, dataset, STAGE)
    late, _ = run_on(store, run_on(store, early, NORMALIZE)[0], STAGE)
    assert late.manifest.id == straight.manifest.id
    assert {f.sha256 for f in early.manifest.files if f.role == "index"} != {
        f.sha256 for f in late.manifest.files if f.role == "index"
    }
