"""Lineage: the life of one row, from its line in a file to the runs that trained on it."""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from curate.store import Store
from schemas.config import DedupConfig
from schemas.dataset import Dataset, Shard
from schemas.errors import SftError, UnknownReferenceError
from schemas.reasons import sentence
from schemas.record import TEXT_SCHEMA
from schemas.stages import STAGES

_WORD = re.compile(r"\s+|\S+")
SHORTEST_PREFIX = 6
"""An id may be shortened to its first letters, as with git; fewer than these are refused as a likely slip."""


@dataclass(frozen=True)
class Event:
    """One thing that happened to a row. `facts` holds what a program may want to read."""

    stage: str
    what: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class Life:
    """A row's life: where it stood, what it says now, whether it is kept, and what happened to it, in order."""

    id: str
    source: str
    source_file: str
    source_row: int
    kept: bool
    reject_reason: str | None
    split: str | None
    text: dict[str, Any]
    history: tuple[Event, ...]

    def to_json(self) -> dict[str, Any]:
        """Give the life as plain values."""
        plain = {k: v for k, v in vars(self).items() if k not in ("history", "text")}
        return {**plain, **self.text, "history": [{"stage": e.stage, "what": e.what, **e.facts} for e in self.history]}


def why(dataset: Dataset, store: Store, row: str) -> Life:
    """Tell the life of one row, named by its id, the first letters of it, or `SOURCE:ROW` (where it stood in its file).

    Raises UnknownReferenceError where no row, or more than one, goes by that name.
    """
    shard, index = _find(dataset, row)
    now = _row(shard.view([*TEXT_SCHEMA, "kept", "reject_reason", "split"]), index)
    history = (*_ingested(shard, now, index), *_stages(dataset, shard, index), *_runs(dataset, store, now["id"]))
    return Life(
        id=now["id"],
        source=now["source"],
        source_file=now["source_file"],
        source_row=now["source_row"],
        kept=now["kept"],
        reject_reason=now["reject_reason"],
        split=now["split"],
        text={k: now[k] for k in ("messages", "context", "tools", "category", "extra")},
        history=history,
    )


def _find(dataset: Dataset, row: str) -> tuple[Shard, int]:
    source, colon, number = row.rpartition(":")
    by_place = bool(colon) and number.isascii() and number.isdigit()
    if not by_place and len(row) < SHORTEST_PREFIX:
        raise UnknownReferenceError(
            f"row {row!r}", "too short for an id", f"{SHORTEST_PREFIX} or more hex digits, or SOURCE:ROW"
        )
    test = (
        (pl.col("source") == source) & (pl.col("source_row") == int(number))
        if by_place
        else pl.col("id").str.starts_with(row)
    )
    found: list[tuple[Shard, int, str]] = []
    for shard in dataset.shards:
        if by_place and shard.source != source:
            continue
        hits = shard.view(["id", "source", "source_row", "source_file"]).with_row_index("n").filter(test).collect()
        found += [(shard, int(hit["n"]), f"{hit['id']} ({hit['source_file']})") for hit in hits.iter_rows(named=True)]
    if not found:
        raise UnknownReferenceError(
            f"row {row!r}", f"not in {dataset.manifest.name}@{dataset.manifest.seq}", "an id, or SOURCE:ROW"
        )
    if len(found) > 1:
        some = ", ".join(name for _, _, name in found[:5])
        raise UnknownReferenceError(f"row {row!r}", f"{len(found)} rows go by that name: {some}", "a name of one row")
    return found[0][:2]


def _row(frame: pl.LazyFrame, index: int) -> dict[str, Any]:
    return frame.slice(index, 1).collect().row(0, named=True)


def _annotation(shard: Shard, stage: str, index: int) -> dict[str, Any] | None:
    path = shard.annotations.get(stage)
    return _row(pl.scan_ipc(path), index) if path else None


def _ingested(shard: Shard, now: Mapping[str, Any], index: int) -> Iterator[Event]:
    judged = _annotation(shard, "ingest", index) or {}
    yield Event("ingest", f"read from {now['source_file']} row {now['source_row']}", {"source_key": now["source_key"]})
    if reason := judged.get("verdict"):
        facts = {"verdict": reason, "detail": judged["detail"]}
        yield Event("ingest", f"rejected: {sentence(reason)}", facts)
    elif judged.get("detail"):
        yield Event("ingest", "noted", {"detail": judged["detail"]})


