"""References that are labels, and answers that name them."""

import pytest

from train.evaluation.labels import MOST, SEEN, WORDS, label_scores, labels_of


def test_labels_are_few_short_texts_that_come_again() -> None:
    """Each bound with a pair that just passes and just fails."""
    assert labels_of(["Yes", "yes.", "no", "no", "no", "yes"]) == ("no", "yes")
    assert labels_of(["yes"] * SEEN + ["no"] * (SEEN - 1)) is None
    assert labels_of(["yes"] * 50) is None
    assert labels_of(["a " * WORDS, "b"] * SEEN) is not None
    assert labels_of(["a " * (WORDS + 1), "b"] * SEEN) is None
    assert labels_of([f"l{i}" for i in range(MOST)] * SEEN) is not None
    assert labels_of([f"l{i}" for i in range(MOST + 1)] * SEEN) is None
    assert labels_of([]) is None
    assert labels_of(["...", "yes"] * SEEN) is None


def test_scores_by_hand() -> None:
    """cat 2 of 3, dog 1 of 2; one cat was called a dog, one answer names nothing."""
    found = label_scores(
        ["Cat.", "cat", "dog", "DOG", "a dog I think"], ["cat", "cat", "cat", "dog", "dog"], ("cat", "dog")
    )
    assert found.accuracy == pytest.approx(3 / 5)
    assert found.precision == pytest.approx((1 + 1 / 2) / 2)
    assert found.recall == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found.f1 == pytest.approx((4 / 5 + 1 / 2) / 2)
    assert found.unnamed == 1
    assert found.confusion == ((2, 1, 0), (0, 1, 1))


def test_a_model_that_names_nothing_scores_zero_without_a_warning() -> None:
    found = label_scores(["?"] * 4, ["cat", "dog"] * 2, ("cat", "dog"))
    assert (found.accuracy, found.precision, found.recall, found.f1, found.unnamed) == (0, 0, 0, 0, 4)
