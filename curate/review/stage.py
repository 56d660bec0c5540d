"""The stage `review`: what people decided, as an annotation, and their corrections, as an overlay.

Its input is the ledger of responses. A pull hands it a new one; when other stages run again on a version that was
reviewed, the ledger of that version is applied again over the new texts, so that a decision never stands about a text
that its reviewers did not see.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from curate.review.agreement import AGREEMENT, agreement
from curate.review.decide import Outcome, decide_row
from curate.review.objection import NEEDS, Objections
from curate.review.responses import LEDGER, LEDGER_ORDER, RESPONSES, Response, read_ledger, responses
from curate.stage import IndexOutput, Note, Output, Progress, ShardOutput, Stage
from schemas.dataset import Dataset, Shard
from schemas.record import OVERLAY_SCHEMA, VERDICT_SCHEMA
from schemas.review_config import ReviewConfig
from schemas.stages import ANNOTATION_COLUMNS

_OPINION = pl.Schema({"row": pl.UInt32, **VERDICT_SCHEMA, **ANNOTATION_COLUMNS["review"]})
_TEXT = ("id", "source_file", "source_row", *NEEDS)
_BEFORE_DEDUP = ("rule", "custom", "pii")
"""Families of reasons that leave a row out before dedup and decontaminate see it."""

Said = Mapping[str, Mapping[str, Sequence[Response]]]
"""Responses by row id, then by the hash of the text that they are about."""


def review_stage(ledger: pl.DataFrame | None = None) -> Stage:
    """Make the stage from a ledger; without one it applies the ledger that the version has."""

    def run(dataset: Dataset, config: Any, progress: Progress) -> Iterator[Output]:
        if ledger is None:  # both indexes are made from what people said alone: they are taken over as they are
            yield from (file for file in dataset.manifest.files_of("review") if file.role == "index")
            yield from _decided(dataset, config, progress, read_ledger(dataset))
            return
        ordered = ledger.select(list(RESPONSES)).sort(LEDGER_ORDER)
        gives_reasons = ordered["because"].count() > 0  # without one, the object stays what it was without the column
        yield IndexOutput(ordered if gives_reasons else ordered.drop("because"), made_from=LEDGER)
        yield IndexOutput(agreement(ordered), made_from=AGREEMENT)
        yield from _decided(dataset, config, progress, ordered)

    return Stage("review", 1, ReviewConfig, run, remembers=True)


def _decided(dataset: Dataset, config: ReviewConfig, progress: Progress, ledger: pl.DataFrame) -> Iterator[Output]:
    """Decide on every row that people said something about.

    Reads: what `decisions` does. Adds: the columns of `review`.
    """
    said, objections = said_about(ledger), Objections.of(dataset)
    found: list[Outcome] = []
    restored: Counter[str] = Counter()
    for shard in dataset.shards:
        opinions: list[dict[str, Any]] = []
        edits: list[dict[str, Any]] = []
        for row, outcome in decisions(shard, said, config, objections):
            found.append(outcome)
            if reason := restored_from(row, outcome):
                restored[reason] += 1
            opinions.append({"row": row["row"], **_opinion(outcome)})
            if outcome.content_hash != row["content_hash"]:
                edits.append(_edit(row, outcome))
        every = pl.DataFrame({"row": pl.arange(shard.rows, dtype=pl.UInt32, eager=True)})
        known = pl.DataFrame(opinions, schema=_OPINION)
        annotation = every.join(known, on="row", how="left", maintain_order="left").drop("row")
        yield ShardOutput(shard, annotation, pl.DataFrame(edits, schema=OVERLAY_SCHEMA) if edits else None)
        progress(shard.rows)
    yield from map(Note, _notes(said, found))
    yield from map(Note, told_restored(restored))


def decisions(
    shard: Shard, said: Said, config: ReviewConfig, objections: Objections
) -> Iterator[tuple[dict[str, Any], Outcome]]:
    """Decide on the rows of a shard that people said something about; gives each with its text before review.

    Reads: id, source_file, source_row, verdict_ingest, messages, context, content_hash, entities, reject_reason. Adds:
    row (in the shard).
    """
    for row in _reviewed(shard, pl.LazyFrame({"id": list(said)}, schema={"id": pl.String})):
        outcome = decide_row(row["messages"], row["context"], said[row["id"]], min_submitted=config.min_submitted)
        yield row, objections.applied(row, outcome)


def restored_from(row: Mapping[str, Any], outcome: Outcome) -> str | None:
    """Give the reason for which a stage had left a row out that people keep; None for all other rows."""
    return row["reject_reason"] if outcome.decision.override == "keep" else None


def told_restored(restored: Mapping[str, int]) -> Iterator[str]:
    """Say which rows people restored, by the reason that they had been left out for, and what nobody looked at."""
    if not restored:
        return
    yield f"restored by people: {', '.join(f'{n:,} {reason}' for reason, n in sorted(restored.items()))}"
    if n := restored.get("contaminated:eval", 0):
        yield f"warning: {n:,} restored rows hold items of an evaluation: a score on it will mean less"
    if n := sum(n for reason, n in restored.items() if reason.partition(":")[0] in _BEFORE_DEDUP):
        yield f"warning: dedup and decontaminate never saw {n:,} of the restored rows, which had been left out before"


def said_about(ledger: pl.DataFrame) -> Said:
    """Order the ledger by row and text; rows that nobody gave a verdict on are left out."""
    by_row: dict[str, dict[str, list[Response]]] = defaultdict(lambda: defaultdict(list))
    for response in responses(ledger):
        by_row[response.id][response.content_hash].append(response)
    return {row: texts for row, texts in by_row.items() if any(r.counts for some in texts.values() for r in some)}


def _reviewed(shard: Shard, ids: pl.LazyFrame) -> Iterator[dict[str, Any]]:
    """Give the rows of a shard that people said something about, as the stages before leave them.

    A row that could not be read has no text that anybody could have judged. Texts are read of these rows alone.
    """
    own = shard.view(["id", "verdict_ingest"], before_stage="review").with_row_index("row")
    found = own.join(ids, on="id", how="semi").filter(pl.col("verdict_ingest").is_null()).collect()
    if not found.height:
        return iter(())
    texts = shard.view(_TEXT, before_stage="review").with_row_index("row")
    return texts.filter(pl.col("row").is_in(found["row"].implode())).collect().iter_rows(named=True)


def _opinion(outcome: Outcome) -> dict[str, Any]:
    """Give the columns of the annotation for one row; an undecided review of a corrected text is told in the detail."""
    decision = outcome.decision
    more = f"; of the corrected text: {outcome.pending.why}" if outcome.pending else ""
    return {
        "verdict": "review:rejected" if decision.override == "reject" else None,
        "detail": decision.why + more,
        "override": decision.override,
        "review_status": decision.status,
        "rating": decision.rating,
        "labels": list(decision.labels) or None,
        "reviewers": list(decision.reviewers),
        "agreement": decision.agreement,
        "reviewed_at": decision.reviewed_at,
        "corrected_by": list(outcome.corrected_by) or None,
    }


def _notes(said: Said, found: Sequence[Outcome]) -> Iterator[str]:
    """Say what became of the reviews, in three lines at most; nothing where there are none."""
    if not said:
        return
    kinds = Counter(outcome.kind for outcome in found)
    names = {"keep": "kept", "fix": "corrected", "reject": "rejected", "unresolved": "unresolved", "waiting": "waiting"}
    told = [f"{n:,} {name}" for kind, name in names.items() if (n := kinds[kind])]
    yield f"rows that people reviewed: {', '.join(told) or 'none of them in this version as it was'}"
    if stale := sum(1 for outcome in found if outcome.stale):
        yield f"{stale:,} rows were edited since people reviewed them: what was said is not applied"
    if gone := len(said) - len(found):
        yield f"{gone:,} rows that people reviewed are not in this version"


def _edit(row: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
    return {
        "row": row["row"],
        "messages": outcome.messages,
        "context": row["context"],
        "content_hash": outcome.content_hash,
        "before_hash": row["content_hash"],
        "edits": ["review:corrected"],
    }


STAGE = review_stage()
