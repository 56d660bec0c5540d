"""Objections: what speaks against keeping a row and cannot be seen in it, so that people's `keep` does not stand.

People judge what a row says. That it also stands in an evaluation split, they cannot know; and a name or a number in it
is easily overlooked, while the dataset promises that all of them are redacted or left out. Two things were never looked
through for personal data: a row that a stage before `pii` left out and that people restore, and what they wrote
themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from curate.licences import not_commercial
from curate.pii.redact import evidence
from curate.pii.search import Search
from curate.review.decide import Outcome
from schemas.config import PiiConfig
from schemas.dataset import Dataset

NEEDS = ("source", "messages", "context", "content_hash", "entities", "reject_reason")
"""Columns of a row, as the stages before review leave it, that an objection is made from."""


@dataclass(frozen=True)
class Objections:
    """What a version's stages hold against decisions of people. Make it with `Objections.of`."""

    pii: PiiConfig | None
    """How personal data is looked for; None where nothing is done about it."""
    barred: frozenset[str] = frozenset()
    """Sources whose rows `select --commercial` leaves out. It never saw the rows that a stage before it left out."""

    @classmethod
    def of(cls, dataset: Dataset) -> "Objections":
        """Make those of a version, from what its manifest says of the stage `pii`."""
        entry = dataset.manifest.stage("pii")
        config = PiiConfig.model_validate(entry.config) if entry else PiiConfig(action="report")
        chosen = dataset.manifest.stage("select")
        commercial = chosen is not None and chosen.config.get("commercial")
        barred = not_commercial(dataset.manifest.sources) if commercial else {}
        return cls(config if config.action != "report" else None, frozenset(barred))

    @cached_property
    def _search(self) -> Search | None:
        return Search.of(self.pii) if self.pii else None

    def applied(self, row: Mapping[str, Any], outcome: Outcome) -> Outcome:
        """Give the outcome; unresolved, and the row as the stages leave it, where something speaks against keeping it.

        Reads: NEEDS.
        """
        if outcome.decision.override != "keep":
            return outcome
        if (why := self._why(row, outcome)) is None:
            return self._within_budget(row, outcome)
        told = f"{outcome.decision.why}, but {why}"
        decision = replace(outcome.decision, status="unresolved", verdict=None, why=told)
        as_it_was = {"messages": row["messages"], "content_hash": row["content_hash"], "corrected_by": ()}
        return replace(outcome, decision=decision, **as_it_was)

    def _within_budget(self, row: Mapping[str, Any], outcome: Outcome) -> Outcome:
        """Leave out what the stage select left out: that a row is fit to learn from makes no budget larger.

        Who restores this very row wants it in spite of the budget; a licence that bars its source stands all the same.
        """
        decision, reason = outcome.decision, row["reject_reason"]
        barred = reason == "select:licence" or (reason is not None and row["source"] in self.barred)
        if not barred and (decision.by_name or not str(reason).startswith("select:")):
            return outcome
        what = "the licence of its source bars it" if barred else "select had no room for it"
        told = f"{decision.why}, but {what}"
        return replace(outcome, decision=replace(decision, why=told, restores=False))

    def _why(self, row: Mapping[str, Any], outcome: Outcome) -> str | None:
        if row["reject_reason"] == "leak:bridge":
            return "it would be a leak: a row like it is in an evaluation split"
        searched = row["entities"] is not None
        if self._search is None or (searched and outcome.content_hash == row["content_hash"]):
            return None
        before = self._search.entities(row["messages"], row["context"]) if searched else []
        known = {(e.finding.kind, e.finding.value) for e in before}
        every = self._search.entities(outcome.messages, row["context"])
        found = [e for e in every if (e.finding.kind, e.finding.value) not in known]
        return f"nobody redacted its personal data: {evidence(found, outcome.messages)}" if found else None
