"""Contracts of dedup: who is a duplicate of whom, who stays, and that nothing is deleted without a kept likeness."""

import random
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.dedup import STAGE
from curate.store import Store
from schemas.config import DedupConfig
from schemas.errors import ConfigError
from schemas.record import lineage_id
from tests.curate.conftest import Apply, chat, make_dataset, run_on, turns, view

Row = dict[str, Any]
OWN = ("id", "verdict_dedup", "duplicate_of", "cluster_id", "conflict_id", "jaccard", "detail_dedup")

LONG = " ".join(f"word{i}" for i in range(60))
"""60 different words: 56 5-grams."""


def deduped(
    apply: Apply, store: Store, *rows: Row, config: DedupConfig | None = None, **sources: list[Row]
) -> pl.DataFrame:
    after, _ = apply(make_dataset(store, {"a": list(rows), **sources} if rows else sources), STAGE, config)
    return view(after, *OWN, "kept")


def verdicts(frame: pl.DataFrame) -> list[str | None]:
    return frame["verdict_dedup"].to_list()


def naive_shingles(text: str, n: int) -> set[tuple[str, ...]]:
    words = text.lower().split()
    n = min(n, len(words))
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)} if n else set()


# who is a duplicate ---------------------------------------------------------------------------------------------------


def test_the_same_after_case_and_blanks_is_an_exact_duplicate(store: Store, apply: Apply) -> None:
    frame = deduped(apply, store, chat("What is it?", "A  Cat."), chat("what is\nit?", "a cat. "))
    assert sorted(verdicts(frame), key=str) == [None, "duplicate:exact"]
    gone, kept = frame.filter(~pl.col("kept")).to_dicts()[0], frame.filter("kept").to_dicts()[0]
    assert gone["duplicate_of"] == gone["cluster_id"] == kept["id"] == kept["cluster_id"]
    assert gone["jaccard"] == 1
    assert kept["id"] in gone["detail_dedup"]
    assert "a.jsonl:" in gone["detail_dedup"]


def test_a_pair_at_the_threshold_is_a_near_duplicate_and_one_below_is_not(store: Store, apply: Apply) -> None:
    """56 n-grams; each word changed at the end of the answer costs one: 50 of 62 is 0.806, 49 of 63 is 0.778."""
    at = " ".join([*LONG.split()[:-6], *"uvwxyz"])
    below = " ".join([*LONG.split()[:-7], *"tuvwxyz"])
    assert sorted(verdicts(deduped(apply, store, chat("", LONG), chat("", at))), key=str) == [None, "duplicate:near"]
    assert verdicts(deduped(apply, store, chat("", LONG), chat("", below))) == [None, None]


def test_the_evidence_gives_the_similarity_and_where_the_other_row_stands(store: Store, apply: Apply) -> None:
    frame = deduped(apply, store, chat("", LONG + " and more"), chat("", LONG))
    assert frame["detail_dedup"][1] == f"0.966 with {frame['id'][0]} (a a.jsonl:0)"
    assert frame["jaccard"][1] == pytest.approx(56 / 58)


def test_threshold_1_takes_equal_sets_of_ngrams_alone(store: Store, apply: Apply) -> None:
    loop = ["round and round it goes", "round and round it goes " * 9]
    config = DedupConfig(threshold=1.0, ngram=1)
    frame = deduped(
        apply, store, chat("", loop[0]), chat("", loop[1]), chat("", LONG), chat("", LONG + " x"), config=config
    )
    assert sorted(verdicts(frame), key=str) == [None, None, None, "duplicate:near"]


@pytest.mark.parametrize(
    "pair",
    [
        (chat("Add 2 and 2.", "4"), chat("Add 1 and 3.", "4")),  # short rows collapse elsewhere
        (chat("hello", "hi"), chat("hello there", "hi")),
        (chat("你好吗", "我很好"), chat("你好嗎", "我很好")),  # one word each, and not the same
        (chat(f"Summarise: {LONG}", "It is about words."), chat(f"Translate: {LONG}", "Es geht um Wörter.")),
        (chat("Is it A?", "Yes", context=LONG), chat("Is it B, or something else?", "Yes", context=LONG)),
        (
            turns(("system", LONG), ("user", "Is it A?"), ("assistant", "Yes")),
            turns(("system", LONG), ("user", "Could it be B?"), ("assistant", "Yes")),
        ),
    ],
)
def test_rows_that_ask_or_answer_something_else_all_stay(pair: tuple[Row, Row], store: Store, apply: Apply) -> None:
    assert verdicts(deduped(apply, store, *pair)) == [None, None]


def test_the_same_question_and_answer_about_other_material_both_stay(store: Store, apply: Apply) -> None:
    """The material shares enough for a candidate (0.7 of all n-grams) and too little for a duplicate."""
    other = " ".join([*LONG.split()[:-10], *"qrstuvwxyz"])
    frame = deduped(apply, store, *(chat("Does it say so?", "It does.", context=text) for text in (LONG, other)))
    assert verdicts(frame) == [None, None]
    assert frame["conflict_id"].null_count() == 2


