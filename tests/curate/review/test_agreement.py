"""Contracts of agreement: known values of the literature, what is undefined, and the suggestion."""

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.review.agreement import AGREEMENT_COLUMNS, agreement, alpha, masi
from curate.review.responses import Response, ledger_of
from tests.curate.review.said import said

NO = None
FOUR_OBSERVERS = [
    [1, 1, NO, 1],
    [2, 2, 3, 2],
    [3, 3, 3, 3],
    [3, 3, 3, 3],
    [2, 2, 2, 2],
    [1, 2, 3, 4],
    [4, 4, 4, 4],
    [1, 1, 2, 1],
    [2, 2, 2, 2],
    [NO, 5, 5, 5],
    [NO, NO, 1, 1],
    [NO, 3, NO, NO],
]
"""Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", example C: 12 units, gaps."""
TWO_OBSERVERS = [[0, 1], [1, 1], [0, 1], [0, 0], [0, 0], [0, 1], [0, 0], [0, 0], [1, 0], [0, 0]]
"""The same, example A: two observers, two values, no gaps."""


def units(table: list[list[Any]]) -> list[list[Any]]:
    return [[value for value in row if value is not None] for row in table]


def test_alpha_of_the_two_observers_is_that_of_the_literature_and_of_our_own_hand() -> None:
    """Coincidences: 10 of 0-0, 4 each of 0-1 and 1-0, 2 of 1-1; n = 20; alpha = 1 - 19 · 4 / (14 · 6)."""
    assert alpha(TWO_OBSERVERS, "nominal").value == pytest.approx(1 - 19 * 4 / (14 * 6))
    assert alpha(TWO_OBSERVERS, "nominal").value == pytest.approx(0.095, abs=5e-4)


def test_alpha_with_gaps_is_that_of_the_literature() -> None:
    nominal, ordinal = (alpha(units(FOUR_OBSERVERS), level) for level in ("nominal", "ordinal"))
    assert (nominal.value, nominal.texts) == (pytest.approx(0.743, abs=5e-4), 11)
    assert ordinal.value == pytest.approx(0.815, abs=5e-4)


def test_sets_of_one_label_have_the_alpha_of_the_labels() -> None:
    as_sets = [[frozenset([str(v)]) for v in row] for row in units(FOUR_OBSERVERS)]
    assert alpha(as_sets, "sets").value == pytest.approx(0.743, abs=5e-4)


def test_sets_that_overlap_agree_more_than_sets_that_do_not() -> None:
    ab, a, c = frozenset("ab"), frozenset("a"), frozenset("c")
    some, none = (alpha([[a, a], [c, c], [ab, other]], "sets").value for other in (a, c))
    assert some is not None
    assert none is not None
    assert some > none


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        ("", "", 0),
        ("", "a", 1),
        ("a", "b", 1),
        ("ab", "ab", 0),
        ("a", "ab", 1 - 2 / 3 / 2),
        ("ab", "bc", 1 - 1 / 3 / 3),
    ],
)
def test_the_distance_of_sets_is_masi(one: str, other: str, distance: float) -> None:
    assert masi(frozenset(one), frozenset(other)) == masi(frozenset(other), frozenset(one)) == pytest.approx(distance)


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([], "no text was answered by two reviewers"),
        ([["keep"], ["reject"]], "no text was answered by two reviewers"),
        ([["keep", "keep"], ["keep", "keep"], ["reject"]], "every answer is the same"),
    ],
)
def test_what_is_not_defined_is_no_number_and_says_why(answers: list[list[str]], why: str) -> None:
    found = alpha(answers, "nominal")
    assert (found.value, found.undefined) == (None, why)


def test_a_set_of_many_values_over_many_texts_is_measured_on_some_of_them() -> None:
    many = [[frozenset([str(i % 400)])] * 2 for i in range(2_000)]
    found = alpha(many, "sets")
    assert found.value == pytest.approx(1.0)
    assert 0 < found.texts < 2_000


@given(st.lists(st.lists(st.sampled_from(["keep", "fix", "reject"]), max_size=4), max_size=12))
def test_law_alpha_is_at_most_one_and_one_only_where_all_agree(answers: list[list[str]]) -> None:
    found = alpha(answers, "nominal")
    if found.value is not None:
        assert found.value <= 1 + 1e-12
        assert (found.value > 1 - 1e-12) == all(len(set(given)) == 1 for given in answers if len(given) > 1)


def rows(
    found: pl.DataFrame, measure: str, question: str = "verdict"
) -> dict[tuple[str, ...], tuple[float | None, int]]:
    chosen = found.filter((pl.col("measure") == measure) & (pl.col("question") == question))
    return {tuple(r["who"]): (r["value"], r["texts"]) for r in chosen.iter_rows(named=True)}


def text(number: int, *some: Response) -> list[Response]:
    return [said(r.reviewer, r.verdict, **{n: getattr(r, n) for n in MORE}, id=f"{number:032x}") for r in some]


MORE = ("rating", "issues", "suggested", "suggested_by", "status", "review", "updated_at")


def test_agreement_is_told_for_each_question_for_all_and_for_each_pair() -> None:
    found = agreement(
        ledger_of(
            [
                *text(1, said("a", "keep", rating=5), said("b", "keep", rating=5), said("c", "reject", rating=1)),
                *text(2, said("a", "reject", rating=1), said("b", "reject", rating=2)),
                *text(3, said("a", "keep"), said("d", None, status="discarded")),
            ]
        )
    )
    assert found.schema == AGREEMENT_COLUMNS
    verdicts = rows(found, "alpha")
    assert set(verdicts) == {(), ("a", "b"), ("a", "c"), ("b", "c")}
    assert verdicts["a", "b"] == (1.0, 2)
    assert rows(found, "alpha", "rating")["a", "b"][1] == 2
    assert rows(found, "alpha", "issues")[()] == (None, 2)  # nobody named an issue: nothing to compare


def test_the_share_of_suggested_verdicts_is_told_for_all_by_reviewer_and_by_agent() -> None:
    shown = {"suggested": "keep", "suggested_by": "sft-rules"}
    found = agreement(
        ledger_of(
            [
                *text(1, said("a", "keep", **shown), said("b", "reject", **shown)),
                *text(2, said("a", "keep", suggested="keep", suggested_by="judge:x"), said("b", "keep")),
            ]
        )
    )
    assert rows(found, "suggestion") == {
        (): (pytest.approx(2 / 3), 3),
        ("a",): (1.0, 2),
        ("b",): (0.0, 1),
    }
    assert rows(found, "suggestion by") == {("sft-rules",): (0.5, 2), ("judge:x",): (1.0, 1)}


def test_without_suggestions_there_is_no_share_and_the_table_says_why() -> None:
    found = agreement(ledger_of(text(1, said("a", "keep"), said("b", "keep"))))
    assert found.filter(pl.col("measure") == "suggestion")["undefined"].to_list() == ["no verdict was suggested"]


def test_a_reviewer_is_not_compared_with_the_same_person_in_another_review() -> None:
    twice = text(1, said("a", "keep", review="one"), said("a", "reject", review="two", at=1))
    assert rows(agreement(ledger_of(twice)), "alpha") == {(): (None, 0)}
