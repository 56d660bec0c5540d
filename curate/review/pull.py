"""Pull: what people said in Argilla, into the ledger of a dataset, and by the stage `review` into a new version.

Everything is fetched before anything is written, and one commit puts all of it in place: a pull that is interrupted
leaves the store as it was. What the server holds about a record replaces what the ledger held; records that were
removed on the server keep their place in the ledger.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import polars as pl

from curate.pipeline import apply_stage
from curate.review.decide import is_issue
from curate.review.pseudonym import has_pseudonyms, pseudonyms
from curate.review.responses import (
    LEDGER_ORDER,
    RATINGS,
    RESPONSES,
    VERDICTS,
    Response,
    ledger_of,
    named_row,
    read_ledger,
)
from curate.review.stage import review_stage
from curate.review.tally import Tally, tally
from curate.stage import Progress, no_progress
from curate.stages import REVIEW
from curate.store import Store
from curate.version import Commit
from schemas.dataset import Dataset
from schemas.errors import ReviewError
from schemas.manifest import Manifest
from schemas.review_config import PullConfig, ReviewConfig

_TEXT = ("review", "id", "content_hash")
"""What names a reviewed text in the ledger."""


class Source(Protocol):
    """What a pull needs of a dataset in Argilla; `curate.review.client.Review` is one."""

    name: str
    min_submitted: int

    def records(self) -> Iterable[dict[str, Any]]:
        """Give all records with responses and suggestions, as the server tells them."""
        ...

    def questions(self) -> dict[str, tuple[str, ...]]:
        """Give the questions by name, each with the values of its labels."""
        ...

    def question_names(self) -> dict[str, str]:
        """Give the questions' names by the server's ids."""
        ...

    def usernames(self) -> dict[str, str]:
        """Give the names of the people who may respond, by the server's ids."""
        ...


@dataclass(frozen=True)
class Unknown:
    """Something in a response that the form does not know, and that therefore counts for nothing."""

    id: str
    reviewer: str
    question: str
    value: str


@dataclass
class Fetched:
    """What a server says: responses, the texts that it has records of, and what could not be taken in."""

    responses: list[Response] = field(default_factory=list[Response])
    texts: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    drafts: list[tuple[str, tuple[str, str]]] = field(default_factory=list[tuple[str, tuple[str, str]]])
    """Who has begun and not submitted an answer about which text."""
    foreign: list[str] = field(default_factory=list[str])
    """Records that no push of ours made, by their external id, or the server's where they have none."""
    unknown: list[Unknown] = field(default_factory=list[Unknown])


@dataclass(frozen=True)
class Pulled:
    """What a pull did: the version, what the server said, and what the reviews of the version now come to."""

    commit: Commit
    fetched: Fetched
    withdrawn: int
    """Responses that the ledger had and the server has no more, though it has the record."""
    tally: Tally
    unhidden: bool = False
    """Whether pseudonyms are new here, so that earlier versions still hold the names."""

    def to_json(self) -> dict[str, Any]:
        """Give all of it as plain values."""
        return {
            "records": len(self.fetched.texts) + len(self.fetched.foreign),
            "submitted": sum(r.status == "submitted" for r in self.fetched.responses),
            "discarded": sum(r.status == "discarded" for r in self.fetched.responses),
            "drafts": len(self.fetched.drafts),
            "foreign": self.fetched.foreign,
            "unknown": [vars(unknown) for unknown in self.fetched.unknown],
            "withdrawn": self.withdrawn,
            **self.tally.to_json(),
        }


def pull(
    store: Store,
    dataset: Dataset,
    review: Source,
    config: PullConfig,
    *,
    message: str | None = None,
    progress: Progress = no_progress,
    latest: Manifest | None = None,
) -> Pulled:
    """Bring what people said into a new version of a dataset; nothing is committed where nothing is new.

    `progress` counts records; `latest` as in `apply_stage`. Raises ReviewError where the server fails or the dataset in
    Argilla is none that asks for verdicts.
    """
    before = read_ledger(dataset)
    hidden = has_pseudonyms(before) if config.pseudonyms is None else config.pseudonyms
    named = pseudonyms(store.root) if hidden else str
    fetched = fetch(review, named, progress)
    unhidden = hidden and before.height > 0 and not has_pseudonyms(before)
    if hidden:
        before = before.with_columns(pl.col("reviewer").map_elements(named, pl.String))
    ledger, withdrawn = merged(before, fetched, review.name)
    commit = Commit(dataset.manifest, is_new=False)
    if ledger.height or dataset.manifest.stage(REVIEW):
        _, commit = apply_stage(
            store,
            dataset,
            REVIEW,
            ReviewConfig(min_submitted=config.min_submitted),
            message=message or f"review: responses from {review.name}",
            latest=latest,
            makers={REVIEW: lambda _dataset, _config: review_stage(ledger)},
        )
    return Pulled(commit, fetched, withdrawn, tally(Dataset(commit.manifest, dataset.root)), unhidden=unhidden)


