"""A record is shown as the model reads it, safely, with the targets told apart."""

from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.train.world import record
from train.preflight.shown import SHOWN_TOKENS, safe, show
from train.text.template import Encoded, Template, encode
from train.text.tokens import Tokens

Split = Callable[..., Tokens]


def test_targets_stand_between_marks_and_special_tokens_are_seen(split_of: Split, template: Template) -> None:
    (shown,) = show(split_of(("the cat", "sat")), template.tokenizer)
    assert shown.marked() == ("<|im_start|>user\nthe cat<|im_end|>\n<|im_start|>assistant\n⟦sat<|im_end|>⟧")
    kinds = [piece.kind for piece in shown.pieces]
    assert kinds == [
        "special",
        "read",
        "special",
        "read",
        "special",
        "read",
        "target",
        "target special",
        "read",
    ]
    assert shown.targets == split_of(("the cat", "sat")).targets[0]


def test_the_first_the_longest_several_turns_and_each_source_are_shown_once(
    encoded: Encoded, template: Template
) -> None:
    tokens = Tokens.of(encoded.examples)
    shown = show(tokens, template.tokenizer)
    assert len({s.id for s in shown}) == len(shown)
    assert shown[0].id == tokens[0].id
    assert any(s.why == "the longest record" and s.tokens == tokens.lengths.max() for s in shown)
    assert any("assistant turns" in s.why for s in shown)
    assert {s.source for s in shown} == {"a", "b"}
    assert len(show(tokens, template.tokenizer, most=2)) == 2
    assert show(Tokens.of([]), template.tokenizer) == ()


def test_a_long_record_is_cut_in_the_middle_and_says_how_much_is_left_out(split_of: Split, template: Template) -> None:
    (shown,) = show(split_of(("why", "the cat sat on a mat " * 40)), template.tokenizer)
    gap = next(piece.text for piece in shown.pieces if piece.kind == "left out")
    assert shown.tokens > SHOWN_TOKENS
    assert f"{shown.tokens - SHOWN_TOKENS} tokens" in gap
    assert shown.marked().count("⟦") == shown.marked().count("⟧") == 1


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1, max_size=60))
def test_whatever_a_text_holds_a_terminal_gets_no_control_and_no_bidi_marks(template: Template, text: str) -> None:
    tokens = Tokens.of(encode([record(1, ("user", "hi"), ("assistant", text))], template, max_tokens=999).examples)
    for shown in show(tokens, template.tokenizer):
        told = shown.marked()
        assert not [c for c in told if (ord(c) < 32 and c not in "\n\t") or c in "\x7f\u202e\u2066\u200f\x9b"]


def test_control_characters_are_spelt_out_and_letters_stay() -> None:
    assert safe("a\x1b[31m\u202eb") == "a\\x1b[31m\\u202eb"
    assert safe("жд 語 é\n\t👩\u200d🚀") == "жд 語 é\n\t👩\u200d🚀"
    assert safe("\U000e0041") == "\\U000e0041"
