"""Responses: what people said about rows, as the version keeps it. The ledger of reviews.

One row per reviewer and reviewed text. A record of Argilla is named by the row's id and the hash of the text that was
shown, so that a row which was edited since is not taken for the one that people saw.
"""

import polars as pl

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
        "updated_at": pl.String,
    }
)
"""review: the dataset in Argilla. status: submitted or discarded (drafts are not kept). verdict: keep, fix, reject.
suggested: the verdict that the reviewer was shown as a suggestion; null where there was none. min_submitted: responses
that a record needs to be complete. updated_at: UTC, ISO 8601."""

HASH_LENGTH = 32


def external_id(row_id: str, content_hash: str) -> str:
    """Name a row and its text for Argilla: 32 hex digits, a hyphen, 32 hex digits."""
    return f"{row_id}-{content_hash}"


def named_row(external: str | None) -> tuple[str, str] | None:
    """Give (id, content_hash) of a record's external id; None where it is not one of ours."""
    row_id, hyphen, text = (external or "").partition("-")
    whole = hyphen and len(row_id) == HASH_LENGTH and len(text) == HASH_LENGTH
    return (row_id, text) if whole and set(row_id + text) <= set("0123456789abcdef") else None
