"""A row as reviewers see it: nothing lost without a mark, nothing that a server refuses, no markup from a row."""

import html
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.review.card import EMPTY, FIELD_CHARACTERS, Asked, View, agent, conversation, flattened, make_card, refused
from curate.review.form import CHAT_CHARACTERS, CHAT_MESSAGES, ROLE_CHARACTERS, Card, Suggestion, as_html
from curate.review.markdown import block, cut, difference, escaped
from curate.review.responses import external_id, named_row
from curate.review.rows import Alike, Edit, Row
from schemas.reasons import REASONS
from schemas.record import Message

VIEW = View(
    reasons=REASONS,
    options=frozenset(REASONS),
    properties=frozenset(
        {"source", "pipeline", "flags", "quality", "judge", "cut", "turns", "words", "chosen", "group"}
    ),
    chosen="random",
    judge="some/judge 7b",
)
ASKED = Asked("drawn by chance")


def row(*said: str, **facts: Any) -> Row:
    """Give a kept row of user and assistant turns."""
    roles = ("user", "assistant")
    messages = tuple(Message(roles[i % 2], text) for i, text in enumerate(said))
    return Row("a" * 32, "b" * 32, "dolly", "dolly.jsonl row 7", messages, None, None, True, None, None, None, facts)


def rejected(reason: str, stage: str, detail: str = "seen", **facts: Any) -> Row:
    return replace(row("Why is that?", "Because."), kept=False, reason=reason, stage=stage, detail=detail, facts=facts)


def suggested(card: Card) -> dict[str, Suggestion]:
    return {s.question: s for s in card.suggestions}


def about(card: Card) -> str:
    text = card.fields["about"]
    assert isinstance(text, str)
    return html.unescape(text)


# limits ---------------------------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(codec="utf-8"), max_size=60) | st.sampled_from(
    ["", " \n", "\0", "<" * 9_000, "x" * 30_000]
)
MESSAGES = st.builds(
    Message,
    st.sampled_from(["system", "user", "assistant", "tool", "", "a very long role, longer than twenty letters", "<b>"]),
    TEXTS,
    st.none() | TEXTS,
    st.none()
    | st.sampled_from(['[{"function": {"name": "f\\ud800", "arguments": "{}"}}]', "no json", "[1, null]", "{}"]),
)