def fetch(review: Source, named: Callable[[str], str] = str, progress: Progress = no_progress) -> Fetched:
    """Ask the server for all records, and read what people said. Nothing is written.

    `named` gives the name by which a reviewer is known here. Drafts are counted and left out. Of a discarded record
    only that it was discarded is kept: the values that come with it are the suggestions, filled in before anybody
    looked.
    """
    if not asks_for_verdicts(review):
        raise ReviewError(
            f"dataset {review.name!r} in Argilla",
            "it asks for no verdict",
            f"a question `verdict` with {', '.join(VERDICTS)}",
            "name the dataset that sft curate review push made, with --dataset",
        )
    people = {user: named(name) for user, name in review.usernames().items()}
    names = review.question_names()
    verdict = next(question for question, name in names.items() if name == "verdict")
    found = Fetched()
    for record in review.records():
        progress(1)
        text = named_row(record["external_id"])
        if text is None:
            found.foreign.append(str(record["external_id"] or record["id"]))
            continue
        found.texts.append(text)
        suggested = next((s for s in record.get("suggestions") or () if s["question_id"] == verdict), {})
        for given in record.get("responses") or ():
            reviewer = people.get(given["user_id"]) or named(f"user {given['user_id']}")
            if given["status"] == "draft":
                found.drafts.append((reviewer, text))
                continue
            said, unknown = _answers(text[0], reviewer, given)
            found.unknown += unknown
            about = {
                "review": review.name,
                "id": text[0],
                "content_hash": text[1],
                "suggested": suggested.get("value"),
                "suggested_by": suggested.get("agent"),
                "min_submitted": review.min_submitted,
                "cut": (record.get("metadata") or {}).get("cut") == "answer",
            }
            found.responses.append(Response(**about, **said))
    return found


def asks_for_verdicts(review: Source) -> bool:
    """Whether a dataset in Argilla is a review of rows, as a push makes it."""
    return set(VERDICTS) <= set(review.questions().get("verdict", ()))


def merged(ledger: pl.DataFrame, fetched: Fetched, review: str) -> tuple[pl.DataFrame, int]:
    """Put what was fetched in place of what a ledger has about the same records; count the responses that are gone."""
    schema = pl.Schema({name: RESPONSES[name] for name in _TEXT})
    texts = pl.DataFrame([(review, *text) for text in fetched.texts], schema=schema, orient="row")
    new = ledger_of(fetched.responses)
    had = ledger.join(texts, on=_TEXT, how="semi").group_by(_TEXT).len("had")
    has = had.join(new.group_by(_TEXT).len("has"), on=_TEXT, how="left").with_columns(pl.col("has").fill_null(0))
    gone = has.filter(pl.col("had") > pl.col("has")).select(pl.col("had") - pl.col("has")).sum().item()
    return pl.concat([ledger.join(texts, on=_TEXT, how="anti"), new]).sort(LEDGER_ORDER), int(gone)


def _answers(row_id: str, reviewer: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[Unknown]]:
    """Read what a person answered: the columns of the ledger from `reviewer` on, and what the form does not know."""
    submitted = given["status"] == "submitted"
    values = {name: answer["value"] for name, answer in (given["values"] or {}).items()} if submitted else {}
    verdict, rating, issues = (values.get(name) for name in ("verdict", "rating", "issues"))
    unknown: list[tuple[str, Any]] = []
    if submitted and verdict not in VERDICTS:
        unknown.append(("verdict", verdict))
    if rating is not None and rating not in RATINGS:
        unknown.append(("rating", rating))
        rating = None
    unknown += [("issues", issue) for issue in issues or () if not is_issue(str(issue))]
    said = {
        "reviewer": reviewer,
        "status": given["status"],
        "verdict": None if verdict is None else str(verdict),
        "rating": rating,
        "issues": None if issues is None else sorted({str(issue) for issue in issues}),
        "correction": _storable(values.get("correction")),
        "updated_at": _utc(given["updated_at"]),
    }
    return said, [Unknown(row_id, reviewer, question, str(value)) for question, value in unknown]


def _storable(text: str | None) -> str | None:
    """Give a text as UTF-8 can hold it: halves of surrogate pairs become U+FFFD."""
    return None if text is None else str(text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _utc(time: str) -> str:
    """Give a time of the server, which is UTC where it names no zone, in one way of writing that sorts by time."""
    moment = datetime.fromisoformat(time)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
