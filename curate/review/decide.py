"""Decide: many people's responses about a row become one decision, and at most one new answer.

A response is about a text, named by its hash. The decision on a text is the verdict of more than half of those who
submitted one. Where it is `fix`, the row's last answer is replaced, which gives a new text; people may have reviewed
that one too, and their decision then stands on top:

    text as the stages leave it ── responses ──> fix ──> corrected text ── responses ──> keep

Responses about any other text of the row are stale: the row was edited since they were given. Who restores a row by its
name (`curate.restore`) decides alone that this text is kept, whatever the others voted.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from curate.review.form import ISSUES
from curate.review.responses import RESTORE, VERDICTS, Response
from schemas.record import content_hash

Status = Literal["decided", "unresolved", "waiting", "stale"]
"""decided: the row is kept or left out. unresolved: enough responses, no decision. waiting: too few responses. stale:
all responses are about a text that the row no longer has."""


@dataclass(frozen=True)
class Decision:
    """What people make of one row. `reviewers` and what follows are of the last text that they said enough about."""

    status: Status
    verdict: str | None = None
    why: str = ""
    reviewers: tuple[str, ...] = ()
    rating: float | None = None
    labels: tuple[str, ...] = ()
    agreement: float | None = None
    reviewed_at: str | None = None
    correction: str | None = None
    """The new last answer, where the verdict is fix."""
    corrected_by: tuple[str, ...] = ()
    restores: bool = True
    """Whether `keep` brings back a row that a stage left out."""
    by_name: bool = False
    """Whether somebody restored this very row, and did not only find it good."""

    @property
    def override(self) -> str | None:
        """What the decision does: keep, reject, or nothing."""
        if self.status != "decided":
            return None
        return "reject" if self.verdict == "reject" else "keep" if self.restores else None


@dataclass(frozen=True)
class Outcome:
    """The decision on a row, its text after all corrections, and what is left to tell of it."""

    decision: Decision
    messages: list[dict[str, Any]]
    content_hash: str
    corrected_by: tuple[str, ...] = ()
    pending: Decision | None = None
    """What stands undecided about a text that an earlier decision made."""
    stale: tuple[Response, ...] = ()
    """Responses about a text that the row does not have."""
    unused: tuple[tuple[Response, str], ...] = ()
    """Responses with a correction that was not taken, and why."""

    @property
    def kind(self) -> str:
        """Give the decision as a word: keep, fix (kept with a correction), reject; else its status."""
        if self.decision.status != "decided":
            return self.decision.status
        return "fix" if self.corrected_by and self.decision.override == "keep" else str(self.decision.verdict)


def decide_row(
    messages: Sequence[Mapping[str, Any]],
    context: str | None,
    said: Mapping[str, Sequence[Response]],
    *,
    min_submitted: int | None = None,
) -> Outcome:
    """Decide on a row, from its text before review and all responses about it, by the hash of the text they are about.

    The text is followed through its corrections for as long as people reviewed it; one that comes back ends that.
    """
    turns = [dict(message) for message in messages]
    text = content_hash(turns, context)
    seen: set[str] = set()
    last = pending = None
    corrected_by: tuple[str, ...] = ()
    left: list[tuple[Response, str]] = []
    while text in said and text not in seen:
        seen.add(text)
        at = last_answer(turns)
        answer = None if at is None else str(turns[at]["content"] or "")
        found = decide_text(said[text], answer, min_submitted=min_submitted)
        if found is None:
            break
        left += _unused(said[text], found, answer)
        if found.status != "decided":
            last, pending = (last, found) if last else (found, None)
            break
        last = found
        if found.correction is None or at is None:
            break
        turns[at] = {**turns[at], "content": found.correction}
        text = content_hash(turns, context)
        corrected_by = tuple(sorted({*corrected_by, *found.corrected_by}))
    stale = tuple(r for about, some in said.items() if about not in seen for r in some if r.counts)
    if last is None:
        last = Decision("stale", why="the text was edited since", reviewers=_names(stale))
    return Outcome(last, turns, text, corrected_by, pending, stale, tuple(left))


def decide_text(
    responses: Sequence[Response], answer: str | None, *, min_submitted: int | None = None
) -> Decision | None:
    """Decide on one text; None where nobody submitted a verdict.

    `answer`: the content of the last assistant turn, None where there is none. A reviewer who was asked in several
    reviews has one voice, the latest. Needed are `min_submitted` responses, else the most that any review asked for.
    """
    counted = one_voice_each(responses)
    if not counted:
        return None
    decision = _voted(counted, answer, min_submitted)
    restorers = [r for r in counted if r.review == RESTORE]
    return _restored(decision, restorers) if restorers else decision


def _restored(decision: Decision, restorers: Sequence[Response]) -> Decision:
    """Give the decision to keep the row after all; a correction that the majority made stays."""
    if decision.status == "decided" and decision.verdict == "fix":
        return replace(decision, by_name=True)
    why = why_restored(_names(restorers), [r.because for r in restorers if r.because])
    return replace(decision, status="decided", verdict="keep", why=why, labels=(), by_name=True)


def why_restored(names: Sequence[str], reasons: Sequence[str]) -> str:
    """Say who restored a row by its name, and why."""
    return f"restored by {' and '.join(names)}" + (f": {'; '.join(dict.fromkeys(reasons))}" if reasons else "")


def _voted(counted: Sequence[Response], answer: str | None, min_submitted: int | None) -> Decision:
    verdicts = Counter(str(r.verdict) for r in counted)
    most, votes = max(verdicts.items(), key=lambda item: (item[1], -VERDICTS.index(item[0])))
    ratings = [r.rating for r in counted if r.rating is not None]
    issues = Counter(issue for r in counted for issue in issues_of(r))
    decision = Decision(
        "unresolved",
        reviewers=_names(counted),
        rating=sum(ratings) / len(ratings) if ratings else None,
        labels=tuple(sorted(name for name, n in issues.items() if 2 * n > len(counted))),
        agreement=votes / len(counted),
        reviewed_at=max(r.updated_at for r in counted),
    )
    needed = min_submitted or max(r.min_submitted for r in counted)
    if len(counted) < needed:
        return replace(decision, status="waiting", why=f"{len(counted)} of {needed} responses")
    if 2 * votes <= len(counted):
        told = ", ".join(f"{verdict} by {_said(counted, verdict)}" for verdict in VERDICTS if verdicts[verdict])
        return replace(decision, why=f"no majority: {told}")
    named = _said(counted, most)
    decision = replace(decision, verdict=most, why=f"by {named}")
    if most == "fix":
        return _corrected(decision, [r for r in counted if r.verdict == "fix"], answer)
    if most == "reject" and decision.labels:
        decision = replace(decision, why=f"by {named}: {', '.join(decision.labels)}")
    return replace(decision, status="decided")


def one_voice_each(responses: Sequence[Response]) -> list[Response]:
    """Give the latest response of each reviewer that holds a verdict, by name."""
    latest: dict[str, Response] = {}
    for response in sorted(responses, key=lambda r: (r.updated_at, r.review)):
        if response.counts:
            latest[response.reviewer] = response
    return [latest[name] for name in sorted(latest)]


def issues_of(response: Response) -> frozenset[str]:
    """Give the issues that a response names, without words that the form does not know."""
    return frozenset(issue for issue in response.issues or () if is_issue(issue))


def is_issue(name: str) -> bool:
    """Whether a name is one of the reasons that the form offers: `family:name` of a family that people can judge."""
    return name.partition(":")[0] in ISSUES


def last_answer(messages: Sequence[Mapping[str, Any]]) -> int | None:
    """Give the position of the last assistant turn, which a correction replaces."""
    return max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=None)


def same_text(one: str, other: str) -> bool:
    """Whether two texts differ in nothing but line ends and the blanks around them, as text fields of browsers do."""
    return _plain(one) == _plain(other)


def _corrected(decision: Decision, fixers: Sequence[Response], answer: str | None) -> Decision:
    """Take the correction that most fixers gave; of those given as often, the one that was submitted last."""
    if answer is None:
        return replace(decision, why="there is no answer to correct")
    changed = [r for r in fixers if _changes(r, answer)]
    by_text: dict[str, list[Response]] = {}
    for response in changed:
        if not response.cut and str(response.correction).strip():
            by_text.setdefault(_plain(str(response.correction)), []).append(response)
    if not by_text:
        cut = any(r.cut for r in changed)
        lacks = "the answer was shown cut, and its correction cannot replace the whole" if cut else "needs a correction"
        return replace(decision, why=lacks)
    given = max(by_text.values(), key=lambda some: (len(some), max((r.updated_at, r.reviewer) for r in some)))
    latest = max(given, key=lambda r: (r.updated_at, r.reviewer))
    authors = _names(given)
    return replace(
        decision,
        status="decided",
        why=f"corrected by {' and '.join(authors)}",
        correction=latest.correction,
        corrected_by=authors,
    )


def _unused(responses: Sequence[Response], decision: Decision, answer: str | None) -> Iterator[tuple[Response, str]]:
    """Say which corrections of a text were not taken, and why."""
    for response in one_voice_each(responses):
        if response.correction is None or (answer is not None and not _changes(response, answer)):
            continue
        if not response.correction.strip():
            yield response, "it is blank"
        elif answer is None:
            yield response, "there is no answer to correct"
        elif response.verdict != "fix":
            yield response, f"it came with the verdict {response.verdict}"
        elif response.cut:
            yield response, "the answer was shown cut"
        elif decision.status == "decided" and response.reviewer not in decision.corrected_by:
            yield response, "the majority said otherwise" if decision.verdict != "fix" else "another one was taken"


def _changes(response: Response, answer: str) -> bool:
    return response.correction is not None and not same_text(response.correction, answer)


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def _said(responses: Sequence[Response], verdict: str) -> str:
    return " and ".join(_names([r for r in responses if r.verdict == verdict]))


def _names(responses: Sequence[Response]) -> tuple[str, ...]:
    return tuple(sorted({r.reviewer for r in responses}))
