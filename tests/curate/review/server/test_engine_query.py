"""The search language: what a query means, and that the patterns for SQL lose nothing."""

import json
import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.review.server.inside.query import (
    ESCAPE,
    MAX_BENDS,
    MAX_CHOICES,
    QueryError,
    fold,
    like,
    parse,
    record_matches,
)
from tests.curate.review.server.engine_reference import says, texts, tokens
from tests.curate.review.server.engine_strategies import FIELDS, fields, queries, rendered, spelled

KINDS = json.dumps(FIELDS)


@pytest.fixture(scope="module")
def sqlite() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    yield connection
    connection.close()


def found(query: str, *, prompt: str = "", chat: tuple[str, ...] = ()) -> bool:
    row = {"prompt": prompt, "chat": [{"role": "assistant", "content": content} for content in chat]}
    return record_matches(query, KINDS, json.dumps(row))


@given(fields(), queries())
def test_a_query_means_what_the_plain_evaluation_says(row: dict[str, object], tree: tuple[object, ...]) -> None:
    seen = texts({"fields": row}, FIELDS, None)
    assert record_matches(rendered(tree), KINDS, json.dumps(row)) == says(tree, seen)


@given(fields(), st.text(max_size=12) | st.text('ab -+|()"*\\', max_size=12))
def test_whatever_is_typed_is_a_query(row: dict[str, object], typed: str) -> None:
    assert record_matches(typed, KINDS, json.dumps(row)) in (True, False)


@given(spelled(), spelled(), st.booleans())
def test_the_pattern_for_sql_holds_for_each_text_that_has_the_word(
    sqlite: sqlite3.Connection, text: str, rest: str, prefix: bool
) -> None:
    """In any spelling, and for the beginning of a word too."""
    for word in tokens(text):
        begun = word[: 1 + len(rest) % len(word)] if prefix else word
        narrow = like(fold(begun), open_ended=prefix)
        stored = json.dumps({"prompt": f"{rest} {text} {rest}"})
        patterns = [(narrow.pattern, ESCAPE), *((other, ESCAPE) for other in narrow.others)]
        hits = [sqlite.execute("SELECT ? LIKE ? ESCAPE ?", (stored, *p)).fetchone()[0] for p in patterns]
        assert any(hits), (begun, stored, narrow)


@pytest.mark.parametrize(
    ("query", "text", "matches"),
    [
        ("cat dog", "a dog, a cat", True),
        ("cat dog", "a cat", False),
        ("cat", "category", False),
        ("cat*", "category", True),
        ("*gory", "category", False),
        ('"big cat"', "a BIG\n cat", True),
        ('"big cat"', "big, cat", False),
        ('"big cat"', "bigcat", False),
        ("cat | dog", "a dog", True),
        ("cat|dog", "a dog", True),
        ("-cat", "a dog", True),
        ("-cat", "a cat", False),
        ("a - cat", "a cat", True),
        ("+cat +dog", "a cat", False),
        ("cat | dog mouse", "cat", False),
        ("cat | (dog mouse)", "cat", True),
        ("(cat | dog) -mouse", "dog mouse", False),
        ("100%", "at 100 %", True),
        ("100%", "at 1000%", False),
        ("%", "nothing", False),
        ("_", "nothing", False),
        ("snake_case", "a SNAKE_CASE b", True),
        ("snakeXcase", "a snake_case b", False),
        ("C++", "in c++.", True),
        ("C++", "in C", False),
        ("don't", "I don't", True),
        ("don't", "I don t", False),
        (r"\"", 'a "quote"', True),
        (r"\"", "a quote", False),
        ('5" pipe', 'a 5" pipe', True),
        (r"\frac", r"\frac{1}{2}", True),
        (r"\-1", "x is -1", True),
        ("🙂", "fine 🙂!", True),
        ("🙂", "fine 🙁!", False),
        ("👩‍👧", "a 👩‍👧 here", True),
        ("学习", "我们学习中文", True),
        ("习学", "我们学习中文", False),
        ("STRASSE", "straße", True),
        ("É", "é", True),
        ("ΣΊΣΥΦΟΣ", "Σίσυφος", True),
        ("привет", "ПРИВЕТ, мир", True),
        ("'; DROP TABLE records; --", "Robert'; DROP TABLE records; --", True),
        ("", "anything", True),
        ('""', "anything", True),
    ],
)
def test_a_query_finds(query: str, text: str, matches: bool) -> None:
    assert found(query, prompt=text) is matches


def test_words_may_stand_in_different_messages_and_a_phrase_may_not() -> None:
    assert found("big cat", chat=("a big", "cat"))
    assert not found('"big cat"', chat=("a big", "cat"))


def test_names_of_fields_and_roles_are_not_searched() -> None:
    assert not any(found(word, prompt="x", chat=("y",)) for word in ("prompt", "role", "assistant", "content"))


def test_an_escaped_newline_is_no_letter() -> None:
    """In the stored JSON a newline before `cat` reads `ncat`."""
    assert found("cat", prompt="a\ncat")
    assert not found("ncat", prompt="a\ncat")


def test_fields_written_by_another_serializer_are_read() -> None:
    assert record_matches("cat", KINDS, '{"extra":12,"prompt":"a cat"}')


def test_what_no_person_types_is_refused_with_a_remedy() -> None:
    assert parse("(" * MAX_BENDS + "a") is not None
    with pytest.raises(QueryError, match="double quotes"):
        parse("(" * (MAX_BENDS + 1) + "a")
    with pytest.raises(QueryError, match="10,001 characters"):
        parse("a" * 10_001)


def test_many_alternatives_and_exclusions_are_refused_and_repetitions_count_once() -> None:
    """Each is looked for in each record: 1,500 of them hold the server up for minutes."""
    words = [f"w{number}" for number in range(MAX_CHOICES + 1)]
    for many in (" | ".join(words), " ".join(f"-{word}" for word in words), f"a (b -{' -'.join(words)})"):
        with pytest.raises(QueryError, match=r"100 alternatives and exclusions; .* double quotes"):
            parse(many)
    assert parse(" | ".join(words[1:])) is not None
    assert parse(" ".join(words * 10)) == parse(" ".join(words))
    assert parse("ru " * 3_000) == parse("ru | " * 1_000 + "ru") == parse("ru")
    assert parse("-ru " * 1_000) == parse("-ru")
