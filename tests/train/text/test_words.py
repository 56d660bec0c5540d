"""Word by word or whole, the ids and places are the tokenizer's own."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from schemas.errors import ModelError
from tests.train.text.styles import KINDS, STYLES, tokenizer_of
from train.text import words as words_module
from train.text.chat import Template
from train.text.words import CONTRACTIONS, GPT2, PATTERNS, REST, Words, may_cut

SPLITS: dict[str, Any] = {
    "gpt 2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "digits": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    **{
        pattern: pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pattern), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        for pattern in sorted(PATTERNS - {GPT2})
    },
}

QWEN2 = CONTRACTIONS + r"\p{N}" + REST


def template_with(split: Any) -> Template:
    tokenizer = tokenizer_of(STYLES[0], "byte-level")
    tokenizer.backend_tokenizer.pre_tokenizer = split
    return Template(tokenizer, "test")


PIECES = [
    "the",
    " ",
    "  ",
    "\n",
    " \n",
    "\t",
    "cat",
    "'s",
    "'LL",
    "12345",
    " 7",
    "é",
    "e\u0301",
    "\u0338",
    "\0",
    "猫",
    "🐈",
    "<|im_end|>",
    "<|im_",
    "-!",
    "\x1c",
    "\u00a0",
    "\u2028",
    "\x85",
    "\r\n",
    ".",
]
TEXT = st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=30)


@pytest.mark.parametrize("name", [*SPLITS, f"{QWEN2}, NFC"])
def test_texts_cut_in_words_have_the_tokens_and_places_of_whole_texts(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words_module, "SAMPLE", 1 << 30)  # here we compare ourselves
    template = template_with(SPLITS[name.removesuffix(", NFC")])
    if name.endswith("NFC"):
        template.backend.normalizer = normalizers.NFC()
    words = Words(template)
    assert words.remembers

    @settings(max_examples=80, deadline=None)
    @given(st.lists(TEXT, max_size=4))
    def law(texts: list[str]) -> None:
        by_word, whole = words._by_word(texts), words._whole(texts)
        for column in ("ids", "starts", "ends", "bounds", "bases"):
            np.testing.assert_array_equal(getattr(by_word, column), getattr(whole, column))
        told = words._backend
        joined = "".join(texts)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], by_word.exact.astype(np.int8), [0]]))).reshape(-1, 2)
        for a, b in edges.tolist():  # what is known to read as its text does so, decoded together
            said = joined[by_word.starts[a] : by_word.ends[b - 1]]
            assert told.decode(by_word.ids[a:b].tolist(), skip_special_tokens=False) == said

    law()


def test_a_tokenizer_of_another_kind_gets_its_texts_whole() -> None:
    assert not Words(Template(tokenizer_of(STYLES[0], "prefix space"), "test")).remembers


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "NFKC"}},
        {"post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
        {"decoder": None},
    ],
)
def test_a_part_that_is_not_known_forbids_cutting(change: dict[str, Any]) -> None:
    state = json.loads(tokenizer_of(STYLES[0], "byte-level").backend_tokenizer.to_str())
    assert may_cut(state)
    assert not may_cut({**state, **change})


def test_a_tokenizer_that_is_taken_for_one_that_it_is_not_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison of the sample can fail: a pattern that goes on over blanks, taken for a known one."""
    pattern = r"cat sat|\S+|\s+"
    monkeypatch.setattr(words_module, "PATTERNS", frozenset({pattern}))
    words = Words(
        template_with(
            pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Split(Regex(pattern), "isolated"),
                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
                ]
            )
        )
    )
    assert words.remembers
    with pytest.raises(ModelError, match="other tokens as a whole"):
        words(["the cat sat on a mat"])


@pytest.mark.parametrize(
    "post",
    [
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},  # GPT-2's, Llama 3's
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
)
def test_a_post_processor_that_moves_no_place_by_where_it_stands_does_not_forbid_cutting(post: dict[str, Any]) -> None:
    template = template_with(SPLITS["gpt 2"])
    state = {**json.loads(template.backend.to_str()), "post_processor": post}
    template.backend.post_processor = Tokenizer.from_str(json.dumps(state)).post_processor
    words = Words(template)
    assert words.remembers
    texts = [" the cat  sat", "<|im_end|> on\n  a mat", "\n red"]
    by_word, whole = words._by_word(texts), words._whole(texts)
    for column in ("ids", "starts", "ends", "bounds", "bases"):
        np.testing.assert_array_equal(getattr(by_word, column), getattr(whole, column))


@pytest.mark.parametrize("bound", ["MOST_WORDS", "MOST_LETTERS"])
def test_forgetting_changes_nothing(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words_module, bound, 3)
    words = Words(template_with(SPLITS["gpt 2"]))
    for text in ("the cat sat on", "a mat and saw one", "the cat sat on", "red bird 🐈"):
        np.testing.assert_array_equal(words([text]).ids, words._whole([text]).ids)
        assert len(words) <= 5  # those of one text alone


def test_what_was_learnt_stays_known() -> None:
    words = Words(template_with(SPLITS["gpt 2"]))
    for text, known in (("the cat sat", 3), ("a mat", 5), ("the cat sat", 5), ("a cat sat on", 6)):
        np.testing.assert_array_equal(words([text]).ids, words._whole([text]).ids)
        assert len(words) == known


def test_words_that_cannot_be_tokenised_leave_no_number_behind() -> None:
    words = Words(template_with(SPLITS["gpt 2"]))
    for _ in range(2):
        with pytest.raises(UnicodeEncodeError):
            words(["the cat \ud800"])
    np.testing.assert_array_equal(words(["the cat"]).ids, words._whole(["the cat"]).ids)


def test_a_tokenizer_that_truncates_or_pads_does_neither_here() -> None:
    backend: Tokenizer = tokenizer_of(STYLES[0], KINDS[0]).backend_tokenizer
    backend.enable_truncation(3)
    backend.enable_padding(length=9)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, chat_template="x", eos_token="</s>")  # noqa: S106 # no password
    assert len(Words(Template(tokenizer, "test"))(["the cat sat on a mat"]).ids) > 3
