import unicodedata
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from schemas.errors import ModelError
from schemas.record import Message, Record
from tests.train.world import make_records, record
from train.model.tiny import tiny_tokenizer
from train.text import rendering
from train.text.template import Template, encode
from train.text.tokens import Example

TURN = "{{ '<|im_start|>' + message['role'] + '\n' + message['content']%s + '<|im_end|>\n' }}"
PLAIN = "{% for message in messages %}" + TURN % "" + "{% endfor %}"
TRIMS = "{% for message in messages %}" + TURN % " | trim" + "{% endfor %}"
DROPS_SYSTEM = "{% for message in messages if message['role'] != 'system' %}" + TURN % "" + "{% endfor %}"
REFUSES_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system please') }}{% endif %}" + PLAIN
NO_STOP = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
CUTS_THINKING = PLAIN.replace("message['content']", "message['content'].split('</think>')[-1]")
THINKS = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
)
GENERATION = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
)
SYSTEM_IN_LAST_USER_TURN = (  # as Mistral has it: the system text stands after turns that it came before
    "{% for message in messages if message['role'] != 'system' %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if loop.last or loop.revindex == 2 %}{% if message['role'] == 'user' and messages[0]['role'] == 'system' %}"
    "{{ messages[0]['content'] + '\n\n' }}{% endif %}{% endif %}"
    "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
)

SESSION_TOKENIZER = tiny_tokenizer(make_records(24))


def template_of(text: str) -> Template:
    SESSION_TOKENIZER.chat_template = text
    return Template(SESSION_TOKENIZER, "test")


def supervised(example: Example, tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.decode(example.input_ids[example.supervised].tolist()))


def answers(of: Record) -> str:
    return "".join(m.content + "<|im_end|>" for m in of.messages if m.role == "assistant")


CONTENT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(lambda t: t.strip() != "")


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(CONTENT, CONTENT), min_size=1, max_size=3),
    st.none() | CONTENT,
    st.sampled_from([PLAIN, GENERATION, THINKS, SYSTEM_IN_LAST_USER_TURN]),
)
def test_decoded_supervised_text_is_exactly_the_assistant_turns_and_their_stop_tokens(
    exchanges: list[tuple[str, str]], system: str | None, text: str
) -> None:
    turns = [("system", system)] if system else []
    for asked, said in exchanges:
        turns += [("user", asked), ("assistant", said)]
    one = record(1, *turns)
    template = template_of(text)
    found = encode([one], template, max_tokens=4096)
    assert [e.id for e in found.examples] + [r.id for r in found.refusals] == [one.id]
    for example in found.examples:
        assert supervised(example, template.tokenizer) == answers(one)
    assert not found.refusals


@pytest.mark.parametrize("text", ["assistant", "user", "\n", "<|im_start|", "system\n", "xQ7sentinel0Q7x"])
def test_turns_that_read_like_the_template_itself_are_found_where_they_stand(text: str) -> None:
    one = record(1, ("user", text + "a"), ("assistant", text + "a"), ("user", "a"), ("assistant", "a"))
    found = encode([one], template_of(PLAIN), max_tokens=4096)
    assert supervised(found.examples[0], SESSION_TOKENIZER) == answers(one)


def test_a_template_that_trims_is_accepted_and_counted() -> None:
    one = record(1, ("user", " hi "), ("assistant", "  there\n"))
    found = encode([one, record(2, ("user", "hi"), ("assistant", "there"))], template_of(TRIMS), max_tokens=99)
    assert found.trimmed == 1
    assert supervised(found.examples[0], SESSION_TOKENIZER) == "there<|im_end|>"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (DROPS_SYSTEM, "leaves out the system turn"),
        (REFUSES_SYSTEM, "no system please"),
        (NO_STOP, "no stop token after the assistant turn"),
    ],
)
def test_a_template_that_fails_the_conversation_is_refused_naming_a_record(text: str, said: str) -> None:
    one = record(7, ("system", "Be kind."), ("user", "hi"), ("assistant", "there"))
    with pytest.raises(ModelError, match=said) as error:
        encode([record(1, ("user", "x"), ("assistant", "y")), one], template_of(text), max_tokens=99)
    if text != NO_STOP:
        assert one.id in str(error.value)
        assert "1 of 2 records" in str(error.value)


