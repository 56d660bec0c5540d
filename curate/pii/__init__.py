"""Pii: personal data and secrets in the rows, found, shown masked, and by choice replaced or rejected.

See docs/pii.md for what counts as a finding and what does not.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import polars as pl

from curate.pii.redact import Entity, evidence, masked, redact
from curate.pii.search import KINDS, Search
from curate.stage import Note, Output, Progress, ShardOutput, Stage
from schemas.config import PiiConfig
from schemas.dataset import Dataset, Shard
from schemas.record import OVERLAY_SCHEMA, VERDICT_SCHEMA, content_hash
from schemas.stages import ANNOTATION_COLUMNS

__all__ = ["STAGE"]

_FOUND = pl.Schema({"row": pl.UInt32, **VERDICT_SCHEMA, **ANNOTATION_COLUMNS["pii"]})


class Tally:
    """How much was found of each kind, and one place to look at."""

    def __init__(self) -> None:
        self.findings: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self.example: dict[str, str] = {}

    def add(self, place: str, entities: list[Entity]) -> None:
        """Count the findings of one row."""
        self.findings.update(e.finding.kind for e in entities)
        self.rows.update({e.finding.kind for e in entities})
        for entity in entities:
            self.example.setdefault(entity.finding.kind, f"{place}: {masked(entity.finding)}")

    def notes(self) -> Iterator[Note]:
        """Tell it, a sentence for each kind."""
        for kind in KINDS:
            if self.findings[kind]:
                number, rows = self.findings[kind], self.rows[kind]
                yield Note(f"{kind}: {number:,} in {rows:,} row{'s' if rows > 1 else ''}, such as {self.example[kind]}")


def _positions(entities: list[Entity], messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give kind and place of each finding; those in tool calls count on from the end of the turn's content."""
    found: list[dict[str, Any]] = []
    for entity in entities:
        ahead = (
            len(messages[entity.turn]["content"] or "")
            if entity.field == "tool_calls" and entity.turn is not None
            else 0
        )
        start, end = entity.finding.start + ahead, entity.finding.end + ahead
        found.append({"kind": entity.finding.kind, "turn": entity.turn, "start": start, "end": end})
    return found


def search_shard(shard: Shard, search: Search, action: str, tally: Tally) -> ShardOutput:
    """Give the annotation of one shard, and the overlay of what is redacted.

    Reads: source_row, messages, context, content_hash, kept. Adds: verdict, detail, entities.
    """
    columns = ["source_row", "messages", "context", "content_hash", "kept"]
    rows = shard.view(columns, before_stage="pii").with_row_index("row").collect()
    found: list[dict[str, Any]] = []
    redacted: list[dict[str, Any]] = []
    for row in search.candidates(rows.filter("kept")).iter_rows(named=True):
        entities = search.entities(row["messages"], row["context"])
        if not entities:
            continue
        tally.add(f"{shard.source}:{row['source_row']}", entities)
        kinds = [kind for kind in KINDS if any(e.finding.kind == kind for e in entities)]
        found.append(
            {
                "row": row["row"],
                "verdict": f"pii:{kinds[0]}" if action == "reject" else None,
                "detail": evidence(entities, row["messages"]),
                "entities": _positions(entities, row["messages"]),
            }
        )
        if action == "redact":
            messages, context = redact(row["messages"], row["context"], entities)
            redacted.append(
                {
                    "row": row["row"],
                    "messages": messages,
                    "context": context,
                    "content_hash": content_hash(messages, context),
                    "before_hash": row["content_hash"],
                    "edits": [f"redact:{kind}" for kind in kinds],
                }
            )
    none = pl.lit([], dtype=_FOUND["entities"])
    annotation = (
        rows.select("row", "kept")
        .join(pl.DataFrame(found, schema=_FOUND), on="row", how="left", maintain_order="left")
        .with_columns(entities=pl.when("kept").then(pl.col("entities").fill_null(none)))
        .drop("row", "kept")
    )
    return ShardOutput(shard, annotation, pl.DataFrame(redacted, schema=OVERLAY_SCHEMA))


def run(dataset: Dataset, config: PiiConfig, progress: Progress) -> Iterator[Output]:
    """Look through every row that is kept so far."""
    search, tally = Search.of(config), Tally()
    for shard in dataset.shards:
        yield search_shard(shard, search, config.action, tally)
        progress(shard.rows)
    yield from tally.notes()


STAGE = Stage("pii", 1, PiiConfig, run, features=("overlays",))
