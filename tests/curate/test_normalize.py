"""Contracts of normalize: what it rewrites, what it leaves alone, and that once is enough."""

import tempfile
import unicodedata
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.normalize import STAGE, candidates, normalize_row, normalize_text
from curate.store import Store
from schemas.config import NormalizeConfig
from schemas.record import MESSAGE, content_hash
from schemas.stages import STAGES
from tests.curate.conftest import Apply, chat, make_dataset, run_on, turns, view

CONFIG = NormalizeConfig()

TEXTS = st.text(
    st.one_of(
        st.characters(codec="utf-8"),
        st.sampled_from(
            "ab \t\n\r\v\f\x00\x1b\x85\xa0\xad\u0301\u0323\u093f\u094d\u0e01\u1100\u1161\u200b\u200c\u200d"
        ),
        st.sampled_from("\u2028\u2029\u2060\u212b\u3000\ufb01\ufeff\U0001f468\U0001f469\U0001d15e"),
    ),
    max_size=12,
)


def one_row(messages: list[dict[str, Any]], context: str | None) -> pl.DataFrame:
    schema = {"row": pl.UInt32, "messages": pl.List(MESSAGE), "context": pl.String}
    return pl.DataFrame([{"row": 0, "messages": messages, "context": context}], schema=schema)


def clean(text: str, **settings: bool) -> str:
    return normalize_text(text, NormalizeConfig(**settings), set())


@pytest.mark.parametrize(
    ("before", "after", "edit"),
    [
        ("cafe\u0301", "café", "edit:nfc"),
        ("\u212bngstro\u0308m", "Ångström", "edit:nfc"),
        ("a\r\nb\rc", "a\nb\nc", "edit:line_ends"),
        ("a\u2028b\u2029c\x85d\fe\vf", "a\nb\nc\nd\ne\nf", "edit:line_ends"),
        ("a\x00b\x1bc\x7fd\x9fe", "abcde", "edit:control_characters"),
        ("\ufeffhello so\u00adft\u2060", "hello soft", "edit:control_characters"),
        ("one\u200bword", "oneword", "edit:control_characters"),
        ("end\u200d stop\u200c", "end stop", "edit:control_characters"),
        ("  \n\n\thello \u3000\n", "hello", "edit:surrounding_blanks"),
    ],
)
def test_each_edit_does_what_its_name_says(before: str, after: str, edit: str) -> None:
    edits: set[str] = set()
    assert normalize_text(before, CONFIG, edits) == after
    assert edit in edits
    assert candidates(one_row(chat(before)["messages"], None)).height == 1
    assert candidates(one_row([], before)).height == 1


@pytest.mark.parametrize(
    "text",
    [
        "plain text, with\ttabs\n\nand lines",
        "می\u200cخواهم",  # Persian: without the joiner the word is spelled wrong
        "क्\u200d",  # a Hindi half letter, at the end of a word
        "👨\u200d👩\u200d👧",  # a family is one emoji
        "❤\ufe0f\u200d🔥",
        "ภาษา\u200bไทย",  # Thai words are separated by a space of no width
        "\u200fعربي",  # direction marks have a meaning
        "    def f():\n        return 1",  # the indentation of code is shared by its lines
        "x = 'ﬁ' ≠ ½",  # compatibility characters stay: NFC is not NFKC
    ],
)
def test_what_has_a_meaning_stays(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize("name", ["nfc", "line_ends", "control_characters", "surrounding_blanks"])
def test_an_edit_that_is_switched_off_does_not_happen(name: str) -> None:
    text = " cafe\u0301\r\n\x00x\u00ad "
    edits: set[str] = set()
    normalize_text(text, NormalizeConfig(**{name: False}), edits)
    assert f"edit:{name}" not in edits
    assert len(edits) == 3


@pytest.mark.parametrize(
    ("name", "role"), [("human", "user"), ("GPT", "assistant"), (" User ", "user"), ("function", "tool")]
)
def test_other_names_of_roles_become_the_four_known_ones(name: str, role: str) -> None:
    after = normalize_row(turns((name, "hi"))["messages"], None, CONFIG)
    assert after.messages[0]["role"] == role
    assert after.edits == ("edit:role_names",)


def test_an_unknown_role_is_left_for_the_rules() -> None:
    assert normalize_row(turns(("narrator", "hi"))["messages"], None, CONFIG).edits == ()


def test_system_prompts_and_contexts_without_text_are_removed() -> None:
    row = turns(("system", " \n"), ("user", "hi"), ("assistant", "hello"))
    after = normalize_row(row["messages"], "\t", CONFIG)
    assert [m["role"] for m in after.messages] == ["user", "assistant"]
    assert after.context is None
    assert {"edit:empty_system", "edit:empty_context"} <= set(after.edits)


def test_a_context_that_is_the_empty_string_says_that_there_is_none_and_is_no_edit() -> None:
    after = normalize_row(chat("hi", "hello")["messages"], "", CONFIG)
    assert (after.context, after.edits) == ("", ())


def test_empty_turns_of_others_stay_for_the_rules_to_judge() -> None:
    assert len(normalize_row(chat("", "  ")["messages"], None, CONFIG).messages) == 2


@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_normalising_normalised_text_changes_nothing(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    assert unicodedata.is_normalized("NFC", once)


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.lists(st.sampled_from(sorted(NormalizeConfig.model_fields)), unique=True))
def test_normalising_is_idempotent_under_every_configuration(text: str, off: list[str]) -> None:
    config = NormalizeConfig(**dict.fromkeys(off, False))
    once = normalize_text(text, config, set())
    assert normalize_text(once, config, set()) == once


ROLE = st.sampled_from(["user", "assistant", "system", "human", "User", "nobody"])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(ROLE, st.none() | TEXTS), max_size=3), st.none() | TEXTS)
def test_the_fast_search_finds_every_row_that_an_edit_would_change(
    messages: list[tuple[str, str | None]], context: str | None
) -> None:
    row = turns(*messages, context=context)
    if normalize_row(row["messages"], context, CONFIG).edits:
        assert candidates(one_row(row["messages"], context)).height == 1


