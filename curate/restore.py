"""Restore: somebody decides that rows are kept after all, by their names.

The decision is a response in the ledger of reviews (`curate.review.responses`), so it lives as those do: it is about
the row's text as it stands, it is applied again when stages run again, and it is stale when the text is another one. It
decides alone: neither votes nor the budget of `select` stand above it. What does: a leak, personal data that nobody
redacted, a licence that bars the source; and a row that could not be read has nothing to keep.
"""

import getpass
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from curate.naming import Named, find_rows, unique
from curate.pipeline import apply_stage
from curate.review.decide import why_restored
from curate.review.objection import Objections
from curate.review.pseudonym import has_pseudonyms, pseudonyms
from curate.review.responses import RESTORE, Response, ledger_of, read_ledger
from curate.review.stage import decisions, review_stage, said_about
from curate.stages import REVIEW
from curate.store import Store
from curate.version import Commit
from schemas.dataset import Dataset
from schemas.errors import CheckFailedError, ConfigError
from schemas.manifest import Manifest
from schemas.reasons import sentence
from schemas.review_config import ReviewConfig

_READ = ("id", "content_hash", "kept", "reject_reason", "verdict_ingest")


@dataclass(frozen=True)
class Restored:
    """What a restore did: the rows that are kept now (or, undone, no longer restored), and those with nothing to do."""

    commit: Commit
    rows: tuple[Named, ...]
    left: tuple[tuple[Named, str], ...]
    """Rows that needed nothing, and why."""
    reasons: Mapping[str, str]
    """By id, the reason for which a row had been left out."""
    notes: tuple[str, ...] = ()


