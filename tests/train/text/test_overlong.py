"""Records that are too long: nothing is trained twice, nothing is lost untold, and no answer is cut."""

from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.record import Message, Record
from tests.train.text.styles import STYLES, tokenizer_of
from tests.train.text.test_styles import runs
from tests.train.world import record
from train.text.template import Encoded, Template, encode
from train.text.tokens import record_id

TOKENIZER = tokenizer_of(STYLES[0], "byte-level")
TOKENIZER.chat_template = None  # the default one, which shows calls of tools
TEMPLATE = Template(TOKENIZER, "test")
ALL = 1 << 20


def encoded(records: list[Record], max_tokens: int, overlong: Literal["reject", "truncate-left", "split"]) -> Encoded:
    return encode(records, TEMPLATE, max_tokens=max_tokens, overlong=overlong)


def length_of(one: Record) -> int:
    return len(encode([one], TEMPLATE, max_tokens=ALL).examples[0])


def talk(*sizes: tuple[int, int], system: bool = True, number: int = 1) -> Record:
    """Exchanges of so many words each, every turn with a number of its own."""
    turns = [("system", "be kind")] if system else []
    for i, (asked, said) in enumerate(sizes):
        turns += [("user", f"q{i} " + "cat " * asked), ("assistant", f"a{i} " + "mat " * said + "end")]
    return record(number, *turns)


def answers(found: Encoded) -> list[str]:
    return [run for example in found.examples for run in runs(example, TEMPLATE)]


SIZES = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=7)


@settings(max_examples=30, deadline=None)
@given(SIZES, st.booleans(), st.integers(20, 120))
def test_split_trains_every_answer_once_or_tells_that_it_does_not(
    sizes: list[tuple[int, int]], system: bool, most: int
) -> None:
    one = talk(*sizes, system=system)
    found = encoded([one], most, "split")
    said = [m.content + "<|im_end|>" for m in one.messages if m.role == "assistant"]
    trained = answers(found)
    assert len(set(trained)) == len(trained)
    assert [a for a in said if a in trained] == trained
    assert all(len(example) <= most for example in found.examples)
    assert {record_id(example.id) for example in found.examples} <= {one.id}
    for example in found.examples:
        text = str(TEMPLATE.tokenizer.decode(example.input_ids.tolist()))
        assert text.startswith(
            "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user" if system else "<|im_start|>user"
        )
    if length_of(one) <= most:
        assert not found.cut
        assert [e.id for e in found.examples] == [one.id]
    elif not len(found.examples):
        assert [(r.id, r.reason) for r in found.refusals] == [(one.id, "overlong")]
    else:
        (told,) = found.cut
        assert (told.id, told.reason, told.tokens) == (one.id, "split", length_of(one))
        assert [e.id for e in found.examples] == [f"{one.id}#{i + 1}" for i in range(len(found.examples))]
        assert ("left out" in told.detail) == (len(trained) < len(said))


@settings(max_examples=30, deadline=None)
@given(SIZES, st.booleans(), st.integers(20, 120))
def test_truncation_keeps_the_most_of_the_latest_exchanges_that_fit(
    sizes: list[tuple[int, int]], system: bool, most: int
) -> None:
    one = talk(*sizes, system=system)
    found = encoded([one], most, "truncate-left")
    said = [m.content + "<|im_end|>" for m in one.messages if m.role == "assistant"]
    head = 1 if system else 0
    fitting = [
        k
        for k in range(len(sizes))
        if length_of(Record(one.id, "a", (*one.messages[:head], *one.messages[head + 2 * k :]))) <= most
    ]
    if not fitting:
        assert [(r.id, r.reason) for r in found.refusals] == [(one.id, "overlong")]
        return
    assert answers(found) == said[fitting[0] :]
    assert [e.id for e in found.examples] == [one.id]
    assert [r.reason for r in found.cut] == (["truncated"] if fitting[0] else [])
    if fitting[0]:
        first = head + 1
        gone = f"turns {first} to {head + 2 * fitting[0]} of {len(one.messages)} dropped"
        assert gone in found.cut[0].detail


def test_a_conversation_never_begins_with_an_answer_or_a_tools_result() -> None:
    call: Any = '[{"function": {"name": "look_up", "arguments": {}}}]'
    turns = [Message("user", "a " * 9), Message("assistant", "x", None, call), Message("tool", "b " * 9)]
    turns += [Message("assistant", "done"), Message("user", "c"), Message("user", "d"), Message("assistant", "e")]
    one = Record("1" * 32, "a", tuple(turns))
    tail = length_of(Record(one.id, "a", one.messages[4:]))
    for most in range(tail, length_of(one)):
        assert answers(encoded([one], most, "truncate-left")) == ["e<|im_end|>"]
    assert [r.reason for r in encoded([one], tail - 1, "truncate-left").refusals] == ["overlong"]


def test_what_fits_is_left_as_it_is_beside_what_is_cut() -> None:
    short, long = talk((1, 1), number=1), talk(*[(5, 5)] * 6, number=2)
    found = encoded([short, long], 60, "split")
    assert found.examples[0].id == short.id
    assert [r.id for r in found.cut] == [long.id]
    assert sum(e.targets for e in found.examples) == sum(
        e.targets for e in encode([short, long], TEMPLATE, max_tokens=ALL).examples
    )


@pytest.mark.parametrize("overlong", ["reject", "truncate-left", "split"])
def test_one_answer_that_is_longer_than_a_row_is_refused_and_never_cut(
    overlong: Literal["reject", "truncate-left", "split"],
) -> None:
    found = encoded([talk((1, 90))], 60, overlong)
    assert not len(found.examples)
    assert [r.reason for r in found.refusals] == ["overlong"]