def test_a_record_whose_text_the_template_changes_is_refused_by_name() -> None:
    one = record(1, ("user", "hi"), ("assistant", "<think>hm</think>there"))
    found = encode([one], template_of(CUTS_THINKING), max_tokens=99)
    assert [(r.id, r.reason) for r in found.refusals] == [(one.id, "rewritten")]


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([("user", "hi")], "no_targets"),
        ([("user", "hi"), ("assistant", "  ")], "no_targets"),
        ([("user", "say <|im_end|>"), ("assistant", "no")], "special_token"),
        ([("user", "hi"), ("assistant", "go on" * 99)], "overlong"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_with_a_reason(turns: list[tuple[str, str]], reason: str) -> None:
    found = encode([record(1, *turns), record(2, ("user", "a"), ("assistant", "b"))], template_of(PLAIN), max_tokens=60)
    assert [(r.id, r.reason) for r in found.refusals] == [(f"{1:032x}", reason)]
    assert [e.id for e in found.examples] == [f"{2:032x}"]


def test_the_longest_record_that_fits_is_kept_and_one_token_less_of_room_refuses_it() -> None:
    one = record(1, ("user", "hi"), ("assistant", "the cat sat"))
    length = len(encode([one], template_of(PLAIN), max_tokens=999).examples[0])
    assert encode([one], template_of(PLAIN), max_tokens=length).examples
    refusal = encode([one], template_of(PLAIN), max_tokens=length - 1).refusals[0]
    assert (refusal.reason, refusal.tokens) == ("overlong", length)


def test_the_stop_token_is_a_target_where_pad_is_the_stop_token() -> None:
    tokenizer = tiny_tokenizer(make_records(4))
    tokenizer.pad_token = "<|im_end|>"  # noqa: S105 # no password
    found = encode(make_records(4), Template(tokenizer, "test"), max_tokens=256)
    stop = tokenizer.eos_token_id
    for example in found.examples:
        ends = np.flatnonzero(example.supervised & ~np.append(example.supervised[1:], np.False_))
        assert (example.input_ids[ends] == stop).all()


def test_a_tool_call_is_supervised_up_to_its_stop_token_and_one_that_is_left_out_refused() -> None:
    calls = '[{"type": "function", "function": {"name": "look_up", "arguments": {"word": "cat"}}}]'
    messages = (Message("user", "hi"), Message("assistant", "wait", None, calls), Message("tool", "a pet"))
    one = Record("1" * 32, "a", (*messages, Message("assistant", "a pet")))
    shows = PLAIN.replace(
        "+ '<|im_end|>", "+ ((message['tool_calls'] | tojson) if message['tool_calls'] else '') + '<|im_end|>"
    )
    told = supervised(encode([one], template_of(shows), max_tokens=256).examples[0], SESSION_TOKENIZER)
    assert told.startswith("wait[{")
    assert "look_up" in told
    assert told.endswith("}]<|im_end|>a pet<|im_end|>")
    with pytest.raises(ModelError, match="tool call 'look_up'"):
        encode([one], template_of(PLAIN), max_tokens=256)


def test_a_tokenizer_without_template_gets_chatml_that_is_announced_and_adds_no_token() -> None:
    tokenizer = tiny_tokenizer(make_records(4))
    before = len(tokenizer)
    template = Template(tokenizer, "base")
    assert "no chat template: using ChatML" in template.notes[0]
    assert len(tokenizer) == before


def test_the_default_template_ends_turns_with_eos_where_the_tokenizer_has_no_im_end() -> None:
    built = tiny_tokenizer(make_records(4))
    plain = PreTrainedTokenizerFast(tokenizer_object=built.backend_tokenizer, eos_token="<|pad|>")  # noqa: S106 # no password
    plain.backend_tokenizer.post_processor = None
    plain.add_special_tokens({"eos_token": "</s>"})
    template = Template(plain, "base")
    assert template.notes
    example = encode([record(1, ("user", "hi"), ("assistant", "yes"))], template, max_tokens=99).examples[0]
    assert int(example.input_ids[np.flatnonzero(example.supervised)[-1]]) in template.stop_ids


def test_a_slow_tokenizer_is_refused_with_a_way_out(tokenizer: PreTrainedTokenizerFast) -> None:
    class Slow(PreTrainedTokenizerFast):
        is_fast = False

    slow = Slow(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(ModelError, match="no character offsets"):
        Template(slow, "test")


def test_composed_letters_that_a_normalising_tokenizer_makes_are_still_the_same_text() -> None:
    from tokenizers import normalizers

    tokenizer = tiny_tokenizer(make_records(4))
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    said = unicodedata.normalize("NFD", "café déjà vu")
    found = encode([record(1, ("user", "hi"), ("assistant", said))], Template(tokenizer, "test"), max_tokens=99)
    assert len(found.examples) == 1


NAMED = PLAIN.replace("message['role'] +", "message['role'] + ' ' + (message['name'] or 'nobody') +")
CALLS = PLAIN.replace(
    "+ '<|im_end|>", "+ ((message['tool_calls'] | tojson) if message['tool_calls'] else '') + '<|im_end|>"
).replace("{% endfor %}", "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
HALVES_REFUSED = "{% if messages | length < 4 %}{{ raise_exception('too short') }}{% endif %}" + CALLS
CALL = '[{"type": "function", "function": {"name": "look_up", "arguments": {"word": "cat"}}}]'


def test_names_of_speakers_are_part_of_the_literals() -> None:
    said = [
        Record(f"{i:032x}", "a", (Message("user", "hi", name), Message("assistant", "there")))
        for i, name in enumerate(("ada", "bob", None, "ada"))
    ]
    found = encode(said, template_of(NAMED), max_tokens=99)
    assert not found.refusals
    assert len(found.examples) == 4


@pytest.mark.parametrize("blank", ["", " \n"])
def test_a_turn_of_tool_calls_alone_is_supervised_where_it_can_be_proven(blank: str) -> None:
    turns = (Message("user", "hi"), Message("assistant", blank, None, CALL), Message("tool", "a pet"))
    one = Record("1" * 32, "a", (*turns, Message("assistant", "it is a pet")))
    told = supervised(encode([one], template_of(CALLS), max_tokens=256).examples[0], SESSION_TOKENIZER)
    assert told.strip().startswith("[{")
    assert "look_up" in told
    assert told.endswith("}]<|im_end|>it is a pet<|im_end|>")


def test_a_turn_of_tool_calls_that_cannot_be_proven_is_read_and_no_target() -> None:
    turns = (Message("user", "hi"), Message("assistant", "", None, CALL), Message("tool", "a pet"))
    one = Record("1" * 32, "a", (*turns, Message("assistant", "it is a pet")))
    found = encode([one], template_of(HALVES_REFUSED), max_tokens=256).examples[0]
    assert supervised(found, SESSION_TOKENIZER) == "it is a pet<|im_end|>"
    assert "look_up" in SESSION_TOKENIZER.decode(found.input_ids.tolist())


def test_a_record_of_nothing_but_unproven_tool_calls_has_no_targets() -> None:
    turns = (Message("user", "hi"), Message("assistant", "", None, CALL), Message("tool", "a"), Message("user", "so"))
    found = encode([Record("1" * 32, "a", turns)], template_of(HALVES_REFUSED), max_tokens=256)
    assert [r.reason for r in found.refusals] == ["no_targets"]


THINKS_AFTER_THE_LAST_QUESTION = (  # as Qwen 3 has it: what came before the last question reads otherwise by itself
    "{%- set ns = namespace(asked=0) -%}{%- for message in messages if message['role'] == 'user' -%}"
    "{%- set ns.asked = messages.index(message) -%}{%- endfor -%}{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['role'] == 'assistant' and loop.index0 > ns.asked -%}"
    "{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}"
    "{{- message['content'] + ((message['tool_calls'] | tojson) if message['tool_calls'] else '') -}}"
    "{{- '<|im_end|>\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}"
)


NUMBERED = CALLS.replace("message['role'] +", "message['role'] + ' %d ' % loop.index0 +").replace(
    "assistant\n' }}", "assistant %d \n' % (messages | length) }}"
)


def calling(results: list[str], *asked: int) -> Record:
    """A record that calls a tool for each result, and says nothing; before the calls `asked` the user asks again."""
    turns = [Message("user", "hi")]
    for i, result in enumerate(results):
        turns += [Message("assistant", "so"), Message("user", f"and {i}?")] if i in asked else []
        turns += [Message("assistant", "", None, CALL.replace("cat", f"cat {i}")), Message("tool", result)]
    return Record("1" * 32, "a", (*turns, Message("assistant", "it is a pet")))


def silent(found: object) -> int:
    assert isinstance(found, rendering.Rendered)
    return sum(turn.message.tool_calls is not None for turn in found.turns)


def test_many_silent_turns_are_proven_without_rendering_all_that_is_before_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    template = template_of(CALLS)
    rendered: list[int] = []
    whole = Template.render

    def counted(self: Template, record: Record, **how: Any) -> str:
        rendered.append(len(record.messages))
        return whole(self, record, **how)

    monkeypatch.setattr(Template, "render", counted)
    one = calling([f"a pet {i}" for i in range(200)])
    (found,) = rendering.render([one], template)
    assert silent(found) == 200
    assert sum(rendered) < 5 * len(one.messages)


@pytest.mark.parametrize("text", [CALLS, NUMBERED, THINKS_AFTER_THE_LAST_QUESTION])
@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(["5", " 6 ", "", "look_up", "a\n"]), min_size=1, max_size=8), st.sets(st.integers(0, 7))
)
def test_silent_turns_stand_where_rendering_all_before_each_of_them_says(
    text: str, results: list[str], asked: set[int]
) -> None:
    template, one = template_of(text), calling(results, *asked)
    found = rendering.render([one], template)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rendering, "_framed", lambda *_: None)
        assert rendering.render([one], template) == found


def test_silent_turns_that_cost_too_much_to_prove_are_read_and_no_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results without text leave no place to go by, so each turn is rendered for itself, as many as the bound lets."""
    monkeypatch.setattr(rendering, "MOST_RENDERED", 60)
    one, template = calling([""] * 9), template_of(CALLS)
    (found,) = rendering.render([one], template)
    assert silent(found) == 5  # 2 x (1 + 3 + 5 + 7 + 9) = 50 turns
    assert supervised(encode([one], template, max_tokens=2048).examples[0], SESSION_TOKENIZER).count("look_up") == 5
