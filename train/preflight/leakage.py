"""Validation rows that training has seen: the conversation, the prompt, the answer, or a near-duplicate by cluster.

The dataset's own `split` keeps near-duplicates on one side. The trainer checks what it is given all the same: the
split may be stale, made elsewhere, or of another dataset than the replayed rows.

Prompts and answers are compared as normalised text, by fingerprints that came with the tokens (`train.text.prints`). An
edited row has another: finding those is the work of near-duplicate clusters, which come in from the dataset.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.errors import CheckFailedError
from train.text.prints import UNSEEN, Words64, mix
from train.text.tokens import Tokens

ANSWER_TARGETS = 32
"""Shorter answers are left alone: "Yes.", a city or a label rightly answer many prompts. 32 targets are two sentences,
which two people do not write alike."""

EXAMPLES = 3
"""Pairs that are named per kind of leak."""


@dataclass(frozen=True, slots=True)
class Twin:
    """A validation row and the first train row that it was found in."""

    val: str
    train: str
    source: str


@dataclass(frozen=True, slots=True)
class Leakage:
    """How many validation rows training has seen. A row counts once, for the first of these that holds of it."""

    rows: int
    """Rows of validation that were looked at."""
    conversation: int
    """Prompt and answer are a train row's."""
    cluster: int
    """The near-duplicate cluster has train rows too."""
    prompt: int
    """The prompt is a train row's; the answer is another."""
    answer: int
    """The answer, of at least 32 targets, is a train row's; the prompt is another."""
    examples: dict[str, tuple[Twin, ...]]
    """A few of each kind, by name."""

    @property
    def leaked(self) -> int:
        """Rows whose validation loss says nothing of rows that training has not seen."""
        return self.conversation + self.cluster

    def lines(self) -> list[str]:
        """Say it in lines for a person; nothing where there is nothing to say."""
        kinds = (
            ("conversation", self.conversation, "are train rows, word for word"),
            ("cluster", self.cluster, "are near-duplicates of train rows (the same cluster)"),
            ("prompt", self.prompt, "have the prompt of a train row, with another answer"),
            ("answer", self.answer, "have the answer of a train row, to another prompt"),
        )
        return [
            f"{count:,} of {self.rows:,} validation rows {what}, such as {self._named(kind)}"
            for kind, count, what in kinds
            if count
        ]

    def check(self, name: str) -> None:
        """Raise CheckFailedError where validation would measure what was learnt by heart."""
        if not self.leaked:
            return
        kind = "conversation" if self.conversation else "cluster"
        what = "are train rows, word for word" if self.conversation else "have near-duplicates among the train rows"
        raise CheckFailedError(
            name,
            f"{self.leaked:,} of {self.rows:,} validation rows {what}, such as {self._named(kind)}",
            "none: the validation loss would be of rows that were learnt by heart",
            "run sft curate dedup and sft curate split, which keep them on one side; or go on with --allow-leakage",
        )

    def _named(self, kind: str) -> str:
        twin = self.examples[kind][0]
        return f"{twin.val} of {twin.source}, which is {twin.train}" if twin.train != twin.val else f"{twin.val} itself"


def find_leakage(train: Tokens, val: Tokens, clusters: Sequence[tuple[str, str]] = ()) -> Leakage:
    """Look for the validation rows in the train rows.

    `clusters`: (val id, train id) of rows that share a near-duplicate cluster, as the dataset knows them.
    """
    if not len(val) or not len(train):
        return Leakage(len(val), 0, 0, 0, 0, {})
    long = val.targets >= ANSWER_TARGETS
    nothing_asked = val.prompts == UNSEEN
    found = {
        "conversation": _places(_both(val), _both(train)),
        "cluster": _cluster_places(train, val, clusters),
        "prompt": np.where(nothing_asked, -1, _places(val.prompts, train.prompts)),
        "answer": np.where(long, _places(val.answers, train.answers), -1),
    }
    counts: dict[str, int] = {}
    examples: dict[str, tuple[Twin, ...]] = {}
    told = np.zeros(len(val), np.bool_)
    for kind, place in found.items():
        rows = np.flatnonzero((place >= 0) & ~told)
        told[rows] = True
        counts[kind] = len(rows)
        if len(rows):
            examples[kind] = tuple(_twin(train, val, int(v), int(place[v])) for v in rows[:EXAMPLES])
    return Leakage(len(val), **counts, examples=examples)


def _both(tokens: Tokens) -> Words64:
    return tokens.prompts ^ mix(tokens.answers)


def _places(wanted: Words64, there: Words64) -> npt.NDArray[np.int64]:
    """Find where each wanted hash first stands among those that are there; -1 where it does not. At least one each."""
    known, of = np.unique(wanted, return_inverse=True)  # the wanted are fewer, so it is they that are sorted
    at = np.minimum(np.searchsorted(known, there), len(known) - 1)
    hits = np.flatnonzero(known[at] == there)[::-1]
    first = np.full(len(known), -1)
    first[at[hits]] = hits  # the first of several is written last
    return first[of]


def _cluster_places(train: Tokens, val: Tokens, clusters: Sequence[tuple[str, str]]) -> npt.NDArray[np.int64]:
    """Find, for each validation row, the train row that shares its cluster; -1 where none does, or was refused."""
    places = np.full(len(val), -1, np.int64)
    if not clusters:
        return places
    train_at, val_at = (_index(tokens, {pair[side] for pair in clusters}) for tokens, side in ((train, 1), (val, 0)))
    for val_id, train_id in clusters:
        if val_id in val_at and train_id in train_at:
            places[val_at[val_id]] = train_at[train_id]
    return places


def _index(tokens: Tokens, wanted: set[str]) -> dict[str, int]:
    """Find where the examples with these ids stand."""
    return {name: i for i, name in enumerate(tokens.ids.to_pylist()) if name in wanted}


def _twin(train: Tokens, val: Tokens, v: int, t: int) -> Twin:
    return Twin(str(val.ids[v].as_py()), str(train.ids[t].as_py()), val.sources[val.source_of[v]])
