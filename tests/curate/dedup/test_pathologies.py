"""Contracts on sets that make other tools collapse: what must stay, stays, within time and memory."""

import errno
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from curate.dedup import STAGE
from curate.dedup.plain import near_duplicates
from curate.dedup.scratch import Scratch
from curate.store import Store
from schemas.config import DedupConfig
from schemas.errors import StoreError
from tests.curate.conftest import chat, make_dataset, run_on, view

UNGUARDED = DedupConfig(guard_rows=10**9)


def test_templates_with_other_slots_all_stay(store: Store) -> None:
    """10,000 rows of one template: the slots make half of the words, so no two are alike; and one true copy goes."""
    rows = [
        chat(
            f"Write a short note to customer {i} about order {i * 7919 % 10_007} of {i * 31 % 997} boxes.",
            f"Dear customer {i}, order {i * 7919 % 10_007} of {i * 31 % 997} boxes was sent on day {i % 365}.",
        )
        for i in range(10_000)
    ]
    copy = chat(*(turn["content"] + " Thank you!" * (k % 2) for k, turn in enumerate(rows[77]["messages"])))
    after, _ = run_on(store, make_dataset(store, {"a": [*rows, copy]}), STAGE, DedupConfig(threshold=0.7))
    gone = view(after, "source_row", "kept").filter(~pl.col("kept"))
    assert gone["source_row"].to_list() in ([77], [10_000])


def test_near_identical_templates_leave_one_for_each_place_that_differs(store: Store) -> None:
    """10,000 rows with one word of 60 that differs, in one of 5 places: alike (0.8) where the places are near."""
    base = [f"word{i}" for i in range(60)]
    rows: list[dict[str, Any]] = []
    for i in range(10_000):
        words = list(base)
        words[10 + i % 5] = f"slot{i}"
        rows.append(chat("Say it.", " ".join(words)))
    after, result = run_on(store, make_dataset(store, {"a": rows}), STAGE, UNGUARDED)
    frame = view(after, "id", "kept", "duplicate_of", "jaccard")
    kept = frame.filter("kept")
    assert 1 <= kept.height <= 5
    assert set(frame["duplicate_of"].drop_nulls()) == set(kept["id"])
    assert frame["jaccard"].drop_nulls().min() >= 0.8
    assert "more look-alikes" not in result.notes[-1]


def test_look_alikes_just_below_the_threshold_are_decided_in_bounded_time(store: Store) -> None:
    """3,000 rows of which any two share 3 of 4 n-grams: all stay, though each shares bands with nearly all others."""
    base = [f"word{i}" for i in range(120)]
    draw = np.random.default_rng(0)
    rows = [
        chat("Say it.", " ".join(base[: 100 + i % 2] + [f"own{n}" for n in draw.integers(0, 10**9, 16)]))
        for i in range(3000)
    ]
    after, _ = run_on(store, make_dataset(store, {"a": rows}), STAGE, UNGUARDED)
    assert view(after, "kept")["kept"].all()


def test_empty_and_one_word_rows_go_only_with_their_like(store: Store) -> None:
    """100,000 rows without a word or with one: one of each kind stays, and no two that differ are one."""
    kinds = [("", ""), ("hi", ""), ("", "hi"), ("hi", "hi"), ("yes", "no"), ("no", "yes"), ("?", "!"), ("你", "好")]
    rows = [chat(*kinds[i % len(kinds)], source_key=f"k{i}") for i in range(100_000)]
    after, _ = run_on(store, make_dataset(store, {"a": rows}), STAGE, UNGUARDED)
    frame = view(after, "messages", "kept", "verdict_dedup").filter("kept")
    assert sorted((m[0]["content"], m[1]["content"]) for m in frame["messages"]) == sorted(kinds)


def test_one_row_of_50_mb_among_others(store: Store) -> None:
    """It is compared as every other row: a copy with a few words more goes with it, and the short ones stay."""
    long = " ".join(f"word{i * i % 99_991}" for i in range(5_200_000))
    assert len(long) > 50_000_000
    short = [chat(f"q{i}", f"a{i}") for i in range(9)]
    rows = [chat("Read it.", long), chat("Read it.", long + " and some more"), *short]
    after, _ = run_on(store, make_dataset(store, {"a": rows}), STAGE, UNGUARDED)
    assert view(after, "kept")["kept"].to_list() == [False, *[True] * 10]


def test_a_long_chain_does_not_melt_into_one() -> None:
    """A ~ B ~ C … each alike to the next alone: every second or third stays, and who goes names a neighbour."""
    words = [f"w{i}" for i in range(20_000)]
    texts = pl.Series([" ".join(words[i * 8 : i * 8 + 100]) for i in range(2000)])  # alike: 88 of 104 n-grams
    gone = near_duplicates(texts, DedupConfig(threshold=0.8))
    assert 900 <= gone.height <= 1400
    assert (gone["row"].cast(pl.Int64) - gone["duplicate_of"].cast(pl.Int64)).abs().max() <= 1


# memory ---------------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_lies_in_a_file_without_a_name(tmp_path: Path) -> None:
    scratch = Scratch(100, tmp_path / "tmp")
    small, large = scratch.empty(10, np.uint32), scratch.empty((100, 3), np.uint32)
    large[...] = 7
    assert isinstance(large, np.memmap)
    assert not isinstance(small, np.memmap)
    assert (scratch.used, scratch.spilled) == (40, 1200)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_outcome_does_not_depend_on_the_memory(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from curate.dedup import search

    answers = [" ".join(f"w{k * i % 50}" for k in range(30)) for i in range(900)]
    rows = [chat(f"Tell me about {i % 40} and {i % 7}", answer) for i, answer in enumerate(answers)]
    dataset = make_dataset(store, {"a": rows})
    whole, _ = run_on(store, dataset, STAGE, UNGUARDED)
    spilled: list[int] = []

    class Tight(Scratch):
        def empty(self, shape: Any, dtype: Any) -> Any:
            self.limit = 0
            array = super().empty(shape, dtype)
            spilled.append(self.spilled)
            return array

    monkeypatch.setattr(search, "Scratch", Tight)
    tight, _ = run_on(store, dataset, STAGE, UNGUARDED)
    assert max(spilled) > 10_000
    assert tight.manifest.id == whole.manifest.id


def test_sets_that_are_overwritten_are_made_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ring holds a few rows' sets: the outcome is that of one that holds them all."""
    from curate.dedup import cluster

    families = [[f"f{f}w{k}" for k in range(40)] for f in range(30)]
    rows = [
        chat("Go on.", " ".join(["y"] * (i % 3) + families[i % 30][: 36 + i % 5] + [f"z{i % 4}"])) for i in range(600)
    ]
    dataset = make_dataset(store, {"a": rows})
    whole, _ = run_on(store, dataset, STAGE, UNGUARDED)
    monkeypatch.setattr(cluster, "_SHORTEST_RING", 700)
    monkeypatch.setattr(cluster, "RING", 700)
    small, _ = run_on(store, dataset, STAGE, UNGUARDED)
    assert 0 < view(whole, "kept")["kept"].sum() < 600
    assert small.manifest.id == whole.manifest.id


def test_no_room_for_the_spill_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(StoreError, match=r"No space left.*no room for 4\.0 GB.*--memory"):
        Scratch(100, tmp_path).empty(10**9, np.uint32)
    assert list(tmp_path.iterdir()) == []
