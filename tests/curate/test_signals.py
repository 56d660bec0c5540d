"""Contracts of the signals: what each number counts, and how the quality follows from them."""

import math
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import curate.signals
from curate.signals import STAGE, repetition
from curate.store import Store
from schemas.config import SignalsConfig
from schemas.stages import ANNOTATION_COLUMNS
from tests.curate.conftest import Apply, chat, make_dataset, view

COLUMNS = list(ANNOTATION_COLUMNS["signals"])


def measured(store: Store, apply: Apply, *rows: dict[str, Any], config: SignalsConfig | None = None) -> pl.DataFrame:
    after, _ = apply(make_dataset(store, {"a": list(rows)}), STAGE, config)
    return view(after, "verdict_signals", "detail_signals", *COLUMNS)


def naive_repetition(text: str) -> float:
    raw = text.encode()
    pieces = [raw[i : i + 10] for i in range(len(raw) - 9)]
    return 1 - len(set(pieces)) / len(pieces) if pieces else 0.0


def test_counts_are_words_turns_and_shares(store: Store, apply: Apply) -> None:
    (row,) = measured(store, apply, chat("Say it twice.", "Hello, hello! 12", context="two words")).rows(named=True)
    assert (row["prompt_words"], row["response_words"], row["turns"]) == (5, 3, 2)
    assert row["alphanumeric"] == pytest.approx(12 / 14)  # the blanks do not count
    assert row["distinct_words"] == pytest.approx(1.0)
    assert row["repetition"] == 0


def test_signals_never_reject_and_rows_that_are_not_kept_have_none(store: Store, apply: Apply) -> None:
    frame = measured(store, apply, chat("a", ""), chat("a", "b", broken="ingest:wrong_type"))
    assert frame["verdict_signals"].null_count() == 2
    assert frame["quality"].to_list() == [0.0, None]
    assert frame.select(COLUMNS).row(1) == (None,) * len(COLUMNS)


def test_all_signals_are_float32_but_language_and_task(store: Store, apply: Apply) -> None:
    dtypes = measured(store, apply, chat("a", "b")).select(COLUMNS).schema
    assert {name for name, dtype in dtypes.items() if dtype != pl.Float32} == {"language", "task"}


def test_language_is_that_of_the_answer_and_task_what_the_prompt_asks_for(store: Store, apply: Apply) -> None:
    rows = [
        chat("Translate into French: I have been waiting for you.", "Je suis là et je vous attends depuis une heure."),
        chat("Write a Python function that adds two numbers.", "def add(a, b):\n    return a + b"),
        chat("What is a fjord?", "It is a long and narrow inlet of the sea.", category="summarization"),
    ]
    frame = measured(store, apply, *rows)
    assert frame["language"].to_list() == ["fr", None, "en"]
    assert frame["task"].to_list() == ["rewriting", "coding", "summarising"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.sampled_from("ab é漢"), max_size=40), max_size=5))
def test_repetition_is_the_share_of_pieces_that_stood_before(texts: list[str]) -> None:
    expected = [naive_repetition(text) for text in texts]
    assert repetition(pl.Series(texts, dtype=pl.String)).to_list() == pytest.approx(expected, abs=1e-6)


def test_repetition_is_the_same_however_texts_fall_into_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = pl.Series(["abc " * 20, "", "no repeats here at all", None, "x" * 500] * 3)
    whole = repetition(texts)
    monkeypatch.setattr(curate.signals, "CHUNK_BYTES", 64)
    assert repetition(texts).equals(whole)


def test_quality_follows_its_formula(store: Store, apply: Apply) -> None:
    text = "Plain words without any loop"
    (row,) = measured(store, apply, chat("Say something.", text)).rows(named=True)
    assert row["quality"] == pytest.approx(math.log1p(5) / math.log1p(80), rel=1e-5)


def test_quality_is_0_for_loops_and_for_symbols_and_grows_with_length(store: Store, apply: Apply) -> None:
    words = " ".join(f"word{i}" for i in range(90))
    rows = [
        chat("a", text)
        for text in ("ha " * 200, "#### !!! ----", "Yes", "Seven different words stand in this line", words)
    ]
    quality = measured(store, apply, *rows)["quality"].to_list()
    assert quality[:2] == [0, 0]
    assert quality[2:] == sorted(quality[2:])
    assert quality[2] > 0


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_quality_lies_between_0_and_1(text: str) -> None:
    from curate.signals import measures, quality

    row = chat("q", text)
    frame = pl.DataFrame(
        {"messages": [row["messages"]], "context": pl.Series([None], dtype=pl.String), "answer": [text]}
    )
    frame = frame.with_columns(**measures(pl.col("answer"))).with_columns(repetition=repetition(frame["answer"]))
    (value,) = frame.select(quality(SignalsConfig())).to_series().to_list()
    assert 0 <= value <= 1


def test_tool_calls_count_as_what_is_said(store: Store, apply: Apply) -> None:
    row = chat("Weather?", "")
    row["messages"][1]["tool_calls"] = '[{"name": "weather", "arguments": {"city": "Leeds"}}]'
    assert measured(store, apply, row)["quality"][0] > 0


@pytest.mark.realdata
def test_on_real_rows_the_numbers_are_those_of_the_data(
    store: Store, apply: Apply, real_rows: dict[str, list[dict[str, Any]]]
) -> None:
    """Median output of the Alpaca sample: 31 words."""
    after, _ = apply(make_dataset(store, {"alpaca": real_rows["alpaca"]}), STAGE)
    frame = view(after, "response_words", "quality")
    assert 29 <= frame["response_words"].median() <= 33
    assert frame["quality"].is_between(0, 1).all()
    assert 0.5 < frame["quality"].median() < 0.9
