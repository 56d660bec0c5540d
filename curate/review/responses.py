"""Responses: what people said about rows, as the version keeps it. The ledger of reviews.

One row per reviewer and reviewed text. A record of Argilla is named by the row's id and the hash of the text that was
shown, so that a row which was edited since is not taken for the one that people saw.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import polars as pl

from schemas.dataset import Dataset

VERDICTS = ("keep", "fix", "reject")
QUESTIONS = ("verdict", "rating", "issues", "correction")
RATINGS = range(1, 6)

LEDGER = "responses"
"""`made_from` of the index object that holds the ledger."""

RESPONSES = pl.Schema(
    {
        "review": pl.String,
        "id": pl.String,
        "content_hash": pl.String,
        "reviewer": pl.String,
        "status": pl.String,
        "verdict": pl.String,
        "rating": pl.Int8,
        "issues": pl.List(pl.String),
        "correction": pl.String,
        "suggested": pl.String,
        "suggested_by": pl.String,
        "min_submitted": pl.UInt16,
        "cut": pl.Boolean,
        "updated_at": pl.String,
        "because": pl.String,
    }
)
"""review: the dataset in Argilla, or RESTORE. status: submitted or discarded (drafts are not kept). verdict: keep, fix,
reject; any other word is what somebody added to the question, and counts as no verdict. suggested: the verdict that the
reviewer was shown as a suggestion; null where there was none. min_submitted: responses that a record needs to be
complete. cut: the conversation was shown cut, so that a correction cannot stand for the whole answer. updated_at: UTC,
ISO 8601. because: the reason that somebody gave who restored the row; ledgers in which nobody did lack the column."""

RESTORE = "sft:restore"
"""The review of those who restored a row by its name (`curate.restore`); no dataset in Argilla can have that name."""

LEDGER_ORDER = ("review", "id", "content_hash", "reviewer")
"""What names a response, and the order of the ledger."""

HASH_LENGTH = 32


@dataclass(frozen=True, slots=True)
class Response:
    """One row of the ledger."""

    review: str
    id: str
    content_hash: str
    reviewer: str
    status: str
    verdict: str | None
    rating: int | None
    issues: list[str] | None
    correction: str | None
    suggested: str | None
    suggested_by: str | None
    min_submitted: int
    cut: bool
    updated_at: str
    because: str | None = None

    @property
    def counts(self) -> bool:
        """Whether the reviewer gave a verdict that is one."""
        return self.status == "submitted" and self.verdict in VERDICTS


def read_ledger(dataset: Dataset) -> pl.DataFrame:
    """Give the responses that a version holds, in the ledger's order; none where it was never reviewed."""
    files = [f for f in dataset.manifest.files_of("review") if f.role == "index" and f.made_from == LEDGER]
    return pl.concat([RESPONSES.to_frame(), *(pl.read_ipc(dataset.path(file)) for file in files)], how="diagonal")


def responses(ledger: pl.DataFrame) -> Iterator[Response]:
    """Give the rows of a ledger one by one."""
    return (Response(**row) for row in ledger.select(list(RESPONSES)).iter_rows(named=True))


def ledger_of(some: Iterable[Response]) -> pl.DataFrame:
    """Give responses as a ledger, in its order."""
    rows = [tuple(getattr(response, name) for name in RESPONSES) for response in some]
    return pl.DataFrame(rows, schema=RESPONSES, orient="row").sort(LEDGER_ORDER)


def external_id(row_id: str, content_hash: str) -> str:
    """Name a row and its text for Argilla: 32 hex digits, a hyphen, 32 hex digits."""
    return f"{row_id}-{content_hash}"


def named_row(external: str | None) -> tuple[str, str] | None:
    """Give (id, content_hash) of a record's external id; None where it is not one of ours."""
    row_id, hyphen, text = (external or "").partition("-")
    whole = hyphen and len(row_id) == HASH_LENGTH and len(text) == HASH_LENGTH
    return (row_id, text) if whole and set(row_id + text) <= set("0123456789abcdef") else None