def test_the_same_words_with_other_tools_are_neither_duplicate_nor_conflict(store: Store, apply: Apply) -> None:
    rows = [chat("Book a flight.", LONG + end, tools=t) for end, t in (("", "[1]"), (" x", "[2]"), ("", "[3]"))]
    frame = deduped(apply, store, *rows)
    assert verdicts(frame) == [None, None, None]
    assert frame["conflict_id"].null_count() == 3


def test_another_tool_call_is_another_answer(store: Store, apply: Apply) -> None:
    rows = [chat(f"What is the weather? {LONG}", "") for _ in range(3)]
    for row, city in zip(rows, ("Leeds", "York", "York"), strict=True):
        row["messages"][1]["tool_calls"] = f'[{{"name": "weather", "city": "{city}"}}]'
    frame = deduped(apply, store, *rows)
    assert sorted(verdicts(frame), key=str) == [None, None, "duplicate:exact"]
    assert frame.filter("kept")["conflict_id"].n_unique() == 1


def test_rows_without_any_word_are_compared_as_whole_texts(store: Store, apply: Apply) -> None:
    frame = deduped(apply, store, chat("", ""), chat(" ", "\n"), chat("", "..."))
    assert verdicts(frame).count("duplicate:exact") == 1


def test_same_prompt_and_other_answer_is_a_conflict_and_both_stay(store: Store, apply: Apply) -> None:
    frame = deduped(apply, store, chat("Why?", "Because of rain."), chat("why?", "No reason."), chat("Who?", "Me."))
    assert verdicts(frame) == [None, None, None]
    conflict = frame["conflict_id"].to_list()
    assert conflict[0] == conflict[1] == frame["id"][0]  # the longer answer comes first
    assert conflict[2] is None


def test_long_and_nearly_the_same_prompt_with_another_answer_is_a_conflict(store: Store, apply: Apply) -> None:
    frame = deduped(apply, store, chat(LONG, "Yes, it is."), chat(LONG + " please", "No, never."))
    assert verdicts(frame) == [None, None]
    assert frame["conflict_id"].null_count() == 0
    assert frame["conflict_id"].n_unique() == 1


def test_clusters_are_stars_and_chains_do_not_melt(store: Store, apply: Apply) -> None:
    """Of A ~ B ~ C ~ D with A and C unlike, B goes with A, C stays, D goes with C."""
    words = [f"w{i:03}" for i in range(120)]
    texts = [" ".join(words[k : k + 60]) for k in (0, 6, 12, 18)]
    rows = [chat("", text + " x" * (4 - i)) for i, text in enumerate(texts)]  # A has the longest answer, then B …
    frame = deduped(apply, store, *rows, config=DedupConfig(threshold=0.7))
    assert verdicts(frame) == [None, "duplicate:near", None, "duplicate:near"]
    assert frame["duplicate_of"].to_list() == [None, frame["id"][0], None, frame["id"][2]]


# who stays ------------------------------------------------------------------------------------------------------------


def test_the_row_of_the_more_trusted_source_stays(store: Store, apply: Apply) -> None:
    sources = {"a": [chat("q?", LONG)], "b": [chat("q?", LONG)]}
    for first in ("a", "b"):
        config = DedupConfig(source_priority=(first,))
        after, _ = apply(make_dataset(store, sources), STAGE, config)
        assert view(after, "source", "kept").filter("kept")["source"].to_list() == [first]


def test_fewer_flags_stay_then_the_longer_answer_then_the_smaller_id(store: Store, apply: Apply) -> None:
    from curate.rules import STAGE as RULES

    rows = [chat("q?", LONG + " tail", context="None"), chat("q?", LONG, context=None)]
    dataset, _ = apply(make_dataset(store, {"a": rows}), RULES)
    after, _ = apply(dataset, STAGE)
    assert view(after, "kept")["kept"].to_list() == [False, True]
    assert verdicts(deduped(apply, store, chat("q?", LONG), chat("q?", LONG + " tail"))) == ["duplicate:near", None]
    frame = deduped(apply, store, chat("q?", LONG), chat("q?", LONG))
    assert frame.filter("kept")["id"].item() == frame["id"].min()


def test_an_exact_copy_of_a_near_duplicate_names_the_row_that_stays(store: Store, apply: Apply) -> None:
    frame = deduped(apply, store, chat("q?", LONG), chat("q?", LONG), chat("q?", LONG + " tail"))
    assert verdicts(frame) == ["duplicate:near", "duplicate:near", None]
    assert set(frame["duplicate_of"].drop_nulls()) == {frame["id"][2]}


def test_a_source_that_is_not_there_is_an_error_that_names_the_others(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"alpacca.*of a"):
        run_on(store, make_dataset(store, {"a": [chat("q", "a")]}), STAGE, DedupConfig(source_priority=("alpacca",)))


