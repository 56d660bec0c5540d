"""Whatever the style of the template and the kind of tokenizer: a proven mask, or a refusal by name; no wrong mask."""

import unicodedata
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.record import Message, Record
from tests.train.text.styles import KINDS, STYLES, Style, tokenizer_of
from tests.train.world import record
from train.text.template import Template, encode
from train.text.tokens import Example

CALL = '[{"type": "function", "function": {"name": "look_up", "arguments": {"word": "cat"}}}]'
TOOLS = '[{"type": "function", "function": {"name": "look_up", "description": "a word", "parameters": {}}}]'
REFUSED = {"special_token", "rewritten", "unproven", "no_targets", "dropped"}
"""What may be said of a text that a style cannot carry; never that the template fails, or that a stop is missing."""


@cache
def template_of(style: Style, kind: str) -> Template:
    return Template(tokenizer_of(style, kind), style.name)


def runs(example: Example, template: Template) -> list[str]:
    """Read each run of targets as the tokenizer decodes it."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], example.supervised.astype(np.int8), [0]]))).reshape(-1, 2)
    return [str(template.tokenizer.decode(example.input_ids[a:b].tolist())) for a, b in edges.tolist()]


def expected(one: Record, style: Style) -> list[str]:
    answers = [m.content for m in one.messages if m.role == "assistant" and m.content]
    return [(answer.strip() if style.trims else answer) + style.closing for answer in answers]


def plain(text: str) -> str:
    """A tokenizer with a prefix space drops the space before a first word; some template trims it."""
    return unicodedata.normalize("NFC", text).lstrip()


CONTENT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(lambda t: t.strip() != "")
WORDS = st.lists(
    st.sampled_from(["the cat", "USER:", "[INST]", "###", "<s", "one\n\n", "ASSISTANT:", "é", "猫", "🐈", "</s"]),
    min_size=1,
)
SAID = CONTENT | WORDS.map(" ".join).filter(lambda t: t.strip() != "")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_decoded_targets_are_exactly_the_answers_and_their_stop_tokens(style: Style, kind: str) -> None:
    template = template_of(style, kind)

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.tuples(SAID, SAID), min_size=1, max_size=3), st.none() | SAID)
    def law(exchanges: list[tuple[str, str]], system: str | None) -> None:
        turns = [("system", system)] if system and style.system else []
        for asked, said in exchanges:
            turns += [("user", asked), ("assistant", said)]
        one = record(1, *turns)
        found = encode([one], template, max_tokens=1 << 20, strict=False)
        assert len(found.examples) + len(found.refusals) == 1
        assert {r.reason for r in found.refusals} <= REFUSED
        for example in found.examples:
            assert [plain(run) for run in runs(example, template)] == [plain(text) for text in expected(one, style)]

    law()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_an_ordinary_conversation_is_carried_by_every_style(style: Style, kind: str) -> None:
    system = [("system", "be kind")] if style.system else []
    talk = [
        ("user", "who is the cat?"),
        ("assistant", "Ada,\n\na red cat."),
        ("user", "and?"),
        ("assistant", "she sat"),
    ]
    one, template = record(1, *system, *talk), template_of(style, kind)
    found = encode([one], template, max_tokens=1 << 20)
    assert [plain(run) for run in runs(found.examples[0], template)] == expected(one, style)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("style", [s for s in STYLES if s.tools and s.name != "chatml"], ids=lambda style: style.name)
def test_calls_of_tools_are_targets_where_they_can_be_proven_and_refused_where_they_are_dropped(
    style: Style, kind: str
) -> None:
    turns = (Message("user", "hi"), Message("assistant", "", None, CALL), Message("tool", "5"))
    one = Record("1" * 32, "a", (*turns, Message("assistant", "a pet")), TOOLS)
    template = template_of(style, kind)
    found = encode([one], template, max_tokens=1 << 20, strict=False)
    if style.name != "mistral 3":  # shows no tools
        assert [r.reason for r in found.refusals] == ["dropped"]
        return
    *calls, answer = runs(found.examples[0], template)
    assert answer.strip() == "a pet</s>"
    if kind == "prefix space":  # decoding puts a space after [TOOL_CALLS] that the text has not: read, and no target
        assert not calls
        return
    (call,) = calls
    assert call.strip().startswith("[TOOL_CALLS]")
    assert '"name": "look_up"' in call
    assert call.endswith("]</s>")


@pytest.mark.parametrize("style", [s for s in STYLES if not s.system], ids=lambda style: style.name)
def test_a_style_without_system_turns_refuses_one_by_name(style: Style) -> None:
    one = record(1, ("system", "be kind"), ("user", "hi"), ("assistant", "there"))
    found = encode([one], template_of(style, KINDS[0]), max_tokens=1 << 20, strict=False)
    assert [r.reason for r in found.refusals] == ["template_error"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_text_end_of_text_in_an_answer_is_refused_not_taken_for_a_stop(kind: str) -> None:
    vicuna = next(s for s in STYLES if s.name == "vicuna")
    one = record(1, ("user", "hi"), ("assistant", "so</s>USER: forged"))
    found = encode([one], template_of(vicuna, kind), max_tokens=1 << 20)
    assert [r.reason for r in found.refusals] == ["special_token"]


def test_a_thinking_template_that_drops_earlier_thoughts_refuses_them_by_name() -> None:
    strips = STYLES[0].template.replace(
        "message['content'] +",
        "(message['content'] if loop.last else message['content'].split('</think>')[-1]) +",
    )
    template = Template(tokenizer_of(Style("thinks", strips, "<|im_end|>", STYLES[0].special), KINDS[0]), "thinks")
    thought = "<think>hm</think>yes"
    late = record(1, ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", thought))
    early = record(2, ("user", "a"), ("assistant", thought), ("user", "c"), ("assistant", "d"))
    found = encode([late, early], template, max_tokens=1 << 20)
    assert [r.reason for r in found.refusals] == ["rewritten"]
    assert runs(found.examples[0], template) == ["b<|im_end|>", thought + "<|im_end|>"]


# the template for tokenizers that have none ---------------------------------------------------------------------------


def default_of(kind: str) -> Template:
    tokenizer = tokenizer_of(STYLES[0], kind)
    tokenizer.chat_template = None
    return Template(tokenizer, "base")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("said", ["", "wait"])
@pytest.mark.parametrize("system", [(), (Message("system", "be kind"),)])
def test_the_default_template_shows_tools_and_supervises_calls(kind: str, said: str, system: Any) -> None:
    turns = (Message("user", "hi"), Message("assistant", said, None, CALL), Message("tool", "5"))
    one = Record("1" * 32, "a", (*system, *turns, Message("assistant", "a pet")), TOOLS)
    template = default_of(kind)
    text = template.render(one)
    assert text.count("<tools>") == 1
    assert text.count("<|im_start|>system") == 1
    call, answer = runs(encode([one], template, max_tokens=1 << 20).examples[0], template)
    assert '<tool_call>\n{"name": "look_up", "arguments": {"word": "cat"}}\n</tool_call>' in call
    assert call.strip().startswith(said or "<tool_call>")
    assert call.endswith("<|im_end|>")
    assert answer.strip() == "a pet<|im_end|>"


def test_arguments_that_are_json_text_already_are_not_quoted_again() -> None:
    calls = '[{"function": {"name": "look_up", "arguments": "{\\"word\\": \\"cat\\"}"}}, {"name": "stop"}]'
    one = Record("1" * 32, "a", (Message("user", "hi"), Message("assistant", "", None, calls)))
    text = default_of(KINDS[0]).render(one)
    assert '{"name": "look_up", "arguments": {"word": "cat"}}\n</tool_call>\n<tool_call>\n{"name": "stop"' in text


def test_an_answer_that_the_tokenizer_changes_condemns_its_record_alone() -> None:
    """A sentencepiece vocabulary reads ▁ as a blank: such a record is refused, and the run goes on."""
    template = Template(tokenizer_of(STYLES[1], "prefix space"), "test")
    said = ("a cat", "bars: ▁▂▃", "a mat")
    records = [
        Record(f"{i:032x}", "test", (Message("user", "the cat"), Message("assistant", text)))
        for i, text in enumerate(said)
    ]
    found = encode(records, template, max_tokens=512)  # strict: what condemns the template would raise
    assert [example.id for example in found.examples] == [records[0].id, records[2].id]
    (refusal,) = found.refusals
    assert refusal.reason == "rewritten"
    assert "▁" in refusal.detail


HALF = r'[{"function": {"name": "f", "arguments": {"word": "\ud83d"}}}]'


@pytest.mark.parametrize("tools", [HALF, '[{"function": "f"}]', '[{"function": null}]', '["f"]', "null", "5", "{}"])
def test_tools_and_calls_that_are_none_end_no_run_with_a_traceback(tools: str) -> None:
    """JSON that is no list of tools, or spells half a letter: each record is an example or a refusal."""
    for style in STYLES:
        if not style.tools:
            continue
        for template in (
            Template(tokenizer_of(style, "byte-level"), "test"),
            Template(_without_template(style), "test"),
        ):
            records = [
                Record("a" * 32, "test", (Message("user", "cat"), Message("assistant", "mat")), tools=tools),
                *(
                    Record(name * 32, "test", (Message("user", "cat"), Message("assistant", said, None, tools)))
                    for name, said in (("b", "mat"), ("c", ""))
                ),
            ]
            found = encode(records, template, max_tokens=512, strict=False)
            assert len(found.examples) + len(found.refusals) == 3
            if tools == HALF:
                assert not any("\ud83d" in refusal.detail for refusal in found.refusals)


def _without_template(style: Style) -> Any:
    tokenizer = tokenizer_of(style, "byte-level")
    tokenizer.chat_template = None
    return tokenizer
