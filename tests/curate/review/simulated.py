"""Rows with a hidden truth, and reviewers who follow it but for some mistakes: for must-hold claims about learning.

Rows are exchanges of made-up words: each topic has words of its own, a prompt asks about a topic, and its answer speaks
of it in sentences of any length. Good rows are as people write: one in six leaves out a capital or a full stop, has
a mark of exclamation, a stock phrase, or speaks of something else by the way. Some rows are spoilt, in ways that no
single measure gives away:

    off_topic    the answer of another topic, as long as the right one
    low_effort   the answer cut short; or the question said again; or stock phrases
    careless     no capitals and full stops; or marks of exclamation in their place; or a stock phrase at the end
    mixed        any of these
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.review.auc import auc
from curate.review.learn import Reviews, learn
from curate.review.uncertain import most_uncertain
from schemas.record import TEXT_SCHEMA, content_hash, lineage_id

Exchange = tuple[str, str | None, str]
"""Prompt, context, answer."""

STOCK = (
    "It depends on many things.",
    "There are many ways to do this.",
    "You can look it up.",
    "That is hard to say without more details.",
    "It is fine as it is.",
)
CLOSING = ("I hope that helps.", "Tell me if there is more to do.", "Is there anything else?")
SMALL = ("the", "of", "and", "with", "for", "is", "in", "as", "on", "that", "to", "by")
ASKS = ("Explain {} and {}.", "What is {} to {}?", "Write about {} with {}.", "How does {} change {}?", "List {}, {}.")
FIRST, ROUND = 100, 100
"""Rows reviewed at random in the beginning, and in each round after that."""


def exchanges(rows: int, seed: int, topics: int = 40) -> list[Exchange]:
    """Make exchanges about topics of 30 words each."""
    rng = random.Random(seed)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "en", "or")]
    words = [["".join(rng.choices(syllables, k=rng.choice((2, 3, 3, 4)))) for _ in range(30)] for _ in range(topics)]
    made: list[Exchange] = []
    for _ in range(rows):
        own = rng.choice(words)
        prompt = rng.choice(ASKS).format(*rng.sample(own, 2))
        sentences = [_sentence(rng, own) for _ in range(1 + int(rng.expovariate(1 / 4)))]
        context = _sentence(rng, own) if rng.random() < 0.2 else None
        made.append((prompt, context, _human(rng, sentences, rng.choice(words))))
    return made


def _human(rng: random.Random, sentences: list[str], aside: Sequence[str]) -> str:
    """Write an answer as people do."""
    at = rng.randrange(len(sentences))
    match rng.randrange(36):
        case 0:
            sentences[at] = sentences[at].lower()
        case 1:
            sentences[-1] = sentences[-1].removesuffix(".")
        case 2:
            sentences[at] = sentences[at].replace(".", "!")
        case 3:
            sentences[at] = rng.choice(STOCK)
        case 4:
            sentences.append(rng.choice((*CLOSING, *STOCK)))
        case 5:
            sentences.insert(at, _sentence(rng, aside))
        case _:
            pass
    return " ".join(sentences)


def _sentence(rng: random.Random, own: Sequence[str]) -> str:
    said = [rng.choice(own if rng.random() < 0.5 else SMALL) for _ in range(rng.randint(5, 16))]
    if len(said) > 9 and rng.random() < 0.5:
        said[4] += ","
    return " ".join(said).capitalize() + "."


def off_topic(row: Exchange, all_rows: Sequence[Exchange], rng: random.Random) -> Exchange:
    words = len(row[2].split())
    for _ in range(50):
        other = rng.choice(all_rows)[2]
        if other != row[2] and 0.6 * words <= len(other.split()) <= 1.6 * words:
            return (*row[:2], other)
    return (*row[:2], rng.choice(all_rows)[2])


def low_effort(row: Exchange, _all: Sequence[Exchange], rng: random.Random) -> Exchange:
    prompt, context, answer = row
    words = answer.split()
    kinds = (
        " ".join(words[: max(3, min(len(words) // 3, 25))]),
        f"{' '.join(prompt.split()[:20])} {rng.choice(STOCK)}",
        " ".join(rng.sample(STOCK, min(3, 1 + len(words) // 20))),
    )
    return prompt, context, rng.choice(kinds)


def careless(row: Exchange, _all: Sequence[Exchange], rng: random.Random) -> Exchange:
    prompt, context, answer = row
    kinds = (
        answer.lower().replace(".", "").replace(",", ""),
        answer.replace(". ", "!! ").removesuffix(".") + "!!",
        f"{answer} {rng.choice(CLOSING)}",
    )
    return prompt, context, rng.choice(kinds)


RULES: dict[str, tuple[Callable[..., Exchange], ...]] = {
    "off_topic": (off_topic,),
    "low_effort": (low_effort,),
    "careless": (careless,),
    "mixed": (off_topic, low_effort, careless),
}
"""Hidden rules: the ways in which rows are spoilt."""


@dataclass(frozen=True)
class Pool:
    """Rows (id, content_hash, messages, context), and whether the hidden rule keeps each."""

    rows: pl.DataFrame
    good: NDArray[np.bool_]

    @property
    def lengths(self) -> NDArray[np.float64]:
        """Words of each answer."""
        said = pl.col("messages").list.last().struct.field("content").str.count_matches(r"\S+")
        return self.rows.select(said).to_series().to_numpy().astype(np.float64)


def spoilt(given: Sequence[Exchange], rule: str, share: float, seed: int) -> Pool:
    """Spoil a share of the rows in the ways of a rule."""
    rng = random.Random(seed)
    good = [rng.random() >= share for _ in given]
    said = [r if ok else rng.choice(RULES[rule])(r, given, rng) for r, ok in zip(given, good, strict=True)]
    rows: list[dict[str, object]] = []
    for i, (prompt, context, answer) in enumerate(said):
        turns = [
            {"role": role, "content": text, "name": None, "tool_calls": None}
            for role, text in (("user", prompt), ("assistant", answer))
        ]
        ids = {"id": lineage_id("simulated", f"{seed}-{i}"), "content_hash": content_hash(turns, context)}
        rows.append({**ids, "messages": turns, "context": context})
    columns = ("id", "content_hash", "messages", "context")
    return Pool(pl.DataFrame(rows, schema={name: TEXT_SCHEMA[name] for name in columns}), np.array(good))


@dataclass(frozen=True)
class Outcome:
    """AUC against the hidden rule, on rows that nobody reviewed: of the length of the answer (better way round), of
    what is learnt from rows chosen at random, and from rows chosen by `uncertain`."""

    length: float
    random: float
    uncertain: float


def simulate(pool: Pool, seed: int, *, reviews: int = 300, noise: float = 0.1) -> Outcome:
    """Have rows reviewed in both ways, by people who err in a share of `noise`; both begin with the same rows."""
    rng = np.random.default_rng(seed)
    said = pool.good ^ (rng.random(len(pool.good)) < noise)
    order = rng.permutation(len(pool.good))
    chosen = order[:FIRST]
    while len(chosen) < reviews:
        left = np.setdiff1d(np.arange(len(order)), chosen)
        rows = pool.rows[left].with_columns(taught(pool, said, chosen).learned(pool.rows[left]))
        ids = most_uncertain(rows, min(ROUND, reviews - len(chosen)), seed).ids
        place = dict(zip(pool.rows["id"], range(len(order)), strict=True))
        chosen = np.concatenate([chosen, [place[one] for one in ids]])
    by_length = auc(pool.good, pool.lengths)
    return Outcome(max(by_length, 1 - by_length), judged(pool, said, order[:reviews]), judged(pool, said, chosen))


def judged(pool: Pool, said: NDArray[np.bool_], chosen: NDArray[np.int64]) -> float:
    """AUC of what is learnt from some rows, on all others, against the truth."""
    left = np.setdiff1d(np.arange(len(said)), chosen)
    found = taught(pool, said, chosen).learned(pool.rows[left]).to_numpy().astype(np.float64)
    return auc(pool.good[left], found)


def reviews_of(pool: Pool, said: NDArray[np.bool_], chosen: NDArray[np.int64]) -> Reviews:
    rows = pool.rows[chosen].with_columns(keep=pl.Series(said[chosen]), group=pl.Series(chosen, dtype=pl.Int64))
    return Reviews(rows.sort("id"), stale=0, split=0, gone=0, deduplicated=False)


def taught(pool: Pool, said: NDArray[np.bool_], chosen: NDArray[np.int64]):
    return learn(reviews_of(pool, said, chosen)).model
