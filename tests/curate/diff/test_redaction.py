"""Redaction: what pii took out of a row in one version does not come to light by way of the other."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.change import word_diff
from curate.diff.account import Account, account_of
from curate.diff.attribution import attribute
from curate.diff.changes import compare
from curate.diff.redaction import MASK, mask, masked_pieces, masked_row
from curate.diff.upstream import pair_upstream
from curate.report.markdown import diff_markdown
from curate.report.page import diff_page
from schemas.dataset import Dataset
from tests.rows import dataset_of, messages, question, staged

MAIL, OTHER, CARD = "jane.roe@acme-mail.org", "john.poe@acme-mail.org", "4539 1488 0343 6467"
RULE = '[[rule]]\nname = "port"\nseverity = "reject"\nsentence = "It starts so."\non = "answer"\nmatches = "^Spare"\n'


def rows() -> list[dict[str, Any]]:
    """Secrets in the answer, in the context, in a first turn of two, with blanks to trim; one plain row."""
    return [
        question("Whom do I ask about the quay?", f"Write to {MAIL} about the quay.", key="answer"),
        question("What is on the card?", "Read what is given.", key="context", context=f"The card is {CARD} there."),
        question("Is the lamp lit?", f"It is, says {MAIL} of quay 4.  ", key="trimmed"),
        question(
            f"I am {OTHER} and want a boat. Which of them may I take?", "The blue one, at quay 3.", key="question"
        ),
        question("Who keeps the spare keys?", f"Spare keys are kept by {MAIL}, ask there.", key="spare"),
        question("Who keeps the dog?", "Nobody keeps a dog here.", key="plain"),
    ]


def accounted(before: Dataset, after: Dataset) -> Account:
    return account_of(attribute(pair_upstream(compare(before, after))), samples=20)


def nothing_leaks(account: Account) -> None:
    told = json.dumps(account.to_json(), ensure_ascii=False)
    for written in (told, diff_page(account), diff_markdown(account)):
        for secret in (MAIL, "jane", OTHER, "john", CARD, "0343"):
            assert secret not in written


def plain(root: Path, given: list[dict[str, Any]], name: str = "d") -> Dataset:
    return dataset_of(root, {"s": given}, name=name)


@pytest.mark.parametrize("back", [False, True])
def test_what_one_version_redacted_is_masked_in_the_other(tmp_path: Path, *, back: bool) -> None:
    """Also where an earlier stage edited the row first, and all else that differs stays to be read."""
    before = staged(plain(tmp_path, rows()), "normalize", surrounding_blanks=False)
    after = staged(staged(before, "normalize"), "pii", action="redact")
    account = accounted(*((after, before) if back else (before, after)))
    nothing_leaks(account)
    edits = {row.place: row for row in account.edits}
    assert {place for place, row in edits.items() if row.stage == "normalize"} == {"s:3"}
    assert len(edits) == 5
    was, now = ("added", "removed") if back else ("removed", "added")
    [text] = edits["s:1"].texts
    assert sorted(text.pieces) == sorted(
        [("same", "Write to "), (was, MASK), (now, "<EMAIL>"), ("same", " about the quay.")]
    )
    shown = {row.place: row.turns for row in account.samples["edited"]}
    hidden = "<EMAIL>" if not back else MASK
    assert shown["s:1"] == (
        ("user", "Whom do I ask about the quay?"),
        ("assistant", f"Write to {hidden} about the quay."),
    )


@pytest.mark.parametrize("back", [False, True])
def test_two_versions_that_redacted_other_kinds_hide_what_either_did(tmp_path: Path, *, back: bool) -> None:
    both = [question("And?", f"Write to {MAIL} or pay with {CARD} today.", key="both")]
    mails = staged(plain(tmp_path, both), "pii", action="redact", kinds=("email",))
    cards = staged(mails, "pii", action="redact", kinds=("card",))
    account = accounted(*((cards, mails) if back else (mails, cards)))
    nothing_leaks(account)
    pieces = {piece for row in account.edits for text in row.texts for _, piece in text.pieces}
    assert {"<EMAIL>", "<CARD>"} <= pieces


@pytest.mark.parametrize("back", [False, True])
def test_a_row_that_its_publisher_edited_is_masked_all_the_same(tmp_path: Path, *, back: bool) -> None:
    """Under its key and under another one: what was redacted is hidden with all that the edit changed."""
    redacted = staged(plain(tmp_path, rows()), "pii", action="redact")
    new = rows()
    new[0] = question("Whom do I ask about the quay?", f"Do write to {MAIL} about the quay.", key="answer")
    new[3] = question(
        f"I am {OTHER} and want a boat. Which of them may I have?", "The blue one, at quay 3.", key="question2"
    )
    other = plain(tmp_path, new, "other")
    account = accounted(*((other, redacted) if back else (redacted, other)))
    nothing_leaks(account)
    assert account.verdict.counts["edited_upstream"] == 1


@pytest.mark.parametrize("back", [False, True])
def test_evidence_that_quotes_a_row_is_hidden_where_the_other_version_redacted_it(
    tmp_path: Path, *, back: bool
) -> None:
    """A row that the rules leave out is not looked at by pii: its text, and what a rule quotes of it, are bare."""
    path = tmp_path / "rules.toml"
    path.write_text(RULE.replace("^Spare", "by [a-z.@-]+"))
    kept = staged(plain(tmp_path, rows()), "pii", action="redact")
    out = staged(staged(plain(tmp_path, rows(), "out"), "rules", rules=str(path)), "pii", action="redact")
    assert out.scan(["reject_detail"]).collect()["reject_detail"].drop_nulls().to_list() != []
    account = accounted(*((out, kept) if back else (kept, out)))
    nothing_leaks(account)
    word = "restored" if back else "rejected"
    assert account.verdict.counts[word] == 1
    if not back:
        assert account.diff.changes.filter(word="rejected")["detail"].to_list() == [MASK]


def test_where_nothing_was_redacted_nothing_is_masked(tmp_path: Path) -> None:
    before = staged(plain(tmp_path, rows()), "normalize", surrounding_blanks=False)
    account = accounted(before, staged(staged(before, "normalize"), "pii"))
    assert MASK not in json.dumps(account.to_json())
    assert [text.pieces[-1] for row in account.edits for text in row.texts] == [("removed", "  ")]


def test_names_and_tool_calls_of_a_sample_are_masked_too() -> None:
    said = [*messages(("user", f"Ask {MAIL}."), ("assistant", ""))]
    said[1]["tool_calls"] = json.dumps([{"name": "mail", "arguments": {"to": MAIL}}])
    other = [dict(m) for m in said]
    other[0]["content"], other[1]["tool_calls"] = "Ask <EMAIL>.", other[1]["tool_calls"].replace(MAIL, "<EMAIL>")
    row: dict[str, Any] = {"messages": said, "context": CARD, "extra": MAIL, "reject_detail": MAIL}
    shown = masked_row(row, {"messages": other, "context": "<CARD>"})
    assert MAIL not in str(shown)
    assert (shown["context"], shown["messages"][0]["content"]) == (MASK, f"Ask {MASK}")
    assert row["messages"][0]["content"] == f"Ask {MAIL}."
    assert masked_row({**row, "messages": None}, {"messages": other, "context": None})["messages"] == []


def test_a_mask_leaves_placeholders_and_tells_no_number_of_words() -> None:
    assert mask("a b  c") == mask("a") == MASK
    assert mask(" a <EMAIL_1>, b\n") == f" {MASK} <EMAIL_1>{MASK}\n"
    assert mask("<EMAIL> - <CARD>") == "<EMAIL> - <CARD>"
    assert mask("<JANE>") == MASK


WORDS = st.lists(st.sampled_from(["k4y", "so", "<EMAIL>", " ", "\n", "."]), max_size=12).map("".join)


@given(WORDS, WORDS)
def test_law_no_word_is_shown_that_the_redacted_text_has_not(bare: str, redacted: str) -> None:
    """In both directions; what the redacted version says itself is shown whole."""
    there = masked_pieces(word_diff(bare, redacted), before=False, after=True)
    back = masked_pieces(word_diff(redacted, bare), before=True, after=False)
    for pieces, hidden, shown in ((there, "removed", "added"), (back, "added", "removed")):
        assert "".join(text for kind, text in pieces if kind != hidden) == redacted
        assert {kind for kind, _ in pieces} <= {"same", hidden, shown}
        assert all(MASK in text or text == mask(text) for kind, text in pieces if kind == hidden)
        if "k4y" not in redacted:
            assert not any("k4y" in text for _, text in pieces)
