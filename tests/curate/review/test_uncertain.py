"""Choosing uncertain rows: what is chosen, and that it teaches more than chance (a smaller simulation)."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.review.uncertain import DRAWN, most_uncertain
from tests.curate.review.simulated import exchanges, simulate, spoilt

POOL = spoilt(exchanges(400, 2), "mixed", 0.3, 2)
ROWS = POOL.rows.select("id", "messages", "context")


def with_learned(values: Sequence[float | None]) -> pl.DataFrame:
    return ROWS[: len(values)].with_columns(learned=pl.Series(values, dtype=pl.Float32))


def test_rows_that_get_what_any_row_gets_are_chosen_rather_than_those_the_model_knows() -> None:
    """Two rows in three are sure to be kept or not; the mean is 0.6."""
    rows = with_learned([0.6] * 80 + [0.001, 0.999, 0.999, 0.4, 0.6] * 64)
    chosen = most_uncertain(rows, 20, seed=1)
    middle = set(rows.filter(pl.col("learned").is_between(0.3, 0.7))["id"])
    assert set(chosen.ids) <= middle
    assert "uncertain" in chosen.how


def test_of_many_twins_one_is_asked_about() -> None:
    """Forty rows with the same text, most uncertain of all, and others that are nearly so."""
    twins = [POOL.rows["messages"][0]] * 40
    others = POOL.rows["messages"][1:121].to_list()
    messages = pl.Series(twins + others, dtype=POOL.rows.schema["messages"])
    learned = pl.Series([0.5] * 40 + [0.45] * 120)
    rows = ROWS[:160].with_columns(messages=messages, context=pl.lit(None, pl.String), learned=learned)
    chosen = most_uncertain(rows, 40, seed=3)
    assert sum(one in set(rows["id"][:40]) for one in chosen.ids) <= 2


@pytest.mark.parametrize("rows", [ROWS, with_learned([None] * 400)])
def test_where_nothing_was_learnt_rows_are_drawn_by_chance_and_that_is_said(rows: pl.DataFrame) -> None:
    chosen = most_uncertain(rows, 30, seed=1)
    assert len(set(chosen.ids)) == 30
    assert chosen.how.startswith("at random")
    assert set(chosen.ids) != set(most_uncertain(rows, 30, seed=2).ids)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(0, 60),
    values=st.lists(st.none() | st.floats(0, 1, width=32), max_size=60),
    seed=st.integers(0, 2**32),
    shuffle=st.randoms(use_true_random=False),
)
def test_as_many_as_asked_for_none_twice_whatever_the_order(
    n: int, values: list[float | None], seed: int, shuffle: "np.random.Generator"
) -> None:
    rows = with_learned(values)
    chosen = most_uncertain(rows, n, seed)
    assert len(set(chosen.ids)) == len(chosen.ids) == min(n, rows.height)
    assert set(chosen.ids) <= set(rows["id"])
    order = list(range(rows.height))
    shuffle.shuffle(order)
    assert most_uncertain(rows[order], n, seed) == chosen


def test_rows_without_a_probability_come_after_those_with_one() -> None:
    rows = with_learned([0.4] * 10 + [None] * 90)
    chosen = most_uncertain(rows, 25, seed=1).ids
    assert set(chosen[:10]) == set(rows["id"][:10])


def test_300_uncertain_reviews_teach_more_than_300_by_chance_and_both_more_than_length() -> None:
    """Rows are bad for several reasons; reviewers err in one review of ten. AUC is on rows that nobody reviewed."""
    found = [simulate(spoilt(exchanges(1000, seed), "mixed", 0.25, seed), seed) for seed in range(6)]
    length, by_chance, uncertain = (
        np.mean([getattr(one, name) for one in found]) for name in ("length", "random", "uncertain")
    )
    assert uncertain > by_chance + 0.02
    assert min(by_chance, uncertain) > length + 0.1


def test_texts_are_read_of_the_drawn_rows_alone() -> None:
    """And what is chosen is the same as with all texts at hand."""
    rows = with_learned([i / 300 for i in range(300)])
    asked: list[str] = []

    def texts(ids: pl.Series) -> pl.DataFrame:
        asked.extend(ids)
        return ROWS.filter(pl.col("id").is_in(ids.implode()))

    assert most_uncertain(rows.select("id", "learned"), 10, 1, texts) == most_uncertain(rows, 10, 1)
    assert 0 < len(asked) <= DRAWN * 10
