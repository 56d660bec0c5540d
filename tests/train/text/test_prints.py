"""Two texts have the same fingerprints exactly where they ask and answer the same words."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from train.text.prints import UNSEEN, Prints
from train.text.template import Template
from train.text.tokens import Example, Tokens

WORDS = ("the", " the", "The", " cat", "\n", "  ")
TEXTS = st.lists(st.tuples(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6), st.integers(0, 6)), max_size=8)


def ids_of(text: str, template: Template) -> list[int]:
    return template.tokenizer(text, add_special_tokens=False)["input_ids"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS)
def test_prints_are_equal_exactly_where_the_words_are(template: Template, made: list[tuple[list[str], int]]) -> None:
    one = {word: ids_of(word, template) for word in WORDS}
    texts = [([i for word in words for i in one[word]], words, cut) for words, cut in made]
    targets = [np.repeat([False, True], [len(ids[:cut]), len(ids[cut:])]) for ids, _, cut in texts]
    bounds = np.cumsum([0, *(len(ids) for ids, _, _ in texts)])
    input_ids = np.asarray([i for ids, _, _ in texts for i in ids], np.int32)
    supervised = np.concatenate([np.zeros(0, np.bool_), *targets])
    prompts, answers = Prints(template.tokenizer)(input_ids, supervised, bounds)

    def said(ids: list[int]) -> tuple[str, ...]:
        read = [template.tokenizer.decode([i]).strip().lower() for i in ids]
        return tuple(word for word in read if word)

    for i, (a, _, cut_a) in enumerate(texts):
        assert (prompts[i] == UNSEEN) == (not said(a[:cut_a]))
        for j, (b, _, cut_b) in enumerate(texts):
            assert (prompts[i] == prompts[j]) == (said(a[:cut_a]) == said(b[:cut_b]))
            assert (answers[i] == answers[j]) == (said(a[cut_a:]) == said(b[cut_b:]))


def test_prints_do_not_depend_on_what_was_printed_before(template: Template) -> None:
    ids = np.asarray(ids_of("the cat sat on a mat", template), np.int32)
    supervised, bounds = np.arange(len(ids)) > 2, np.asarray([0, len(ids)])
    fresh, used = Prints(template.tokenizer), Prints(template.tokenizer)
    used(ids[::-1], supervised, bounds)
    assert fresh(ids, supervised, bounds) == used(ids, supervised, bounds)


def test_pieces_of_letters_are_told_apart(template: Template) -> None:
    """Byte-level tokens of different letters all decode to the same mark: they must not make two texts one."""
    ids = ids_of("жд", template)
    assert len(ids) == 4
    input_ids = np.asarray([*ids, ids[2], ids[3], ids[2], ids[3]], np.int32)
    supervised = np.asarray([False, False, True, True] * 2)
    prompts, answers = Prints(template.tokenizer)(input_ids, supervised, np.asarray([0, 4, 8]))
    assert prompts[0] != prompts[1]
    assert answers[0] == answers[1]


def test_columns_keep_the_prints_of_their_examples() -> None:
    ids, supervised = np.zeros(2, np.int32), np.asarray([False, True])
    some = Tokens.of([Example(str(i), "a", 1.0, ids, supervised, 2**63 + i, i) for i in range(3)])
    both = Tokens.joined([some, some.chosen(np.asarray([2, 0]))])
    assert both.prompts.tolist() == [2**63 + i for i in (0, 1, 2, 2, 0)]
    assert both.answers.tolist() == [0, 1, 2, 2, 0]
    assert (both[3].prompt, both[3].answer) == (2**63 + 2, 2)