@given(st.lists(MESSAGES, max_size=6), st.dictionaries(st.sampled_from(["quality", "judge", "ifd"]), st.floats()))
def test_law_a_server_takes_every_card(messages: list[Message], numbers: dict[str, float]) -> None:
    """Whatever a row holds: NUL, halves of surrogates, no text, long text, strange roles, numbers that are none."""
    card = make_card(replace(row(), messages=tuple(messages), facts=numbers), ASKED, VIEW)
    assert refused(card) is None
    chat = card.fields["conversation"]
    assert not isinstance(chat, str)
    assert 1 <= len(chat) <= CHAT_MESSAGES
    for role, text in chat:
        assert 1 <= len(role) <= ROLE_CHARACTERS
        assert 1 <= len(as_html(text)) <= CHAT_CHARACTERS
        assert (role + text).encode()


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"conversation": (("user", "x" * (CHAT_CHARACTERS + 1)),)}, "20,001 characters"),
        ({"conversation": (("user", "<" * (CHAT_CHARACTERS // 4 + 1)),)}, "characters"),
        ({"conversation": (("user", ""),)}, "0 characters"),
        ({"conversation": ()}, "0 messages"),
        ({"conversation": (("user", "a\0b"),)}, "cannot be stored"),
        ({"conversation": (("user", "\ud800"),)}, "cannot be stored"),
    ],
)
def test_what_a_server_would_refuse_is_known_before(fields: dict[str, Any], problem: str) -> None:
    assert problem in (refused(Card("x", fields)) or "")
    assert refused(Card("x", {"conversation": (("user", "x" * CHAT_CHARACTERS),)})) is None


def test_numbers_that_are_none_are_refused_and_never_made() -> None:
    assert refused(Card("x", {"conversation": (("user", "a"),)}, {"quality": float("nan")}))
    card = make_card(row("Why?", "So.", quality=float("nan"), judge=float("inf")), ASKED, VIEW)
    assert "quality" not in card.properties
    assert "rating" not in suggested(card)


def test_a_long_answer_is_cut_with_a_mark_and_cannot_be_corrected() -> None:
    """A correction would take the place of the whole answer, also of what nobody saw."""
    card = make_card(row("Go on.", "word " * 6_000), ASKED, VIEW)
    assert "cut here" in card.fields["conversation"][1][1]
    assert "sft why REF " + "a" * 32 in card.fields["conversation"][1][1]
    assert card.properties["cut"] == "answer"
    assert "correction" not in suggested(card)
    assert "cannot be corrected here" in about(card)


def test_a_long_prompt_is_cut_and_the_answer_can_be_corrected() -> None:
    card = make_card(row("word " * 6_000, "Well."), ASKED, VIEW)
    assert card.properties["cut"] == "other"
    assert suggested(card)["correction"].value == "Well."


def test_an_answer_of_just_the_limit_is_shown_whole() -> None:
    card = make_card(row("Go on.", "x" * CHAT_CHARACTERS), ASKED, VIEW)
    assert "cut" not in card.properties
    assert card.fields["conversation"][1][1] == "x" * CHAT_CHARACTERS


def test_as_much_of_a_long_answer_is_shown_as_the_server_takes() -> None:
    """A `&` is sent as five characters: a fifth of the limit has room, less the mark."""
    card = make_card(row("Go on.", "&" * 6_000), ASKED, VIEW)
    text = card.fields["conversation"][1][1]
    assert text.startswith("&" * (CHAT_CHARACTERS // 5 - 200))
    assert refused(card) is None


MANY = tuple(Message("assistant", f"{i} " * 100) for i in range(5_000))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("match", replace(row("q", "a"), alike=(Alike("a duplicate", "dolly", "row 8", True, MANY),))),
        ("edits", replace(row("q", "a"), edits=(Edit("rules", (), tuple(("turn", m.content, "x") for m in MANY)),))),
        ("edits", replace(row("q", "a"), edits=(Edit("normalize", (), (("turn", "a" + " " * 900_000, "a"),)),))),
        ("about", row("q", "a", matches=[{"coverage": 0.5, "eval": "e", "where": "answer", "text": "t"}] * 20_000)),
    ],
)
def test_law_no_field_grows_with_the_row_without_end(name: str, shown: Row) -> None:
    """A hundred records go in one request, and people must be able to open the page."""
    text = make_card(shown, ASKED, VIEW).fields[name]
    assert len(text) < 2 * FIELD_CHARACTERS


def test_what_a_field_has_no_room_for_is_told() -> None:
    shown = replace(row("q", "a"), alike=(Alike("a duplicate", "dolly", "row 8", True, MANY),))
    assert str(make_card(shown, ASKED, VIEW).fields["match"]).endswith(f"sft why REF {'a' * 32}")


def test_an_answer_with_characters_that_cannot_be_shown_cannot_be_corrected() -> None:
    card = make_card(row("Go on.", "a\0b"), ASKED, VIEW)
    assert card.properties["cut"] == "answer"
    assert "correction" not in suggested(card)


def test_of_a_very_long_conversation_the_ends_are_shown() -> None:
    shown = conversation(row(*(str(i) for i in range(1_000))), "sft why REF a")
    assert len(shown.messages) == CHAT_MESSAGES
    assert (shown.messages[0][1], shown.messages[-1][1]) == ("0", "999")
    assert any("501 messages are not shown" in text for _, text in shown.messages)
    assert shown.cut == "other"


def test_a_row_without_messages_or_text_is_shown_as_such() -> None:
    assert conversation(row(), "").messages == (("nobody", "(the row has no messages)"),)
    assert conversation(row("Why?", ""), "").messages[1] == ("assistant", EMPTY)


@given(st.text(max_size=300), st.integers(120, 300))
def test_what_is_cut_has_the_length_that_is_left(text: str, most: int) -> None:
    shown = cut(text, most, "see there")
    assert len(shown) <= most
    assert shown == text or "cut here" in shown


# a row's text is text -------------------------------------------------------------------------------------------------

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![x](http://there.example/x.png)",
    "[x](javascript:alert(1))",
    "`code` ```\nfence",
    "# heading\n- item\n1. one\n> quote\n***\n| a | b |\n|---|---|",
    "http://there.example www.there.example me@there.example",
    "$x^2$ $$y$$ &amp; &lt;b&gt; \\* **bold** ~~gone~~",
]


@given(st.text(max_size=100) | st.sampled_from(HOSTILE))
def test_a_text_in_markdown_has_no_markup_of_its_own(text: str) -> None:
    """Nothing that Markdown reads is left but character references and our own line breaks."""
    left = re.sub(r"&#\d+;|&nbsp;|<br>", "", escaped(text))
    assert not set(left) & set("<>[]*_`~#|\\$&{}!:@/-+=^")
    assert not re.search(r"(?m)^\s*\d+[.)]|(?i:www\.)", left)


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cf"]), max_size=100))
def test_a_text_in_markdown_is_read_back_as_it_was(text: str) -> None:
    shown = html.unescape(escaped(text)).replace("\xa0", " ")
    assert shown == text.replace("\xa0", " ")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_rows_change_nothing_of_the_page(text: str) -> None:
    """Wherever a row's text stands: about, match, edits, a source's name."""
    hostile = replace(
        row("Why?", text, detail_rules=text, flags=["flag:refusal"], judge_reason=text, judge=2.0),
        source=text,
        tools=text,
        category=text,
        alike=(Alike("a duplicate", text, text, True, (Message("user", text), Message(text, text))),),
        edits=(Edit("rules", (text,), ((text, text, text + " more"),)),),
    )
    card = make_card(hostile, Asked(text), VIEW)
    for name in ("about", "match", "edits"):
        field = card.fields[name]
        assert isinstance(field, str)
        own = re.sub(r"</?(?:br|del|ins|strong)>", "", field)
        assert "<" not in own
        assert "](" not in own
        assert "javascript:" not in own


@given(st.text(max_size=100))
def test_a_message_is_shown_as_it_stands(text: str) -> None:
    """The page takes messages for HTML."""
    assert html.unescape(as_html(text)) == html.unescape(as_html(html.unescape(as_html(text))))
    assert not set(as_html(text)) & set("<>")
    assert as_html(text).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") == text


# what is shown --------------------------------------------------------------------------------------------------------


def test_tool_calls_and_results_are_readable() -> None:
    call = '[{"type": "function", "function": {"name": "get_weather", "arguments": "{\\"city\\": \\"Rome\\"}"}}]'
    assert flattened(Message("assistant", "", None, call)) == '[calls get_weather: {"city": "Rome"}]'
    assert flattened(Message("tool", "21", "get_weather")) == "[result of get_weather]\n21"
    assert flattened(Message("assistant", "Wait.", None, "no json")) == "Wait.\n[calls a tool: no json]"


def test_the_card_tells_why_the_pipeline_left_a_row_out() -> None:
    told = about(make_card(rejected("rule:merged_instruction", "rules", '"12. Instruction:"'), ASKED, VIEW))
    assert REASONS["rule:merged_instruction"] in told
    assert "(rule:merged_instruction)" in told
    assert "12. Instruction" in told


def test_the_card_tells_flags_scores_and_who_gave_them() -> None:
    facts = {"flags": ["flag:unfinished"], "quality": 0.31, "judge": 4.5, "judge_reason": "It is right."}
    told = about(make_card(row("Why?", "So.", **facts), Asked("x", standing={"quality": 0.16}), VIEW))
    assert REASONS["flag:unfinished"] in told
    assert "0.31, above 16% of the kept rows" in told
    assert "some/judge 7b: 4.5" in told
    assert "It is right." in told


def test_a_duplicate_is_shown_with_its_match_in_full() -> None:
    match = Alike("a duplicate, Jaccard similarity 0.9", "alpaca", "a.json row 3", True, (Message("user", "Same?"),))
    shown = make_card(replace(rejected("duplicate:near", "dedup"), alike=(match,)), ASKED, VIEW).fields["match"]
    assert "Same?" in html.unescape(str(shown))
    assert "alpaca" in str(shown)


def test_edits_are_shown_word_by_word() -> None:
    edit = Edit("rules", ("fix:mojibake",), (("turn 2, assistant", "It is Ã© here.", "It is é here."),))
    shown = make_card(replace(row("Why?", "It is é here."), edits=(edit,)), ASKED, VIEW).fields["edits"]
    assert "<del>Ã©</del><ins><strong>é</strong></ins>" in str(shown)


def test_a_change_of_blanks_is_seen() -> None:
    assert "⏎" in difference("one\n\ntwo", "one two")
    assert "␣" in difference("one two", "one\n\ntwo")


def test_the_unchanged_text_around_a_change_is_shortened() -> None:
    shown = difference(f"{'same ' * 200}old{' same' * 200}", f"{'same ' * 200}new{' same' * 200}")
    assert len(shown) < 400
    assert "old" in shown
    assert "…" in shown


def test_what_was_redacted_is_not_shown_again() -> None:
    """Neither by the text before, nor by evidence that quotes it."""
    edits = (
        Edit("rules", ("fix:mojibake",), (("turn 2", "Ã© bob@b.example", "é bob@b.example"),)),
        Edit("pii", ("redact:email",), (("turn 2", "é bob@b.example", "é <EMAIL>"),)),
    )
    shown = replace(
        row("Why?", "é <EMAIL>", flags=["flag:short_response"], detail_rules='"é bob@b.example"'), edits=edits
    )
    card = make_card(shown, ASKED, VIEW)
    assert "bob" not in html.unescape(str(card))
    assert REASONS["redact:email"] in html.unescape(str(card.fields["edits"]))


def test_an_empty_text_is_shown_as_such() -> None:
    assert block(" \n") == "*(empty)*"


def test_fields_without_content_are_left_out() -> None:
    assert set(make_card(row("Why?", "So."), ASKED, VIEW).fields) == {"conversation", "about"}


def test_a_record_is_named_by_row_and_text() -> None:
    card = make_card(row("Why?", "So."), ASKED, VIEW)
    assert card.external_id == external_id("a" * 32, "b" * 32)
    assert named_row(card.external_id) == ("a" * 32, "b" * 32)


# what is suggested ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "value", "who", "score"),
    [
        (rejected("rule:empty_response", "rules"), "reject", "sft-rules", None),
        (rejected("duplicate:near", "dedup", jaccard=0.87), "reject", "sft-dedup", 0.87),
        (row("Why?", "So.", quality=0.4), "keep", "sft-signals", 0.4),
        (row("Why?", "So.", quality=0.4, judge=4.0), "keep", "judge:some/judge 7b", 0.75),
        (row("Why?", "So.", quality=0.4, judge=4.0, learned=0.9), "keep", "sft-learned", 0.9),
        (row("Why?", "So."), "keep", "sft", None),
    ],
)
def test_the_verdict_is_suggested_with_its_grounds(shown: Row, value: str, who: str, score: float | None) -> None:
    verdict = suggested(make_card(shown, ASKED, VIEW))["verdict"]
    assert (verdict.value, verdict.agent, verdict.score) == (value, who, score)


def test_how_sure_decontamination_is_is_the_share_of_the_item_that_was_found() -> None:
    match = {"eval": "quiz", "item": "1", "coverage": 0.7, "where": "prompt", "text": "what"}
    card = make_card(rejected("contaminated:eval", "decontaminate", matches=[match]), ASKED, VIEW)
    assert suggested(card)["verdict"].score == 0.7
    assert "70% of an item of quiz" in about(card)


def test_a_budget_suggests_nothing() -> None:
    """That other rows stood above it says nothing about the row itself."""
    assert "verdict" not in suggested(make_card(rejected("select:quota", "select"), ASKED, VIEW))
    assert "verdict" in suggested(make_card(rejected("select:not_in_top", "select"), ASKED, VIEW))


@pytest.mark.parametrize(("judge", "rating"), [(1.0, 1), (2.5, 3), (4.49, 4), (4.5, 5), (5.0, 5)])
def test_the_rating_is_the_judge_s_score_rounded(judge: float, rating: int) -> None:
    assert suggested(make_card(row("Why?", "So.", judge=judge), ASKED, VIEW))["rating"].value == rating


def test_only_issues_that_the_form_offers_are_suggested() -> None:
    """Another label would make the server refuse the record."""
    view = replace(VIEW, options=frozenset({"flag:refusal"}))
    card = make_card(row("Why?", "So.", flags=["flag:refusal", "custom:ours"]), ASKED, view)
    assert suggested(card)["issues"].value == ["flag:refusal"]
    assert "issues" not in suggested(make_card(row("Why?", "So.", flags=["custom:ours"]), ASKED, view))


def test_only_properties_that_the_form_has_are_given() -> None:
    card = make_card(row("Why?", "So.", quality=0.5), ASKED, replace(VIEW, properties=frozenset({"source"})))
    assert card.properties == {"source": "dolly"}


def test_the_last_answer_is_there_to_be_corrected() -> None:
    card = make_card(row("Why?", "First.", "And?", " Last <b>one</b>.\n"), ASKED, VIEW)
    assert suggested(card)["correction"].value == " Last <b>one</b>.\n"


@given(st.text(max_size=300))
def test_a_server_takes_the_name_of_every_agent(name: str) -> None:
    """By the pattern of argilla-server 2.8."""
    pattern = r"[a-zA-Z0-9-_:\.\/\s]*[a-zA-Z0-9][a-zA-Z0-9-_:\.\/\s]*"
    assert re.fullmatch(pattern, agent(name))
    assert len(agent(name)) <= 200


# blind ----------------------------------------------------------------------------------------------------------------

BLIND = replace(VIEW, blind=True, properties=frozenset({*VIEW.properties, "split", "task"}))


def test_law_a_blind_card_tells_nothing_of_what_the_pipeline_thinks() -> None:
    """The same row, kept or left out, praised or flagged, looks the same."""
    plain = row("Why is that?", "Because.")
    match = Alike("a duplicate", "alpaca", "a.json row 3", True, (Message("user", "Same?"),))
    edit = Edit("rules", ("fix:mojibake",), (("turn 2", "a", "b"),))
    facts = {"flags": ["flag:refusal"], "quality": 0.1, "judge": 1.0, "judge_reason": "Bad.", "jaccard": 0.9}
    judged = replace(
        rejected("duplicate:near", "dedup", **facts), alike=(match,), edits=(edit,), messages=plain.messages
    )
    told = Asked("flag:refusal found it", "c" * 32, {"quality": 0.01})
    assert make_card(judged, told, BLIND) == make_card(plain, ASKED, BLIND)
    assert not make_card(plain, ASKED, BLIND).suggestions


def test_a_blind_card_shows_the_other_answers_to_the_prompt() -> None:
    """They are what is to be judged, and say nothing of the pipeline's mind."""
    other = Alike("the same prompt, another answer", "dolly", "d row 2", True, (Message("assistant", "No."),), True)
    assert "No." in str(make_card(replace(row("Why?", "So."), alike=(other,)), ASKED, BLIND).fields["match"])