def _stages(dataset: Dataset, shard: Shard, index: int) -> Iterator[Event]:
    """Tell, in order, what each stage did to the row and said about it; a stage that said nothing is left out."""
    text = _row(pl.scan_ipc(shard.text).select("messages", "context"), index)
    for stage in STAGES[1:]:
        if path := shard.overlays.get(stage):
            edited = _overlay_row(path, index)
            if edited:
                yield _edit(stage, text, edited)
                text = edited
        judged = _annotation(shard, stage, index)
        if judged is None:
            continue
        facts = {name: value for name, value in judged.items() if value not in (None, [])}
        if facts and (scorers := _scorers(dataset, stage)):
            facts["scored_by"] = scorers
        if reason := judged["verdict"]:
            yield Event(stage, f"rejected: {sentence(reason)}", facts | _match(dataset, judged))
        elif facts:
            yield Event(stage, "noted", facts)


def _scorers(dataset: Dataset, stage: str) -> list[str]:
    """Name the scorers whose columns a stage holds, each with its model; the manifest has all that is known of them."""
    entry = dataset.manifest.stage(stage)
    who: dict[str, dict[str, Any]] = entry.config.get("scorers", {}) if entry else {}
    return [f"{name} ({scorer['model']})" for name, scorer in who.items()]


def _overlay_row(path: Path, index: int) -> dict[str, Any] | None:
    found = pl.scan_ipc(path).filter(pl.col("row") == index).collect()
    return found.row(0, named=True) if found.height else None


def _edit(stage: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Event:
    edits = list(after["edits"] or [])
    changes = {field: word_diff(old, new) for field, old, new in _fields(before, after) if old != new}
    facts = {
        "edits": edits,
        "before_hash": after["before_hash"],
        "after_hash": after["content_hash"],
        "changes": changes,
    }
    return Event(stage, "edited: " + "; ".join(sentence(e) for e in edits), facts)


def _fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    old, new = list(before["messages"] or []), list(after["messages"] or [])
    for i in range(max(len(old), len(new))):
        a, b = (old[i] if i < len(old) else {}), (new[i] if i < len(new) else {})
        role = f"{a.get('role') or b.get('role')}"
        yield f"messages[{i}].role", a.get("role") or "", b.get("role") or ""
        yield f"messages[{i}] {role}", a.get("content") or "", b.get("content") or ""
    yield "context", before["context"] or "", after["context"] or ""


def word_diff(before: str, after: str) -> list[tuple[str, str]]:
    """Give the difference as pieces in order: ("same" | "removed" | "added", text). Blanks count as words."""
    a, b = _WORD.findall(before), _WORD.findall(after)
    pieces: list[tuple[str, str]] = []
    for tag, i, j, k, n in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag == "equal":
            pieces.append(("same", "".join(a[i:j])))
            continue
        if i < j:
            pieces.append(("removed", "".join(a[i:j])))
        if k < n:
            pieces.append(("added", "".join(b[k:n])))
    return pieces


def _match(dataset: Dataset, judged: Mapping[str, Any]) -> dict[str, Any]:
    """Show the row that a duplicate was left out for; for an overlap, the other dataset's version that it is in."""
    twin = judged.get("duplicate_of")
    if not twin:
        return {}
    if not judged["verdict"].startswith("overlap:"):
        return {"match": match} if (match := _row_by_id(dataset, twin)) else {}
    entry = dataset.manifest.stage("dedup")
    against = str(entry.config.get("against")) if entry else ""
    try:
        other = _other(dataset, against)
        match = _row_by_id(other, twin) if other else None
    except SftError as error:  # what a row's life says must not hang on another dataset
        return {"against": against, "match_not_found": str(error)}
    version = f"{other.manifest.name}@{other.manifest.seq}" if other else against
    return {"against": version, "match": {"dataset": version, **match}} if match else {"against": version}


def _other(dataset: Dataset, against: str) -> Dataset | None:
    from curate.dedup.against import open_other  # noqa: PLC0415 # numba comes with it, and few rows need it

    return open_other(dataset, DedupConfig(against=against))


def _row_by_id(dataset: Dataset, row_id: str) -> dict[str, Any] | None:
    for shard in dataset.shards:
        found = (
            shard.view(["id", "source", "source_file", "source_row", "messages", "context"])
            .filter(pl.col("id") == row_id)
            .collect()
        )
        if found.height:
            return found.row(0, named=True)
    return None


def _runs(dataset: Dataset, store: Store, row_id: str) -> Iterator[Event]:
    """Tell which registered runs read this dataset and what the row's loss was."""
    for run in store.runs():
        if run.get("dataset") != dataset.manifest.name or not run.get("records"):
            continue
        path = store.root / "objects" / run["records"][:2] / f"{run['records']}.arrow"
        if not path.exists():
            continue
        found = pl.scan_ipc(path).filter(pl.col("id") == row_id).collect()
        if found.height:
            losses = {k: v for k, v in found.row(0, named=True).items() if k != "id" and v is not None}
            yield Event("train", f"run {run['run_id']}", {"run": run["run_id"], "version": run.get("seq"), **losses})
