"""Answers that are labels: accuracy, precision, recall and confusion, where references are a few short texts.

References are labels where there are from 2 to `MOST` distinct ones, each of at most `WORDS` words and seen at least
`SEEN` times, compared as exact match does (`train.evaluation.metrics.normal`). A text that comes once is an answer; one
of more than a few words is a sentence; more than twenty classes fill no table that a person reads.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from train.evaluation.metrics import SENTENCE_ENDS, normal

MOST, WORDS, SEEN = 20, 4, 3
OTHER = "(other)"
"""What an answer is that says none of the labels. No label reads so: brackets at its ends are none of ours to drop."""


@dataclass(frozen=True, slots=True)
class LabelScores:
    """How well answers name the labels; precision, recall and F1 are means over labels (macro), 0 where undefined.

    `confusion`: a row per label, a column per label and the last one for answers that name none.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float
    unnamed: int
    confusion: tuple[tuple[int, ...], ...]


def labels_of(references: Sequence[str]) -> tuple[str, ...] | None:
    """Give the labels that references are, the most frequent first; None where they are none."""
    counts = Counter(map(normal, references))
    if not 2 <= len(counts) <= MOST or min(counts.values()) < SEEN:
        return None
    if any(len(label.split()) > WORDS or not label.strip(SENTENCE_ENDS) for label in counts):
        return None
    return tuple(sorted(counts, key=lambda label: (-counts[label], label)))


def label_scores(answers: Sequence[str], references: Sequence[str], labels: Sequence[str]) -> LabelScores:
    """Score answers by the labels that they name; an answer names a label where it says that and nothing else."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support  # noqa: PLC0415 # half a second

    known = set(labels)
    said = [text if (text := normal(answer)) in known else OTHER for answer in answers]
    true = [normal(reference) for reference in references]
    undefined: Any = 0  # its stub knows of the text "warn" alone
    scored: Any = precision_recall_fscore_support(
        true, said, labels=list(labels), average="macro", zero_division=undefined
    )
    table: Any = confusion_matrix(true, said, labels=[*labels, OTHER])
    right = sum(a == b for a, b in zip(said, true, strict=True))
    return LabelScores(
        accuracy=right / len(true),
        precision=float(scored[0]),
        recall=float(scored[1]),
        f1=float(scored[2]),
        unnamed=said.count(OTHER),
        confusion=tuple(tuple(map(int, row)) for row in table[: len(labels)]),
    )
