"""Contracts of what differs between two texts of a row."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate import change
from curate.change import changed_texts, texts_by_name, word_diff

TEXTS = st.lists(st.sampled_from(["a", "b", " ", "\n", "\r\n", "word", "é", "\u2028"]), max_size=14).map("".join)


@given(TEXTS, TEXTS, st.sampled_from([0, 4, 30, 10**6]))
def test_law_what_stayed_and_went_is_the_text_before_and_what_stayed_and_came_that_after(
    before: str, after: str, cells: int
) -> None:
    """However little may be compared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(change, "DIFF_CELLS", cells)
        pieces = word_diff(before, after)
    assert "".join(text for what, text in pieces if what != "added") == before
    assert "".join(text for what, text in pieces if what != "removed") == after
    assert all(text for _, text in pieces)


def test_one_word_of_a_long_text_is_a_difference_of_one_word() -> None:
    words = ["word"] * 200_000
    after = [*words[:99_999], "other", *words[100_000:]]
    pieces = word_diff(" ".join(words), " ".join(after))
    assert [(what, text) for what, text in pieces if what != "same"] == [("removed", "word"), ("added", "other")]


def test_where_too_many_words_differ_lines_are_compared_and_else_all_of_it() -> None:
    """The words of both are not compared each with each, which would take hours."""
    lines = [f"{n} one two three" for n in range(900)]
    after = [line.replace("two", "2") if n % 2 else line for n, line in enumerate(lines)]
    assert ("same", "2 one two three\n") in word_diff("\n".join(lines), "\n".join(after))
    long = "word " * 100_000
    assert word_diff(long + "x", "other " + long) == [("removed", long + "x"), ("added", "other " + long)]


def test_words_that_repeat_between_others_are_not_looked_at_again_for_each_match() -> None:
    """A thousand words that have their blanks in common, or every second word, would take a minute."""
    one, other = (" ".join(f"{begin}{n}" for n in range(990)) for begin in "xy")
    assert word_diff(one, other) == [("removed", one), ("added", other)]
    one, other = (" ".join(f"the {begin}{n}" for n in range(490)) for begin in "xy")
    assert word_diff(one, other) == [("removed", one), ("added", other)]
    turns = [(("user", f"{n}"), ("assistant", "Yes.")) for n in range(5_000)]
    before, after = ([("user", begin), *(turn for pair in turns for turn in pair)] for begin in "xy")
    after[2::2] = [("assistant", "No.")] * 5_000
    assert len(list(changed_texts(row(*before), row(*after)))) == 5_001


def row(*turns: tuple[str, str], context: str | None = None) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns], "context": context}


def test_a_turn_that_is_taken_out_changes_none_of_those_after_it() -> None:
    turns = (("user", "Why?"), ("assistant", "So."))
    found = list(changed_texts(row(("system", ""), *turns), row(*turns)))
    assert [(text.turn, text.roles, text.before, text.after) for text in found] == [(0, ("system", ""), "", "")]


def test_turns_that_were_rewritten_are_paired_and_the_context_comes_last() -> None:
    before = row(("human", "Why?"), ("gpt", "So. "), ("human", "And?"), context="x")
    after = row(("user", "Why?"), ("assistant", "So."), ("human", "And?"))
    found = [(text.turn, text.roles, text.before, text.after) for text in changed_texts(before, after)]
    assert found == [
        (0, ("human", "user"), "Why?", "Why?"),
        (1, ("gpt", "assistant"), "So. ", "So."),
        (None, ("", ""), "x", ""),
    ]


def test_equal_rows_have_no_changed_text() -> None:
    assert not list(changed_texts(row(("user", "a"), context="b"), row(("user", "a"), context="b")))


def test_a_role_that_changed_is_named_and_blank_contexts_are_none() -> None:
    one, other = row(("human", "Hi"), ("gpt", "Ho")), row(("user", "Hi"), ("gpt", "Ho"), context="")
    assert list(texts_by_name(one, other)) == [("messages[0].role", "human", "user")]


def test_a_name_and_tool_calls_that_changed_are_given_by_themselves() -> None:
    before, after = row(("user", "Why?"), ("assistant", "So.")), row(("user", "Why?"), ("assistant", "So."))
    before["messages"][1] |= {"name": "ada", "tool_calls": "[1]"}
    after["messages"][1] |= {"name": None, "tool_calls": "[2]"}
    assert list(texts_by_name(before, after)) == [
        ("messages[1].name", "ada", ""),
        ("messages[1].tool_calls", "[1]", "[2]"),
    ]
    assert [(text.turn, text.field, text.roles) for text in changed_texts(before, after)] == [
        (1, "name", ("assistant", "assistant")),
        (1, "tool_calls", ("assistant", "assistant")),
    ]
    taken_out = [(text.field, text.before, text.after) for text in changed_texts(before, row(("user", "Why?")))]
    assert taken_out == [("content", "So.", ""), ("name", "ada", ""), ("tool_calls", "[1]", "")]
