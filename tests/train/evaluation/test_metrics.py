"""Measures of one answer: hand-computed values, the libraries' own results, and laws."""

import re
import string
from collections import Counter

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from train.evaluation import metrics

ASCII = st.text(alphabet=string.printable, max_size=60)
TEXTS = st.text(max_size=60)


def squad(text: str) -> list[str]:
    """SQuAD's normalisation, as its paper's evaluation defines it."""
    bare = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("The cat sat.", "the cat sat down", 0.8),  # cat sat | cat sat down: 2 * 2 / 5
        ("Paris", "paris!", 1.0),
        ("London", "Paris", 0.0),
        ("", "", 1.0),
        ("", "Paris", 0.0),
        ("the", "a", 1.0),  # nothing is left of either
        ("cat cat", "cat", 2 / 3),
        ("我在家", "我在这", 2 / 3),  # a character is a word where nobody writes spaces
    ],
)
def test_token_f1_is_squads(answer: str, reference: str, expected: float) -> None:
    assert metrics.token_f1(answer, reference) == pytest.approx(expected)


@given(ASCII, ASCII)
def test_token_f1_of_ascii_is_squads_own_formula(answer: str, reference: str) -> None:
    a, b = squad(answer), squad(reference)
    shared = sum((Counter(a) & Counter(b)).values())
    if not a or not b:
        expected = float(a == b)
    elif not shared:
        expected = 0.0
    else:
        precision, recall = shared / len(a), shared / len(b)
        expected = 2 * precision * recall / (precision + recall)
    assert metrics.token_f1(answer, reference) == pytest.approx(expected)


@given(TEXTS, TEXTS)
def test_f1_and_exact_match_are_symmetric_and_a_match_is_an_f1_of_one(a: str, b: str) -> None:
    assert metrics.token_f1(a, b) == metrics.token_f1(b, a)
    assert metrics.exact_match(a, b) == metrics.exact_match(b, a)
    assert metrics.exact_match(a, a) == metrics.token_f1(a, a) == 1.0
    assert 0.0 <= metrics.token_f1(a, b) <= 1.0
    if metrics.exact_match(a, b):
        assert metrics.token_f1(a, b) == 1.0


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("Paris.", " paris", True),
        ("PARIS  is\nold", "Paris is old!", True),
        ("e\u0301te\u0301", "\u00e9t\u00e9", True),
        ("-5", "5", False),
        ("1.5", "15", False),
        ("the cat", "cat", False),
        ("", "...", False),
        ("?", "!", False),
        ("", " ", True),
    ],
)
def test_exact_match_puts_case_blanks_and_the_last_mark_aside_and_nothing_else(
    answer: str, reference: str, same: bool
) -> None:
    assert metrics.exact_match(answer, reference) == float(same)


@given(ASCII)
def test_words_of_ascii_are_those_of_rouge_score(text: str) -> None:
    assert metrics.words(text) == DefaultTokenizer().tokenize(text)


FEW_WORDS = st.lists(st.sampled_from(["police", "killed", "the", "gunman", "old"]), max_size=80).map(" ".join)


@given(FEW_WORDS, FEW_WORDS)
def test_rouge_l_is_that_of_rouge_score(answer: str, reference: str) -> None:
    expected = RougeScorer(["rougeL"]).score(reference, answer)["rougeL"].fmeasure
    assert metrics.rouge_l(answer, reference) == pytest.approx(expected)


def test_rouge_l_of_long_texts_takes_no_table_of_all_pairs() -> None:
    words = [str(i * i % 9973) for i in range(40_000)]
    text = " ".join(words)
    assert metrics.rouge_l(text, text) == 1.0


def test_rouge_l_by_hand_and_in_other_scripts() -> None:
    # The longest common sequence of the two is "police the gunman" without "killed": 3 of 4 words on both sides.
    assert metrics.rouge_l("police kill the gunman", "police killed the gunman") == pytest.approx(0.75)
    assert metrics.rouge_l("полиция убила бандита", "полиция поймала бандита") == pytest.approx(2 / 3)
    assert metrics.rouge_l("", "a") == 0.0


def test_bleu_of_summed_counts_is_the_corpus_score_of_sacrebleu() -> None:
    pairs = [
        ("the cat sat on the mat", "the cat sat on a mat today"),
        ("rain fell over the old sea", "rain fell over the sea"),
        ("", "nothing at all"),
        ("no", "yes"),
    ]
    sums = [sum(column) for column in zip(*(metrics.bleu_counts(*pair) for pair in pairs), strict=True)]
    expected = sacrebleu.corpus_bleu([a for a, _ in pairs], [[r for _, r in pairs]]).score
    assert metrics.bleu(sums) == pytest.approx(expected)
    assert 0 < expected < 100
    assert metrics.chrf("the cat", "the cats") == pytest.approx(sacrebleu.sentence_chrf("the cat", ["the cats"]).score)
    assert {name: text.split("|")[0] for name, text in metrics.signatures().items()} == {
        "bleu": "nrefs:1",
        "chrf": "nrefs:1",
    }


def test_repetition_counts_four_word_sequences_that_came_before() -> None:
    assert metrics.repetition("one two three") == 0.0
    assert metrics.repetition("one two three four five six") == 0.0
    assert metrics.repetition("a b c d a b c d") == pytest.approx(1 / 5)  # abcd bcda cdab dabc abcd
    assert metrics.repetition("go " * 8) == pytest.approx(4 / 5)


@pytest.mark.parametrize(
    ("answer", "loop"),
    [
        ("ha " * 8, True),
        ("ha " * 7, False),
        ("well, " + "to the sea " * 4, True),
        ("well, " + "to the sea " * 4 + "to the", True),
        ("to the sea " * 4 + "and then home again", False),
        ("to the sea " * 3, False),
        ("", False),
        ("海" * 8, True),
    ],
)
def test_a_loop_is_a_phrase_said_over_and_over_to_the_end(answer: str, loop: bool) -> None:
    assert metrics.loops(answer) is loop
