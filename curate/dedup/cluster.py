"""Clusters: stars around kept rows.

Rows come in the order of preference. A row that is alike to a row kept before it is its duplicate; otherwise it is kept
and may get duplicates of its own. A row is compared with kept rows only, never with another duplicate: chains of
similar rows do not melt into one (transitive closure took a set of 859,092 rows to 2: marin-community/marin#6854).

Alike, a near-duplicate: at or above the threshold are the Jaccard similarities of

    the whole records,
    what is asked and answered, without the material (system prompt, context, tool results), and
    the answers alone.

One long text with two questions about it passes the first test and fails the second; one question with two answers
passes the first and fails the third. The latter, prompts alike and answers not, is a conflict: both rows stay, for a
person to look at, under one `conflict_id`, the id of the group's first row.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from curate.dedup.band import Candidates, Signature, choose_bands, signatures
from curate.dedup.shingle import Hashes, Words, jaccard, shingles
from schemas.config import DedupConfig

SHORTLIST = 64
"""Candidates of one row that are compared exactly, the best by estimate: bounds the work on sets of look-alikes."""

_HELD = 1 << 16
"""N-gram sets that are held for the next comparison: about 1 kB each."""

NONE = -1


@dataclass(frozen=True)
class Rows:
    """Distinct rows, most preferred first. `prompts` and `tools` are hashes of those texts."""

    asked: Words
    prompt: Words
    answer: Words
    prompts: list[str]
    tools: list[str]

    def __len__(self) -> int:
        return len(self.prompts)

    def record(self, i: int) -> Hashes:
        """Give the words of everything that row i says."""
        return np.concatenate([self.prompt.of(i), self.answer.of(i)])

    def exchange(self, i: int) -> Hashes:
        """Give the words that are asked and answered, without the material."""
        return np.concatenate([self.asked.of(i), self.answer.of(i)])


@dataclass
class Clusters:
    """For each row: the kept row that it duplicates (or NONE), how alike they are, and its conflict's first row."""

    keeper: NDArray[np.int64]
    similarity: NDArray[np.float64]
    conflict: NDArray[np.int64]


@dataclass
class _Shingled:
    """The n-gram sets of rows, made when they are needed and held for a while."""

    rows: Rows
    ngram: int
    _made: dict[tuple[str, int], Hashes] = field(default_factory=dict)

    def alike(self, part: str, i: int, j: int) -> float:
        return jaccard(self._of(part, i), self._of(part, j))

    def _of(self, part: str, i: int) -> Hashes:
        if (part, i) not in self._made:
            if len(self._made) >= _HELD:
                self._made.clear()
            words: Hashes = {
                "record": self.rows.record,
                "exchange": self.rows.exchange,
                "asked": self.rows.asked.of,
                "prompt": self.rows.prompt.of,
                "answer": self.rows.answer.of,
            }[part](i)
            self._made[part, i] = shingles(words, self.ngram)
        return self._made[part, i]


@dataclass
class _Shortlist:
    """The candidates of a row that are worth an exact comparison.

    Where many rows share much material, their records are all alike, and what is asked and answered tells them apart.
    """

    rows: Rows
    config: DedupConfig
    _marks: NDArray[np.uint32] | None = None

    def of(self, near: list[int], i: int) -> list[int]:
        """Keep the candidates whose exchange looks most like that of row i, in the order of preference."""
        if len(near) <= SHORTLIST:
            return near
        if self._marks is None:
            self._marks = np.array(list(_signatures(self.rows, self.rows.exchange, self.config)))
        agreement = (self._marks[near] == self._marks[i]).sum(axis=1)
        best = np.argsort(-agreement, kind="stable")[:SHORTLIST]
        return [near[k] for k in sorted(best.tolist())]


def _signatures(rows: Rows, words: Callable[[int], Hashes], config: DedupConfig) -> Iterator[Signature]:
    sets = (shingles(words(i), config.ngram) for i in range(len(rows)))
    return signatures(sets, config.num_perm, config.seed)


def cluster(rows: Rows, config: DedupConfig, progress: Callable[[int], None]) -> Clusters:
    """Decide row by row, in the order of preference, which rows stay."""
    count = len(rows)
    found = Clusters(np.full(count, NONE), np.ones(count), np.full(count, NONE))
    bands, band_rows = choose_bands(config.threshold, config.recall, config.num_perm)
    index = Candidates(bands, band_rows, config.num_perm)
    grams, shortlist = _Shingled(rows, config.ngram), _Shortlist(rows, config)
    first_with: dict[str, int] = {}
    for i, mark in enumerate(_signatures(rows, rows.record, config)):
        progress(1)
        wordless = not len(rows.record(i))  # such rows have no n-grams: they are compared as whole texts alone
        near = [] if wordless else shortlist.of(index.near(mark), i)
        near = [(s, j) for j in near if (s := grams.alike("record", i, j)) >= config.threshold]
        near = [(s, j) for s, j in sorted(near, key=lambda c: (-c[0], c[1])) if rows.tools[i] == rows.tools[j]]
        duplicate = next(((s, j) for s, j in near if _same_exchange(grams, i, j, config.threshold)), None)
        if duplicate:
            found.similarity[i], found.keeper[i] = duplicate
            continue
        rival = first_with.setdefault(rows.prompts[i], i) if len(rows.prompt.of(i)) else i
        if rival == i:
            rival = next((j for _, j in near if _same_prompt(grams, i, j, config.threshold)), i)
        if rival != i:
            if found.conflict[rival] == NONE:
                found.conflict[rival] = rival
            found.conflict[i] = found.conflict[rival]
        if not wordless:
            index.add(i, mark)
    return found


def _same_exchange(grams: _Shingled, i: int, j: int, threshold: float) -> bool:
    return grams.alike("answer", i, j) >= threshold and grams.alike("exchange", i, j) >= threshold


def _same_prompt(grams: _Shingled, i: int, j: int, threshold: float) -> bool:
    return (
        grams.alike("prompt", i, j) >= threshold
        and grams.alike("asked", i, j) >= threshold
        and grams.alike("answer", i, j) < threshold
    )
