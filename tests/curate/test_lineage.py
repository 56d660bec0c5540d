"""Contracts of the difference that is shown of two texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate import lineage
from curate.lineage import word_diff

TEXTS = st.lists(st.sampled_from(["a", "b", " ", "\n", "\r\n", "word", "é", "\u2028"]), max_size=14).map("".join)


@given(TEXTS, TEXTS, st.sampled_from([0, 4, 30, 10**6]))
def test_law_what_stayed_and_went_is_the_text_before_and_what_stayed_and_came_that_after(
    before: str, after: str, cells: int
) -> None:
    """However little may be compared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lineage, "DIFF_CELLS", cells)
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
