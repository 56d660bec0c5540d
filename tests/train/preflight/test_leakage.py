"""Every way in which a validation row can be a train row is found, and nothing else is."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.errors import CheckFailedError
from tests.train.world import TEXT
from train.preflight import masks
from train.preflight.leakage import Leakage, find_leakage, hashes
from train.text.template import Template
from train.text.tokens import Example, Tokens

Split = Callable[..., Tokens]

LONG = f"{TEXT}, {TEXT}"
"""An answer of more than 32 tokens."""


def looked(train: Tokens, val: Tokens, template: Template, *clusters: tuple[str, str]) -> Leakage:
    return find_leakage(train, val, template.tokenizer, clusters)


def test_each_kind_is_found_counted_once_and_named(split_of: Split, template: Template) -> None:
    train = split_of(("who is it", "Ada"), ("the red bird", LONG), ("the sea", "a short one"))
    val = split_of(
        ("who is it", "Ada"), ("who is it", "Bob"), ("an old tree", LONG), ("and rain", "a short one"), first=10
    )
    found = looked(train, val, template)
    assert (found.rows, found.conversation, found.prompt, found.answer, found.cluster) == (4, 1, 1, 1, 0)
    assert found.examples["conversation"][0].val == f"{10:032x}"
    assert found.examples["conversation"][0].train == f"{0:032x}"
    assert found.examples["answer"][0].train == f"{1:032x}"
    with pytest.raises(CheckFailedError, match="1 of 4 validation rows are train rows, word for word") as error:
        found.check("split val")
    assert f"{10:032x} of a, which is {0:032x}" in str(error.value)
    assert "--allow-leakage" in str(error.value)


def test_case_and_white_space_make_no_other_row(split_of: Split, template: Template) -> None:
    train = split_of(("Who  is\nit", "the cat  sat"))
    val = split_of(("Who is it ", "the cat sat\n"), first=10)
    assert looked(train, val, template).conversation == 1


def test_the_same_words_in_another_order_are_another_row(split_of: Split, template: Template) -> None:
    train = split_of(("the cat saw the bird", "yes"))
    val = split_of(("the bird saw the cat", "yes"), first=10)
    assert looked(train, val, template).lines() == []


def test_a_word_that_moves_from_prompt_to_answer_makes_another_row(split_of: Split, template: Template) -> None:
    train = split_of(("the cat", "sat on a mat"))
    val = split_of(("the cat sat", "on a mat"), first=10)
    assert looked(train, val, template).conversation == 0


def test_a_prompt_or_an_answer_alone_warns_and_does_not_refuse(split_of: Split, template: Template) -> None:
    found = looked(split_of(("the sea", "one")), split_of(("the sea", "two"), first=10), template)
    found.check("split val")
    assert "have the prompt of a train row" in found.lines()[0]


def test_rows_of_one_near_duplicate_cluster_are_refused(split_of: Split, template: Template) -> None:
    train, val = split_of(("the sea", "one")), split_of(("the old sea", "two"), first=10)
    found = looked(train, val, template, (f"{10:032x}", f"{0:032x}"))
    assert found.cluster == 1
    with pytest.raises(CheckFailedError, match="have near-duplicates among the train rows"):
        found.check("split val")
    refused = (f"{99:032x}", f"{0:032x}")  # a row that was not encoded leaks nothing
    assert looked(train, val, template, refused).leaked == 0


def test_nothing_to_compare_is_no_leak(split_of: Split, template: Template) -> None:
    some, none = split_of(("the sea", "one")), Tokens.of([])
    assert looked(some, none, template).leaked == looked(none, some, template).leaked == 0


WORDS = st.lists(st.integers(0, 3), min_size=2, max_size=8)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(WORDS, st.integers(1, 7)), min_size=1, max_size=8), st.integers(1, 12))
def test_hashes_are_equal_exactly_where_prompt_and_answer_are_however_the_columns_are_cut(
    monkeypatch: pytest.MonkeyPatch, made: list[tuple[list[int], int]], piece: int
) -> None:
    """Whole examples or pieces of a few tokens, end to end or with gaps between them: the same hashes."""
    examples = [
        Example(str(i), "a", 1.0, np.asarray(ids, np.int32), np.arange(len(ids)) >= min(cut, len(ids) - 1))
        for i, (ids, cut) in enumerate(made)
    ]
    classes = np.asarray([-1, 1, 2, 1])  # token 0 is white space, tokens 1 and 3 read alike
    columns = Tokens.of(examples)
    prompts, answers = hashes(columns, classes)

    def words(e: Example, of_answer: bool) -> tuple[int, ...]:
        return tuple(int(classes[i]) for i, t in zip(e.input_ids, e.supervised, strict=True) if t == of_answer and i)

    for i, a in enumerate(examples):
        for j, b in enumerate(examples):
            assert (prompts[i] == prompts[j]) == (words(a, False) == words(b, False))
            assert (answers[i] == answers[j]) == (words(a, True) == words(b, True))
    monkeypatch.setattr(masks, "PIECE_TOKENS", piece)
    again = hashes(columns, classes)
    assert (again[0] == prompts).all()
    assert (again[1] == answers).all()
    odd = np.arange(0, len(examples), 2)
    assert (hashes(columns.chosen(odd), classes)[0] == prompts[odd]).all()


def test_pieces_of_letters_are_told_apart(template: Template) -> None:
    """Byte-level tokens of different letters all decode to the same mark: they must not make two texts one."""
    ids = template.tokenizer("жд", add_special_tokens=False)["input_ids"]
    assert len(ids) == 4
    sea, mountain = (
        Example(name, "a", 1.0, np.asarray(found, np.int32), np.asarray([False, False, True, True]))
        for name, found in (("1", ids), ("2", [ids[2], ids[3], ids[2], ids[3]]))
    )
    assert find_leakage(Tokens.of([sea]), Tokens.of([mountain]), template.tokenizer).lines() == []
