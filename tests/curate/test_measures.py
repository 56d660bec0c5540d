"""Measures: token counts agree with those of the stage select, histograms hold every value, sources stay apart."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.measures import ALL, BUCKETS, edges, histogram, measure, shares
from curate.tokens import Counter
from schemas.dataset import open_dataset
from tests.rows import dataset_of, question, staged, text_frame

words = st.text(alphabet="añ日 \n", max_size=30)
calls = st.one_of(st.none(), words)
turn = st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), words)
conversations = st.lists(
    st.fixed_dictionaries({"messages": st.lists(turn, max_size=5), "context": calls}), min_size=1, max_size=4
)


@given(conversations, calls)
def test_tokens_are_those_that_select_counts(rows: list[dict[str, Any]], tool_calls: str | None) -> None:
    """Also with tool calls, without a context, and of turns that say nothing."""
    from curate.measures import _estimate  # pyright: ignore[reportPrivateUsage] # the formula itself is the contract

    frame = text_frame(rows, "s")
    calling = pl.element().struct.with_fields(tool_calls=pl.lit(tool_calls, pl.String))
    frame = frame.with_columns(pl.col("messages").list.eval(calling))
    found = frame.select(tokens=_estimate().cast(pl.Int64)).to_series()
    assert found.to_list() == Counter().count(frame).to_list()


def test_only_kept_rows_are_measured_and_edits_count(tmp_path: Path) -> None:
    rows = [
        question("What is lit?", "The third lamp along the quay is lit.", key="plain"),
        question("What is dark?", "", key="empty"),
        question("Say it.", "It is dark here.", context="No input", key="edited"),
    ]
    dataset = staged(dataset_of(tmp_path, {"s": rows}), "rules")
    kept = dataset.scan(["messages", "context", "kept"]).filter("kept").collect()
    found = measure(dataset)
    assert kept.height == 2
    assert found.rows["tokens"].to_list() == Counter().count(kept).to_list()
    assert not found.known("quality")


def test_of_several_edits_of_a_row_the_last_stage_has_the_last_word(tmp_path: Path) -> None:
    mail = "Write to the.keeper.of.all.the.lamps.along.the.quay@harbourmail.net soon."
    dataset = dataset_of(tmp_path, {"s": [question("Whom do I write to?", mail, context="No input", key="a")]})
    dataset = staged(staged(dataset, "rules"), "pii", action="redact")
    assert set(dataset.shards[0].overlays) == {"rules", "pii"}
    seen = dataset.scan(["messages", "context"]).collect()
    assert "@" not in seen["messages"][0][1]["content"]
    assert measure(dataset).rows["tokens"].to_list() == Counter().count(seen).to_list()


def test_a_text_that_two_versions_share_is_counted_once(tmp_path: Path) -> None:
    before = dataset_of(tmp_path, {"s": [question("Is it lit?", "It is.", key="a")]})
    after = staged(before, "signals")
    texts: dict[Path, pl.Series] = {}
    measure(before, texts)
    [counted] = texts.values()
    texts[next(iter(texts))] = counted * 10
    assert measure(after, texts).rows["tokens"].to_list() == (counted * 10).to_list()


def test_sources_are_measured_apart_and_together(tmp_path: Path) -> None:
    rows = {name: [question(f"{name} {i}?", "Yes.", key=str(i)) for i in range(n)] for name, n in (("a", 3), ("b", 2))}
    found = measure(staged(dataset_of(tmp_path, rows), "split"))
    assert found.sources == ["a", "b"]
    assert [found.of(name).height for name in ("a", "b", ALL)] == [3, 2, 5]
    assert sum(rows for rows, _ in found.tokens("split").values()) == 5
    assert found.tokens("source").keys() == {"a", "b"}


numbers = st.lists(
    st.one_of(st.none(), st.integers(0, 100_000).map(float), st.floats(-1e6, 1e6, width=32)), min_size=1, max_size=60
)


@given(numbers, numbers)
def test_common_edges_hold_every_value_of_both(one: list[float | None], other: list[float | None]) -> None:
    both = [pl.Series(values, dtype=pl.Float32) for values in (one, other)]
    at = edges(both)
    assert list(at) == sorted(set(at))
    assert len(at) <= BUCKETS + 2
    for values in both:
        found = histogram(values, at)
        assert sum(found.counts) == found.rows == values.count()
        assert found.unknown == values.null_count()
        assert found.edges == at


def test_few_whole_numbers_have_a_bucket_each_and_far_reaching_ones_growing_buckets() -> None:
    assert edges([pl.Series([2, 4, 3])]) == (2.0, 3.0, 4.0, 5.0)
    assert histogram(pl.Series([2, 4, 4]), (2.0, 3.0, 4.0, 5.0)).counts == (1, 0, 2)
    at = edges([pl.Series([*range(1, 200), 20_000])])
    widths = [b - a for a, b in pairwise(at)]
    assert widths == sorted(widths)
    assert all(edge == int(edge) for edge in at)
    assert edges([pl.Series([0.25, 0.5])])[:2] == (0.0, 1 / BUCKETS)


def test_nothing_known_has_no_edges_and_an_empty_histogram() -> None:
    empty = pl.Series([None, None], dtype=pl.Float32)
    assert edges([empty]) == ()
    found = histogram(empty, ())
    assert (found.counts, found.rows, found.unknown, found.mean, found.quartiles) == ((), 0, 2, None, None)


def test_quartiles_are_of_the_values() -> None:
    found = histogram(pl.Series([1, 2, 3, 4, 5]), (1.0, 6.0))
    assert (found.quartiles, found.mean) == ((2.0, 3.0, 4.0), 3.0)


def test_shares_come_most_frequent_first_and_ties_by_name() -> None:
    found = shares(pl.Series(["b", "a", None, "c", "c"]))
    assert list(found.counts.items()) == [("c", 2), ("a", 1), ("b", 1)]
    assert (found.rows, found.unknown) == (4, 1)


@pytest.mark.realdata
def test_tokens_of_the_real_rows_are_those_that_select_counts(
    tmp_path: Path, real_rows: dict[str, list[dict[str, Any]]]
) -> None:
    plain = [
        {"messages": [(m["role"], m["content"]) for m in row["messages"]], "context": row.get("context"), "key": str(i)}
        for i, row in enumerate(real_rows["dolly"])
    ]
    dataset = dataset_of(tmp_path, {"dolly": plain})
    rows = open_dataset("d", tmp_path).scan(["messages", "context"]).collect()
    assert measure(dataset).rows["tokens"].to_list() == Counter().count(rows).to_list()
