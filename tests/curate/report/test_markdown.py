"""Markdown of a diff: it fits a comment, says what the account says, and a row's text stays text."""

import html
import re
from dataclasses import replace

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.diff.account import Account, EditedRow, TextChange
from curate.diff.gate import parse_gate
from curate.report.markdown import MOST_CHARACTERS, SHOWN_EDITS, code, diff_markdown
from tests.curate.diff.versions import shared_account

HOSTILE = (
    "@octocat see #12, 0123456789abcdef and <script>alert(1)</script> ![x](http://a.b/c) | `x` </pre>"
    "\n\n# Title\n\u202eabc"
)


@pytest.fixture(scope="module")
def account() -> Account:
    return shared_account()


def outside_of_code(markdown: str) -> str:
    """What a reader of Markdown may take for markup, a mention or a link: all but code spans, <code> and <pre>."""
    return re.sub(r"<pre>.*?</pre>|<code>.*?</code>|`[^`\n]*`", "", markdown, flags=re.DOTALL)


def edited(texts: tuple[TextChange, ...], *, stage: str = "rules", row: str = "f" * 32) -> EditedRow:
    return EditedRow(row, "lamps:1", "lamps", "edited", stage, ("fix:mojibake",), "text", None, None, texts)


def test_it_begins_with_the_verdict_and_has_every_part(account: Account) -> None:
    text = diff_markdown(account)
    assert text.startswith(
        "### `d@1` → `d@2`: **major** change, a trainer **sees** it\n\n- 20 rows that were kept are gone"
    )
    titles = re.findall(r"^\*\*(.+)\*\*$", text, re.MULTILINE)
    assert titles[:3] == ["Size", "What made the changes", "Rows left out, by reason"]
    assert "Sources" in titles
    assert "<summary>removed: 20 rows</summary>" in text
    assert "| kept rows | 59 | 49 | -10 (-17%) |" in text
    assert text.endswith("`sft diff d@1 d@2 --html diff.html`, or `--json`.\n")


def test_percentages_are_written_as_people_do(account: Account) -> None:
    text = diff_markdown(account)
    assert "| `ferries` | `CC-BY-NC-4.0` | 20 | 0 | -20 (-100%) |" in text
    assert "e+0" not in text


def test_every_line_of_a_table_has_the_cells_of_its_head(account: Account) -> None:
    lines = diff_markdown(account).splitlines()
    for i, line in enumerate(lines):
        if line.startswith("| ") and i and lines[i - 1].startswith("|"):
            assert line.count("|") == lines[i - 1].count("|"), line


def test_a_rows_text_is_neither_markup_nor_mention_nor_link(account: Account) -> None:
    pieces = (("same", HOSTILE), ("removed", HOSTILE), ("added", HOSTILE))
    changes = account.diff.changes.with_columns(
        pl.lit(HOSTILE).alias("after"), by=pl.lit([HOSTILE], pl.List(pl.String))
    )
    bad = replace(
        account,
        edits=(edited((TextChange(f"messages[1] {HOSTILE}", pieces),)),),
        diff=replace(account.diff, changes=changes),
    )
    text = diff_markdown(bad)
    left = outside_of_code(text)
    for mark in ("octocat", "#12", "0123456789abcdef", "script", "http", "Title", "x]"):
        assert mark not in left
    assert "<script" not in text
    assert "\u202e" not in text
    [shown] = re.findall(r"<pre>(.*?)</pre>", text, re.DOTALL)
    assert "\n\n" not in shown, "a blank line would end the block"
    assert "<script>alert(1)</script>" in html.unescape(shown)


@given(st.text(max_size=400))
def test_code_is_one_line_and_shows_the_text(text: str) -> None:
    written = code(text)
    assert len(written.splitlines()) <= 1
    assert outside_of_code(written) == ""
    assert "|" not in written
    assert written.count("`") in (0, 2)


def test_it_fits_whatever_is_in_it_and_names_what_does_not(account: Account) -> None:
    long = tuple(TextChange(f"messages[{i}] user", (("removed", "<" * 5_000),)) for i in range(20))
    rows = tuple(edited(long, stage=stage, row=f"{i:032d}") for stage in ("normalize", "rules") for i in range(10))
    text = diff_markdown(replace(account, edits=rows))
    assert len(text) <= MOST_CHARACTERS
    assert "Left out, as it does not fit: edits by normalize, edits by rules." in text
    assert "<summary>removed: 20 rows</summary>" in text, "what comes later and fits is there"


def test_of_many_edits_some_are_shown_and_all_counted(account: Account) -> None:
    rows = tuple(edited((TextChange("context", (("removed", "N/A"),)),), row=f"{i:032d}") for i in range(40))
    text = diff_markdown(replace(account, edits=rows))
    assert f"<summary>Edits by rules, word by word: {SHOWN_EDITS} of 40</summary>" in text
    assert text.count("<pre>context: <del>N/A</del></pre>") == SHOWN_EDITS


def test_gates_come_first_with_their_rows(account: Account) -> None:
    outcomes = [parse_gate(rule).judge(account) for rule in ("removed(ferries) > 2%", "leaks > 0")]
    text = diff_markdown(account, outcomes)
    assert text.index("**Gates**") < text.index("**Size**")
    assert "| ❌ broken |  | `removed(ferries) > 2%` | `removed 100%` |" in text
    assert "| ✅ kept |  | `leaks > 0` | `leaks 0` |" in text
    assert "20 rows that broke <code>removed(ferries) &gt; 2%</code>" in text


def test_the_same_version_has_a_verdict_and_nothing_else(account: Account) -> None:
    same = replace(account, verdict=replace(account.verdict, same=True, bump=None, sentences=("Nothing differs.",)))
    assert "the same version" in diff_markdown(same)
    assert "**Size**" not in diff_markdown(same)
