"""Validation rows that training has seen: the conversation, the prompt, the answer, or a near-duplicate by cluster.

The dataset's own `split` keeps near-duplicates on one side. The trainer checks what it is given all the same: the
split may be stale, made elsewhere, or of another dataset than the replayed rows.

A record's prompt is its tokens that are no targets, its answer those that are. Both are hashed as normalised text,
straight from the columns:

    token        ␣The  cat   \n   .        every token of the vocabulary is decoded once, without outer space and case;
    class         17   244   -    9        those that read alike share a class, white space has none
    place          0     1   -    2        counted over the tokens with a class
    hash         sum of drawn(class) * drawn(place), modulo 2^64, of 64-bit numbers drawn for each, those of places odd

Two texts that differ have the same hash once in about 2^64 pairs. A piece of the columns is looked at in one go, so a
million records take seconds and bounded memory. An edited row has another hash: finding those is the work of
near-duplicate clusters, which come in from the dataset.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from schemas.errors import CheckFailedError
from train.preflight.masks import pieces
from train.text.tokens import Tokens

ANSWER_TARGETS = 32
"""Shorter answers are left alone: "Yes.", a city or a label rightly answer many prompts. 32 targets are two sentences,
which two people do not write alike."""

EXAMPLES = 3
"""Pairs that are named per kind of leak."""

UNSEEN = np.uint64(0)

Words64 = npt.NDArray[np.uint64]


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


def find_leakage(
    train: Tokens, val: Tokens, tokenizer: PreTrainedTokenizerBase, clusters: Sequence[tuple[str, str]] = ()
) -> Leakage:
    """Look for the validation rows in the train rows.

    `clusters`: (val id, train id) of rows that share a near-duplicate cluster, as the dataset knows them.
    """
    if not len(val) or not len(train):
        return Leakage(len(val), 0, 0, 0, 0, {})
    classes = _classes(tokenizer, max(_most(train), _most(val)) + 1)
    train_prompt, train_answer = hashes(train, classes)
    val_prompt, val_answer = hashes(val, classes)
    long = val.targets >= ANSWER_TARGETS
    nothing_asked = val_prompt == UNSEEN
    found = {
        "conversation": _places(_both(val_prompt, val_answer), _both(train_prompt, train_answer)),
        "cluster": _cluster_places(train, val, clusters),
        "prompt": np.where(nothing_asked, -1, _places(val_prompt, train_prompt)),
        "answer": np.where(long, _places(val_answer, train_answer), -1),
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


def hashes(tokens: Tokens, classes: npt.NDArray[np.int64]) -> tuple[Words64, Words64]:
    """Hash the prompt and the answer of every example, (E,) each; 0 for one without words.

    `classes` (vocabulary,): what each token counts as, -1 for not at all.
    """
    prompts, answers = np.zeros(len(tokens), np.uint64), np.zeros(len(tokens), np.uint64)
    of_token = np.where(classes < 0, UNSEEN, _mix(classes.astype(np.uint64)) | np.uint64(1 << 63))
    of_place = _mix(np.arange(int(tokens.lengths.max(initial=1)), dtype=np.uint64) << np.uint64(32)) | np.uint64(1)
    for piece in pieces(tokens):
        words = of_token[piece.input_ids]
        is_word = words != UNSEEN
        for into, part in ((prompts, is_word & ~piece.supervised), (answers, is_word & piece.supervised)):
            at = np.flatnonzero(part)  # the words of this part, whatever stands between them
            edges = np.searchsorted(at, piece.bounds)  # where each example's words begin among them
            place = np.arange(len(at)) - np.repeat(edges[:-1], np.diff(edges))
            sums = np.zeros(len(at) + 1, np.uint64)
            np.cumsum(words[at] * of_place[place], out=sums[1:])
            into[piece.at] = sums[edges[1:]] - sums[edges[:-1]]  # modulo 2^64, so the differences are the sums
    return prompts, answers


def _mix(words: Words64) -> Words64:
    """Scatter 64-bit words over all 64-bit words (the finaliser of splitmix64, Steele et al. 2014)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _both(prompts: Words64, answers: Words64) -> Words64:
    return prompts ^ _mix(answers)


def _most(tokens: Tokens) -> int:
    return max((int(chunk.input_ids.max()) for chunk in tokens.chunks if len(chunk.input_ids)), default=0)


def _classes(tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> npt.NDArray[np.int64]:
    """Give each token the first token that reads as it does, without outer space and case; -1 for white space.

    Tokens that are pieces of a letter stand for themselves: they all decode to the same replacement mark.
    """
    classes = np.arange(vocabulary, dtype=np.int64)
    first: dict[str, int] = {}
    decode = tokenizer.batch_decode(
        [[i] for i in range(vocabulary)], skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    for i, text in enumerate(decode):
        if "\ufffd" in text:
            continue
        words = text.strip().casefold()
        classes[i] = first.setdefault(words, i) if words else -1
    return classes


def _places(wanted: Words64, there: Words64) -> npt.NDArray[np.int64]:
    """Find where each wanted hash first stands among those that are there; -1 where it does not."""
    known, first = np.unique(there, return_index=True)
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[at] == wanted, first[at], -1)


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