def test_the_overlay_holds_the_changed_rows_alone_in_full_with_their_log(store: Store, apply: Apply) -> None:
    rows = [chat("hi", "hello"), chat("hi\r\n", "cafe\u0301", context=" x "), chat("yes", "no")]
    dataset = make_dataset(store, {"a": rows})
    after, result = apply(dataset, STAGE)
    (overlay_file,) = [f for f in result.files if f.role == "overlay"]
    (row,) = pl.read_ipc(after.path(overlay_file)).to_dicts()
    assert row["row"] == 1
    assert [m["content"] for m in row["messages"]] == ["hi", "café"]
    assert row["context"] == "x"
    assert row["edits"] == ["edit:nfc", "edit:line_ends", "edit:surrounding_blanks"]
    assert row["before_hash"] == content_hash(rows[1]["messages"], " x ")
    assert row["content_hash"] == content_hash(row["messages"], "x")
    assert view(after, "content_hash")["content_hash"][1] == row["content_hash"]


def test_a_broken_row_is_left_as_it_is(store: Store, apply: Apply) -> None:
    broken: dict[str, Any] = {"messages": None, "extra": "{", "broken": "ingest:broken_json"}
    half = chat(" spaces ", "x", broken="ingest:wrong_type")
    after, result = apply(make_dataset(store, {"a": [broken, half, chat("a", "b")]}), STAGE)
    assert [f.role for f in result.files] == ["annotation"]
    assert view(after, "verdict_normalize", "detail_normalize").null_count().row(0) == (3, 3)


def test_the_overlay_is_the_same_however_rows_are_cut_into_shards(store: Store) -> None:
    rows = [chat(f" {i} ", "x") for i in range(5)]
    views: list[pl.DataFrame] = []
    for shard_rows in (5, 2):
        dataset, _ = run_on(store, make_dataset(store, {"a": rows}, shard_rows=shard_rows), STAGE)
        views.append(view(dataset, "messages", "content_hash"))
    assert views[0].equals(views[1])


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4))
def test_normalize_over_its_own_result_gives_no_overlay(pairs: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        after, _ = run_on(store, make_dataset(store, {"a": [chat(*pair) for pair in pairs]}), STAGE)
        rows = [{"messages": m} for m in view(after, "messages")["messages"].to_list()]
        _, result = run_on(store, make_dataset(store, {"a": rows}), STAGE)
        assert [f.role for f in result.files] == ["annotation"]


@pytest.mark.realdata
def test_on_real_rows_few_change_and_none_is_lost(
    store: Store, apply: Apply, real_rows: dict[str, list[dict[str, Any]]]
) -> None:
    after, result = apply(make_dataset(store, real_rows), STAGE)
    edited = sum(f.rows for f in result.files if f.role == "overlay")
    assert 5 <= edited <= 30
    assert view(after, "kept")["kept"].all()
    assert "normalize" in STAGES


@pytest.mark.parametrize(
    "text", ["caf\u00c3\u00a9", "\u00c3\u0085ngstr\u00f6m", "alien\u00e2\u0080\u0094it", "\u00c3\u00adntimo"]
)
def test_text_whose_bytes_were_misread_is_left_whole_for_the_rules(text: str) -> None:
    """Removing half of a letter's bytes would leave what nobody can read back."""
    assert normalize_text(text, NormalizeConfig(), set()) == text


@pytest.mark.parametrize(
    ("text", "plain"), [("pr\u00e9\u00adparer", "pr\u00e9parer"), ("a\u0085b", "a\nb"), ("a\u0093b", "ab")]
)
def test_what_is_no_misread_byte_is_normalised_as_ever(text: str, plain: str) -> None:
    assert normalize_text(text, NormalizeConfig(), set()) == plain
