"""What a record says is text in a page, whatever it is."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.report.text import HIDDEN, LONG_TEXT, MOST_CHARACTERS, folded, pieces_shown, plain, shown

BIDI = [
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
    0x200E,
    0x200F,
    0x61C,
    0x00,
    0x1B,
    0x7F,
    0xFEFF,
    0xE0041,
    0xE0100,
    0x3164,
    0x34F,
    0xFFFE,
]


@pytest.mark.parametrize("point", BIDI)
def test_a_character_that_steers_the_display_is_named_and_not_passed_on(point: int) -> None:
    for made in (shown, folded, plain, lambda text: pieces_shown([("removed", text)])):
        text = made(f"a{chr(point)}b")
        assert chr(point) not in text
        assert f"U+{point:04X}" in text


@given(st.text(st.characters()))
def test_no_hidden_character_and_no_markup_of_a_record_comes_through(text: str) -> None:
    out = str(shown(text)) + str(pieces_shown([("same", text), ("removed", text), ("added", text)]))
    assert not re.search(HIDDEN, out)
    assert set(re.findall(r"</?(\w+)", out)) <= {"span", "del", "ins", "details", "summary"}


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"])))
def test_a_text_without_hidden_characters_is_there_letter_by_letter(text: str) -> None:
    text = re.sub(HIDDEN, "", text)
    assert shown(text).unescape() == text
    assert plain(text) == text


def test_markup_is_shown_as_text() -> None:
    assert shown('<b>"&') == "&lt;b&gt;&#34;&amp;"


def test_a_run_of_one_character_is_one_mark() -> None:
    assert plain("\x00" * 1000) == "[U+0000 ×1000]"


def test_joiners_of_emoji_and_persian_stay_in_a_text_and_are_marked_where_they_change() -> None:
    assert shown("\u200d") == "\u200d"
    assert "U+200D" in pieces_shown([("removed", "\u200d")])


def test_a_change_of_blanks_alone_can_be_seen() -> None:
    out = pieces_shown([("removed", "  "), ("added", " \n")])
    assert out.count("·") == 3
    assert "↵" in out


def test_a_long_text_folds_away_and_a_short_one_does_not() -> None:
    assert "<details" not in folded("word " * (LONG_TEXT // 5))
    long = folded("word " * LONG_TEXT)
    assert "<details" in long
    assert long.count("word") == LONG_TEXT, "all of it is there"


def test_what_is_the_same_folds_away_on_the_far_side_of_a_change() -> None:
    same = "".join(f"word{n} " for n in range(200))
    out = pieces_shown([("same", same), ("removed", "a"), ("added", "b"), ("same", same)])
    assert (
        out.index("<details")
        < out.index("word0 ")
        < out.index("</details>")
        < out.index("word199 ")
        < out.index("<del>")
    )
    assert out.count("<details") == 2


def test_a_text_of_a_book_is_cut_and_says_so() -> None:
    out = pieces_shown([("removed", "x" * (MOST_CHARACTERS + 500))])
    assert len(out) < MOST_CHARACTERS + 200
    assert "500 more characters, not in this page" in out


def test_every_format_character_of_unicode_but_the_shaping_ones_is_marked() -> None:
    formats = {chr(n) for n in range(0x110000) if unicodedata.category(chr(n)) == "Cf"}
    passed = {c for c in formats if not re.fullmatch(HIDDEN, c)}
    names = {unicodedata.name(c, "") for c in passed}
    assert {"ZERO WIDTH JOINER", "ZERO WIDTH NON-JOINER"} <= names
    assert not [name for name in names if any(word in name for word in ("OVERRIDE", "EMBEDDING", "ISOLATE", "LEFT-TO"))]