def restore(
    store: Store,
    dataset: Dataset,
    names: Sequence[str],
    *,
    by: str | None = None,
    because: str | None = None,
    at: datetime | None = None,
    message: str | None = None,
    latest: Manifest | None = None,
) -> Restored:
    """Keep rows after all, and commit; all of them, or nothing. Rows that are kept already need nothing.

    `by`: who decides, by default the user of this machine; `at`: when, by default now; `latest` as in `apply_stage`.
    Raises UnknownReferenceError for names that are of no row, CheckFailedError for rows that cannot be kept.
    """
    if odd := [words for words in (by, because) if words and any("\ud800" <= sign <= "\udfff" for sign in words)]:
        raise ConfigError("restore", f"{odd[0]!r} is not UTF-8", "words in UTF-8")
    rows = _found(dataset, names)
    states = _states(dataset, rows)
    left = tuple((row, "is kept already") for row in rows if states[row.id]["kept"])
    wanted = tuple(row for row in rows if not states[row.id]["kept"])
    ledger = read_ledger(dataset)
    who = _known_as(store, ledger, by)
    moment = (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    about = {"review": RESTORE, "reviewer": who, "because": because or None, "updated_at": moment}
    said = ledger_of(_response(row.id, states[row.id]["content_hash"], about) for row in wanted)
    key = ["review", "id", "content_hash", "reviewer"]
    new = pl.concat([ledger.join(said, on=key, how="anti"), said])
    decided = why_restored([who], [because] if because else [])
    if refused := _refused(dataset, wanted, states, new, f"{decided}, but "):
        told = "; ".join(f"{row.place} ({row.id[:12]}): {why}" for row, why in refused)
        what = "1 row" if len(refused) == 1 else f"{len(refused):,} rows"
        remedy = "nothing was committed" + ("; name the others without them" if len(refused) < len(wanted) else "")
        raise CheckFailedError(
            f"restore, {what} of {dataset.manifest.name}@{dataset.manifest.seq}", told, remedy=remedy
        )
    reasons = {row.id: str(states[row.id]["reject_reason"]) for row in wanted}
    told = message or f"restore {_told(wanted)}{f': {because}' if because else ''}"
    commit, notes = _committed(store, dataset, new, told, latest) if wanted else (_same(dataset), ())
    return Restored(commit, wanted, left, reasons, notes)


def take_back(
    store: Store, dataset: Dataset, names: Sequence[str], *, message: str | None = None, latest: Manifest | None = None
) -> Restored:
    """Take back that rows were restored, and commit: the stages and the votes decide about them again."""
    rows = _found(dataset, names)
    ledger = read_ledger(dataset)
    restored = set(ledger.filter(review=RESTORE)["id"])
    left = tuple((row, "was not restored") for row in rows if row.id not in restored)
    wanted = tuple(row for row in rows if row.id in restored)
    is_gone = (pl.col("review") == RESTORE) & pl.col("id").is_in([row.id for row in wanted])
    told = message or f"no longer restored: {_told(wanted)}"
    changed = _committed(store, dataset, ledger.filter(~is_gone), told, latest) if wanted else (_same(dataset), ())
    states = _states(Dataset(changed[0].manifest, dataset.root), wanted)
    reasons = {row.id: str(states[row.id]["reject_reason"] or "kept") for row in wanted}
    return Restored(changed[0], wanted, left, reasons, changed[1])


def _found(dataset: Dataset, names: Sequence[str]) -> list[Named]:
    named = unique(names)
    if not named:
        raise ConfigError("restore", "no row is named", "an id, the first letters of one, or SOURCE:ROW")
    return find_rows(dataset, named)


def _states(dataset: Dataset, rows: Sequence[Named]) -> dict[str, dict[str, Any]]:
    """Read what a version says of rows, by id. Reads: _READ."""
    found: dict[str, dict[str, Any]] = {}
    for shard in dataset.shards:
        own = [row.index for row in rows if (row.shard.source, row.shard.number) == (shard.source, shard.number)]
        if own:
            here = pl.col("index").is_in(pl.Series(own, dtype=pl.UInt32).implode())
            for state in shard.view(_READ).with_row_index("index").filter(here).collect().iter_rows(named=True):
                found[state["id"]] = state
    return found


def _response(row_id: str, text: str, about: Mapping[str, Any]) -> Response:
    nothing: dict[str, Any] = {"rating": None, "issues": None, "correction": None, "suggested": None}
    asked = {"suggested_by": None, "min_submitted": 1, "cut": False, "status": "submitted", "verdict": "keep"}
    return Response(id=row_id, content_hash=text, **nothing, **asked, **about)


def _known_as(store: Store, ledger: pl.DataFrame, by: str | None) -> str:
    """Give the name by which the ledger knows who restores; a pseudonym where it has pseudonyms."""
    name = " ".join((by if by is not None else getpass.getuser()).split())
    if not name:
        raise ConfigError("restore, by", "is blank", "the name of who decides")
    return pseudonyms(store.root)(name) if has_pseudonyms(ledger) else name


def _refused(
    dataset: Dataset, rows: Sequence[Named], states: Mapping[str, Mapping[str, Any]], ledger: pl.DataFrame, decided: str
) -> list[tuple[Named, str]]:
    """Give the rows that would not be kept, and why: decided as the stage will, before anything is written."""
    said = said_about(ledger.filter(pl.col("id").is_in([row.id for row in rows])))
    config, objections = _config(dataset), Objections.of(dataset)
    outcomes = {
        row["id"]: outcome
        for shard in {(row.shard.source, row.shard.number): row.shard for row in rows}.values()
        for row, outcome in decisions(shard, said, config, objections)
    }
    refused: list[tuple[Named, str]] = []
    for row in rows:
        if broken := states[row.id]["verdict_ingest"]:
            refused.append((row, f"it could not be read: {sentence(broken).rstrip('.')}"))
        elif outcomes[row.id].decision.override != "keep":
            refused.append((row, outcomes[row.id].decision.why.removeprefix(decided)))
    return refused


def _config(dataset: Dataset) -> ReviewConfig:
    entry = dataset.manifest.stage(REVIEW)
    return ReviewConfig.model_validate(entry.config) if entry else ReviewConfig()


def _committed(
    store: Store, dataset: Dataset, ledger: pl.DataFrame, message: str, latest: Manifest | None
) -> tuple[Commit, tuple[str, ...]]:
    result, commit = apply_stage(
        store,
        dataset,
        REVIEW,
        _config(dataset),
        message=message,
        latest=latest,
        makers={REVIEW: lambda _dataset, _config: review_stage(ledger)},
    )
    return commit, result.notes


def _same(dataset: Dataset) -> Commit:
    return Commit(dataset.manifest, is_new=False)


def _told(rows: Sequence[Named]) -> str:
    return rows[0].place if len(rows) == 1 else f"{len(rows):,} rows"
