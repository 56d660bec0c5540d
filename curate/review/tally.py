"""What the reviews of a version come to: decisions, corrections, what is open, what is stale, how far people agree."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import polars as pl

from curate.review.agreement import read_agreement
from curate.review.decide import Outcome
from curate.review.objection import Objections
from curate.review.responses import Response, read_ledger, responses
from curate.review.stage import decisions, restored_from, said_about
from schemas.dataset import Dataset
from schemas.review_config import ReviewConfig

KINDS = ("keep", "fix", "reject", "unresolved", "waiting", "stale")
"""What can become of a row that people reviewed, as `Outcome.kind`."""


@dataclass(frozen=True)
class Row:
    """A row to name to people, and what there is to say about it."""

    id: str
    source: str
    source_file: str
    source_row: int
    why: str


@dataclass(frozen=True)
class Tally:
    """Rows by source and kind, and those to look at."""

    by_source: dict[str, dict[str, int]]
    open: tuple[Row, ...]
    """Unresolved rows, also where only the corrected text is: they stay for review."""
    stale: tuple[Row, ...]
    unused: tuple[Row, ...]
    """Corrections that were not taken, and why."""
    restored: dict[str, int]
    """Rows that people keep and a stage had left out, by its reason."""
    missing: tuple[str, ...]
    """Ids of reviewed rows that the version does not have."""
    responses: int
    discards: int
    agreement: pl.DataFrame

    @property
    def counts(self) -> dict[str, int]:
        """Give the rows by kind, over all sources."""
        return {kind: sum(some[kind] for some in self.by_source.values()) for kind in KINDS}

    def to_json(self) -> dict[str, Any]:
        """Give all of it as plain values."""
        return {
            "decisions": self.counts,
            "by_source": self.by_source,
            "unresolved": [vars(row) for row in self.open],
            "stale": [vars(row) for row in self.stale],
            "corrections_not_taken": [vars(row) for row in self.unused],
            "restored": self.restored,
            "missing": list(self.missing),
            "responses": self.responses,
            "discards": self.discards,
            "agreement": self.agreement.to_dicts(),
        }


def tally(dataset: Dataset) -> Tally:
    """Count what the reviews of a version come to. Reads what `curate.review.stage.decisions` does."""
    ledger = read_ledger(dataset)
    entry = dataset.manifest.stage("review")
    config = ReviewConfig.model_validate(entry.config) if entry else ReviewConfig()
    said, objections = said_about(ledger), Objections.of(dataset)
    restored: Counter[str] = Counter()
    by_source: dict[str, Counter[str]] = {}
    open_, stale, unused = list[Row](), list[Row](), list[Row]()
    found: set[str] = set()
    for shard in dataset.shards:
        for row, outcome in decisions(shard, said, config, objections):
            found.add(row["id"])
            if reason := restored_from(row, outcome):
                restored[reason] += 1
            place = (row["id"], shard.source, row["source_file"], row["source_row"])
            by_source.setdefault(shard.source, Counter())[outcome.kind] += 1
            open_ += [Row(*place, why) for why in _open(outcome)]
            if outcome.stale:
                stale.append(Row(*place, f"what {_people(outcome.stale)} said is about an earlier text"))
            unused += [Row(*place, f"{response.reviewer}: {why}") for response, why in outcome.unused]
    every = list(responses(ledger))
    return Tally(
        {source: {kind: counts[kind] for kind in KINDS} for source, counts in sorted(by_source.items())},
        tuple(open_),
        tuple(stale),
        tuple(unused),
        dict(sorted(restored.items())),
        tuple(sorted(set(said) - found)),
        sum(r.status == "submitted" for r in every),
        sum(r.status == "discarded" for r in every),
        read_agreement(dataset),
    )


def _open(outcome: Outcome) -> Iterable[str]:
    if outcome.decision.status == "unresolved":
        yield outcome.decision.why
    if outcome.pending and outcome.pending.status == "unresolved":
        yield f"the corrected text: {outcome.pending.why}"


def _people(some: Iterable[Response]) -> str:
    return ", ".join(sorted({response.reviewer for response in some}))
