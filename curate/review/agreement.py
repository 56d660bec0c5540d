"""Agreement: how far reviewers say the same about the same texts, and how far they only say what was suggested.

Krippendorff's alpha is 1 where all agree, 0 where they agree as often as chance would have it, and below where they
disagree more often than that. It takes any number of reviewers and gaps. Where it is not defined (no text was answered
twice, or everybody always said the same) there is no number, and the reason stands in its place: with one value alone
nobody knows whether people agree or never look.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import krippendorff
import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.review.decide import issues_of, one_voice_each
from curate.review.responses import RESTORE, VERDICTS, Response, responses
from schemas.dataset import Dataset

AGREEMENT = "agreement"
"""`made_from` of the index object that holds the table."""

AGREEMENT_COLUMNS = pl.Schema(
    {
        "measure": pl.String,
        "question": pl.String,
        "who": pl.List(pl.String),
        "value": pl.Float64,
        "texts": pl.UInt32,
        "undefined": pl.String,
    }
)
"""measure: alpha (Krippendorff's; who: two reviewers, nobody for all), suggestion (share of the verdicts that are the
suggested one; who: a reviewer, nobody for all) or suggestion by (the same; who: the agent that suggested). texts: what
the value was found from. undefined: why there is no value."""

CELLS = 10_000_000
"""Texts times values squared that alpha is computed over at a time: 250 MB in the library's arrays."""

Level = Literal["nominal", "ordinal", "sets"]
LEVELS: dict[str, Level] = {"verdict": "nominal", "rating": "ordinal", "issues": "sets"}
"""How far apart two answers are: not at all or wholly; by how many answers lie between; by what two sets share."""


@dataclass(frozen=True)
class Alpha:
    """Krippendorff's alpha over `texts` texts that two or more people answered; without a value, why there is none."""

    value: float | None
    texts: int
    undefined: str | None = None


def alpha(answers: Sequence[Sequence[Hashable]], level: Level) -> Alpha:
    """Give Krippendorff's alpha of the answers that each text was given (Krippendorff 2011, canonical form).

    Sets are frozensets, compared by MASI (Passonneau 2006). Of more texts than `CELLS` allows the first are taken: in
    the order of ids, which are hashes, those are a sample by chance.
    """
    twice = [given for given in answers if len(given) > 1]
    values = sorted({value for given in twice for value in given}, key=_order)
    if not twice:
        return Alpha(None, 0, "no text was answered by two reviewers")
    if len(values) == 1:
        return Alpha(None, len(twice), "every answer is the same")
    twice = twice[: max(1, CELLS // len(values) ** 2)]
    position = {value: i for i, value in enumerate(values)}
    counts = np.zeros((len(twice), len(values)), dtype=np.int64)
    for row, given in enumerate(twice):
        for value in given:
            counts[row, position[value]] += 1
    metric: Any = _set_metric(values) if level == "sets" else level
    found = float(krippendorff.alpha(value_counts=counts, level_of_measurement=metric))
    return Alpha(found, len(twice)) if math.isfinite(found) else Alpha(None, len(twice), "every answer is the same")


def masi(one: frozenset[str], other: frozenset[str]) -> float:
    """Give the distance of two sets from 0 to 1: 1 - Jaccard · m, where m is 1 for equal sets, 2/3 where one holds the
    other, 1/3 where they overlap, 0 where they share nothing (Passonneau 2006). Two empty sets are equal."""
    if one == other:
        return 0.0
    both = len(one & other)
    if not both:
        return 1.0
    part = 2 / 3 if one < other or other < one else 1 / 3
    return 1 - part * both / len(one | other)


def agreement(ledger: pl.DataFrame) -> pl.DataFrame:
    """Measure agreement over all submitted responses, per question, per pair of reviewers, and with the suggestion.

    Reads: the ledger. Gives AGREEMENT_COLUMNS. A reviewer's answers to the same text in several reviews are one, the
    latest.
    """
    texts: dict[tuple[str, str], list[Response]] = defaultdict(list)
    asked = ledger.filter(pl.col("review") != RESTORE)  # who restores a row decides, and was not asked for an opinion
    for response in responses(asked.sort("id", "content_hash")):
        texts[response.id, response.content_hash].append(response)
    counted = [given for some in texts.values() if (given := one_voice_each(some))]
    rows = [*_alphas(counted), *_suggested([r for given in counted for r in given])]
    return pl.DataFrame(rows, schema=AGREEMENT_COLUMNS, orient="row")


def read_agreement(dataset: Dataset) -> pl.DataFrame:
    """Give the table that a version holds; an empty one where it was never reviewed."""
    files = [f for f in dataset.manifest.files_of("review") if f.role == "index" and f.made_from == AGREEMENT]
    return pl.concat([AGREEMENT_COLUMNS.to_frame(), *(pl.read_ipc(dataset.path(file)) for file in files)])


def _answer(response: Response, question: str) -> Hashable:
    """Give what a response says to a question: a verdict, a rating, a set of issues; None where nothing."""
    match question:
        case "verdict":
            return response.verdict
        case "rating":
            return response.rating
        case _:
            return issues_of(response)


def _alphas(counted: Sequence[Sequence[Response]]) -> list[tuple[Any, ...]]:
    shared: dict[tuple[str, str], list[tuple[Response, Response]]] = defaultdict(list)
    for given in counted:
        for one, other in combinations(given, 2):
            shared[one.reviewer, other.reviewer].append((one, other))
    groups: list[tuple[list[str], Sequence[Sequence[Response]]]] = [([], counted)]
    groups += [(list(pair), both) for pair, both in sorted(shared.items())]
    rows: list[tuple[Any, ...]] = []
    for question, level in LEVELS.items():
        for who, texts in groups:
            answers = [[a for r in given if (a := _answer(r, question)) is not None] for given in texts]
            found = alpha(answers, level)
            rows.append(("alpha", question, who, found.value, found.texts, found.undefined))
    return rows


def _suggested(counted: Sequence[Response]) -> list[tuple[Any, ...]]:
    """Give the share of verdicts that are the suggested one: of all, by reviewer, by agent."""
    shown, same = Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
    for response in counted:
        if response.suggested in VERDICTS:
            for who in ((), (response.reviewer,), ("", response.suggested_by or "not named")):
                shown[who] += 1
                same[who] += response.verdict == response.suggested
    rows: list[tuple[Any, ...]] = []
    for who in sorted(shown) or [()]:
        measure = "suggestion by" if len(who) == 2 else "suggestion"
        value = same[who] / shown[who] if shown[who] else None
        why = None if shown[who] else "no verdict was suggested"
        rows.append((measure, "verdict", [name for name in who if name], value, shown[who], why))
    return rows


def _order(value: Hashable) -> Any:
    return (len(value), sorted(value)) if isinstance(value, frozenset) else value


def _set_metric(values: Sequence[Any]) -> Callable[..., NDArray[np.float64]]:
    """Make the metric that the library asks for: distances by the positions of two values."""
    distances = np.array([[masi(one, other) for other in values] for one in values])

    def metric(_v1: Any, _v2: Any, i1: NDArray[np.int64], i2: NDArray[np.int64], **_more: Any) -> NDArray[np.float64]:
        return distances[i1, i2]

    return metric
