"""Every way in which a validation row can be a train row is found, and nothing else is."""

from collections.abc import Callable

import pytest

from schemas.errors import CheckFailedError
from tests.train.world import TEXT
from train.preflight.leakage import Leakage, find_leakage
from train.text.tokens import Tokens

Split = Callable[..., Tokens]

LONG = f"{TEXT}, {TEXT}"
"""An answer of more than 32 tokens."""


def looked(train: Tokens, val: Tokens, *clusters: tuple[str, str]) -> Leakage:
    return find_leakage(train, val, clusters)


def test_each_kind_is_found_counted_once_and_named(split_of: Split) -> None:
    train = split_of(("who is it", "Ada"), ("the red bird", LONG), ("the sea", "a short one"))
    val = split_of(
        ("who is it", "Ada"), ("who is it", "Bob"), ("an old tree", LONG), ("and rain", "a short one"), first=10
    )
    found = looked(train, val)
    assert (found.rows, found.conversation, found.prompt, found.answer, found.cluster) == (4, 1, 1, 1, 0)
    assert found.examples["conversation"][0].val == f"{10:032x}"
    assert found.examples["conversation"][0].train == f"{0:032x}"
    assert found.examples["answer"][0].train == f"{1:032x}"
    with pytest.raises(CheckFailedError, match="1 of 4 validation rows are train rows, word for word") as error:
        found.check("split val")
    assert f"{10:032x} of a, which is {0:032x}" in str(error.value)
    assert "--allow-leakage" in str(error.value)


def test_case_and_white_space_make_no_other_row(split_of: Split) -> None:
    train = split_of(("Who  is\nit", "the cat  sat"))
    val = split_of(("Who is it ", "the cat sat\n"), first=10)
    assert looked(train, val).conversation == 1


def test_the_same_words_in_another_order_are_another_row(split_of: Split) -> None:
    train = split_of(("the cat saw the bird", "yes"))
    val = split_of(("the bird saw the cat", "yes"), first=10)
    assert looked(train, val).lines() == []


def test_a_word_that_moves_from_prompt_to_answer_makes_another_row(split_of: Split) -> None:
    train = split_of(("the cat", "sat on a mat"))
    val = split_of(("the cat sat", "on a mat"), first=10)
    assert looked(train, val).conversation == 0


def test_a_prompt_or_an_answer_alone_warns_and_does_not_refuse(split_of: Split) -> None:
    found = looked(split_of(("the sea", "one")), split_of(("the sea", "two"), first=10))
    found.check("split val")
    assert "have the prompt of a train row" in found.lines()[0]


def test_rows_of_one_near_duplicate_cluster_are_refused(split_of: Split) -> None:
    train, val = split_of(("the sea", "one")), split_of(("the old sea", "two"), first=10)
    found = looked(train, val, (f"{10:032x}", f"{0:032x}"))
    assert found.cluster == 1
    with pytest.raises(CheckFailedError, match="have near-duplicates among the train rows"):
        found.check("split val")
    refused = (f"{99:032x}", f"{0:032x}")  # a row that was not encoded leaks nothing
    assert looked(train, val, refused).leaked == 0


def test_nothing_to_compare_is_no_leak(split_of: Split) -> None:
    some, none = split_of(("the sea", "one")), Tokens.of([])
    assert looked(some, none).leaked == looked(none, some).leaked == 0
