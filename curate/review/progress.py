"""Progress of a review: what each person has done, how long a record takes them, what is left and how long that takes.

Argilla tells when a response was last changed and not how long somebody looked at it. The time of a record is therefore
the gap between two answers of the same person in a row; a gap above `PAUSE_S` was a pause, and says nothing. The median
stands for a person, so that the few gaps in which a phone rang do not count. A record that was changed afterwards
counts by its last change.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise
from statistics import median
from typing import Any

import polars as pl

from curate.review.agreement import agreement
from curate.review.pull import Fetched
from curate.review.responses import ledger_of

PAUSE_S = 600.0
"""A gap above this is a pause (10 minutes: longer than a person takes to read 2,000 words and mend an answer)."""


@dataclass(frozen=True)
class ReviewerProgress:
    """What one person has done: records by state, and those that wait for an answer of theirs."""

    name: str
    submitted: int
    discarded: int
    draft: int
    left: int
    seconds_each: float | None
    """Median time of a record; None before there are two answers without a pause between them."""
    seconds_left: float | None
    """Time for all that is left to this person, if nobody else went on; by the others' pace before they have one."""


@dataclass(frozen=True)
class ReviewProgress:
    """How far a review is. A record is complete when `min_submitted` people have submitted an answer."""

    records: int
    complete: int
    min_submitted: int
    missing: int
    """Answers that are needed until every record is complete."""
    reviewers: tuple[ReviewerProgress, ...]
    seconds_each: float | None
    seconds_left: float | None
    """Working time for the missing answers, over all reviewers together."""
    agreement: pl.DataFrame

    def to_json(self) -> dict[str, Any]:
        """Give all of it as plain values."""
        plain = {name: value for name, value in vars(self).items() if name not in ("reviewers", "agreement")}
        people = [asdict(person) for person in self.reviewers]
        return {**plain, "reviewers": people, "agreement": self.agreement.to_dicts()}


def progress_of(fetched: Fetched, min_submitted: int, members: Iterable[str] = ()) -> ReviewProgress:
    """Say how far a review is, from all that the server has. `members`: people who may answer, begun or not."""
    states: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    times: dict[str, list[float]] = defaultdict(list)
    for reviewer, text in fetched.drafts:
        states[text][reviewer] = "draft"
    for response in fetched.responses:
        states[response.id, response.content_hash][response.reviewer] = response.status
        times[response.reviewer].append(datetime.fromisoformat(response.updated_at).timestamp())
    gaps = {name: _gaps(some) for name, some in times.items()}
    pace = _median([gap for some in gaps.values() for gap in some])
    submitted = {text: sum(s == "submitted" for s in states[text].values()) for text in fetched.texts}
    pending = [text for text, n in submitted.items() if n < min_submitted]
    people: list[ReviewerProgress] = []
    for name in sorted({*members, *(name for some in states.values() for name in some)}):
        done = Counter(some[name] for some in states.values() if name in some)
        left = sum(states[text].get(name, "draft") == "draft" for text in pending)
        own = _median(gaps.get(name, ()))
        each = pace if own is None else own
        people.append(
            ReviewerProgress(
                name,
                done["submitted"],
                done["discarded"],
                done["draft"],
                left,
                own,
                None if each is None else left * each,
            )
        )
    missing = sum(min_submitted - submitted[text] for text in pending)
    return ReviewProgress(
        records=len(fetched.texts),
        complete=len(fetched.texts) - len(pending),
        min_submitted=min_submitted,
        missing=missing,
        reviewers=tuple(people),
        seconds_each=pace,
        seconds_left=None if pace is None else missing * pace,
        agreement=agreement(ledger_of(fetched.responses)),
    )


def _gaps(times: Sequence[float]) -> list[float]:
    """Give the seconds between answers in a row, without pauses."""
    return [gap for one, other in pairwise(sorted(times)) if (gap := other - one) <= PAUSE_S]


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None