def test_rows_that_an_earlier_stage_left_out_are_no_duplicates_of_anything(store: Store, apply: Apply) -> None:
    frame = deduped(apply, store, chat("q?", "a", broken="ingest:wrong_type"), chat("q?", "a"))
    assert verdicts(frame) == [None, None]
    assert frame.select(OWN[2:]).row(0) == (None,) * 5


# laws -----------------------------------------------------------------------------------------------------------------

SENTENCES = st.lists(
    st.sampled_from(["red", "green", "blue", "one two three four", "five six seven eight nine"]), max_size=8
)
ROWS = st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=12)


@settings(max_examples=20, deadline=None)
@given(ROWS, st.sampled_from([0.5, 0.8, 1.0]), st.randoms(use_true_random=False))
def test_every_duplicate_has_a_kept_likeness_whatever_the_order_of_rows(
    texts: list[tuple[list[str], list[str]]], threshold: float, shuffler: random.Random
) -> None:
    rows = [chat(" ".join(q), " ".join(a), source_key=f"k{i}") for i, (q, a) in enumerate(texts)]
    shuffled = shuffler.sample(rows, len(rows))
    config = DedupConfig(threshold=threshold, ngram=2)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        frames: list[pl.DataFrame] = []
        for order, shard_rows in ((rows, 1 << 30), (shuffled, 3)):
            dataset, _ = run_on(store, make_dataset(store, {"a": order}, shard_rows=shard_rows), STAGE, config)
            frames.append(view(dataset, *OWN, "kept"))
    decided = [f.drop("detail_dedup").sort("id") for f in frames]
    assert decided[0].equals(decided[1])
    frame = frames[0]
    kept = set(frame.filter("kept")["id"])
    assert set(frame["duplicate_of"].drop_nulls()) <= kept
    with_duplicates = set(frame["duplicate_of"].drop_nulls())
    for row, cluster in frame.filter("kept").select("id", "cluster_id").iter_rows():
        assert cluster == (row if row in with_duplicates else None)
    said = {lineage_id("a", f"k{i}"): (" ".join(q), " ".join(a)) for i, (q, a) in enumerate(texts)}
    for row in frame.filter(~pl.col("kept")).iter_rows(named=True):
        (q, a), (other_q, other_a) = said[row["id"]], said[row["duplicate_of"]]
        ours, theirs = naive_shingles(f"{q} {a}", 2), naive_shingles(f"{other_q} {other_a}", 2)
        similarity = len(ours & theirs) / len(ours | theirs) if ours | theirs else 1.0
        assert similarity == pytest.approx(row["jaccard"], abs=1e-6)
        assert similarity >= threshold


def test_many_look_alikes_are_decided_in_bounded_time(store: Store) -> None:
    """1,000 questions about one long text, each pair a candidate and no duplicate; and a copy of one, found."""
    material = f"{LONG} {LONG.upper().replace('D', 'DS')}"
    rows = [
        chat(f"What about number {i} then, my friend {i}?", f"Answer {i} it is, and no other.", context=material)
        for i in range(1000)
    ]
    rows.append(
        chat("What about number 7 then, my friend 7?", "Answer 7 it is, and no other.", context=f"{material} more")
    )
    after, _ = run_on(store, make_dataset(store, {"a": rows}), STAGE)
    gone = view(after, "source_row", "kept").filter(~pl.col("kept"))["source_row"].to_list()
    assert gone in ([7], [1000])


def test_the_note_counts_clusters_and_conflicts(store: Store, apply: Apply) -> None:
    rows = [chat("q?", LONG), chat("q?", LONG), chat("q?", LONG + " x"), chat("q?", "Something else.")]
    _, result = apply(make_dataset(store, {"a": rows}), STAGE)
    (note,) = result.notes
    assert note == (
        "left out as duplicates: 0 exact and 2 near, in clusters: 1; "
        "conflicts (same prompt, other answer): 1, rows in them: 2, all kept"
    )


@pytest.mark.realdata
def test_on_real_rows_planted_copies_are_found_and_little_else(store: Store, real_rows: dict[str, list[Row]]) -> None:
    """200 long Alpaca rows come back under another source with one word more: all but a few are found."""
    copies: list[Row] = []
    for row in real_rows["alpaca"]:
        question, answer = (m["content"] for m in row["messages"])
        if len(answer.split()) > 60 and len(copies) < 200:
            copies.append(chat(question, f"{answer} Indeed.", context=row["context"]))
    after, result = run_on(store, make_dataset(store, {**real_rows, "copies": copies}), STAGE)
    frame = view(after, "source", "verdict_dedup")
    counts = dict(frame["verdict_dedup"].drop_nulls().value_counts().iter_rows())
    assert 190 <= counts["duplicate:near"] <= 210, result.notes
    assert counts.get("duplicate:exact", 0) <= 10
