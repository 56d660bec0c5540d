"""Fates: what becomes of rows from one version to the other: kept, rejected by a stage, not there; in which split."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from curate.diff.account import ReasonChange, Transition
from curate.diff.pairs import Pair
from schemas.dataset import Dataset
from schemas.manifest import Manifest
from schemas.reasons import sentence
from schemas.stages import STAGES

KEPT, ABSENT = "kept", "not there"

Fate = tuple[str | None, str | None]
"""The stage that rejects a row and its reason; (None, None) where it is kept."""

_OUTCOME = ("stage", "reject_reason", "split")


@dataclass(frozen=True)
class Fates:
    """Rows of both versions by fate and split before and after, and all rows of each version by fate."""

    both: Mapping[tuple[Fate, Fate], int]
    before: Mapping[Fate, int]
    after: Mapping[Fate, int]
    moves: Mapping[tuple[str, str], int]

    def transitions(self) -> tuple[Transition, ...]:
        """Count rows by their fate before and after, in the order of the stages."""
        found: Counter[tuple[str, str]] = Counter()
        left, came = Counter(self.before), Counter(self.after)
        for (old, new), rows in self.both.items():
            found[_name(old), _name(new)] += rows
            left[old] -= rows
            came[new] -= rows
        for fate, rows in left.items():
            found[_name(fate), ABSENT] += rows
        for fate, rows in came.items():
            found[ABSENT, _name(fate)] += rows
        order = [KEPT, *(_rejected_by(stage) for stage in STAGES), ABSENT]
        named = sorted(found, key=lambda pair: tuple(order.index(fate) for fate in pair))
        return tuple(Transition(*pair, found[pair]) for pair in named if found[pair])

    def reasons(self) -> tuple[ReasonChange, ...]:
        """Count rows by reason before and after, in the order of the stages, then by name."""
        fates = {(stage, reason) for stage, reason in (*self.before, *self.after) if stage and reason}
        stay = Counter({old: rows for (old, new), rows in self.both.items() if old == new})
        return tuple(
            ReasonChange(
                stage=stage,
                reason=reason,
                sentence=sentence(reason),
                before=self.before.get((stage, reason), 0),
                after=self.after.get((stage, reason), 0),
                came=self.after.get((stage, reason), 0) - stay[stage, reason],
                left=self.before.get((stage, reason), 0) - stay[stage, reason],
            )
            for stage, reason in sorted(fates, key=lambda fate: (STAGES.index(fate[0]), fate[1]))
        )


def fates(before: Dataset, after: Dataset, paired: Iterable[Pair]) -> Fates:
    """Count what becomes of rows. Reads: stage, reject_reason, split of the rows that both versions have."""
    both: Counter[tuple[Fate, Fate]] = Counter()
    moves: Counter[tuple[str, str]] = Counter()
    for pair in paired:
        old, new = pair.columns(_OUTCOME)
        beside = pl.concat([old, new.rename({c: f"{c}_after" for c in _OUTCOME})], how="horizontal")
        for stage, reason, split, new_stage, new_reason, new_split, rows in beside.group_by(pl.all()).len().iter_rows():
            both[(stage, reason), (new_stage, new_reason)] += rows
            if stage is None and new_stage is None and split and new_split:
                moves[split, new_split] += rows
    return Fates(both, _by_fate(before.manifest), _by_fate(after.manifest), dict(sorted(moves.items())))


def _by_fate(manifest: Manifest) -> dict[Fate, int]:
    """Count the rows of a version by fate, from the counts of its stages."""
    found: dict[Fate, int] = {(c.stage, reason): n for c in manifest.counts for reason, n in c.rejected.items()}
    return {**found, (None, None): manifest.counts[-1].kept if manifest.counts else 0}


def _name(fate: Fate) -> str:
    return KEPT if fate[0] is None else _rejected_by(fate[0])


def _rejected_by(stage: str) -> str:
    return f"rejected by {stage}"
