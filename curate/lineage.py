"""Lineage: the life of one row, from its line in a file to the runs that trained on it."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from curate.change import texts_by_name, word_diff
from curate.naming import find_row
from curate.past import Step, past_of
from curate.review.decide import decide_row
from curate.review.responses import RESPONSES, RESTORE, Response, read_ledger, responses
from curate.review.stage import said_about
from curate.store import Store
from schemas.config import DedupConfig
from schemas.dataset import Dataset, Shard
from schemas.errors import CorruptObjectError, SftError
from schemas.reasons import sentence
from schemas.record import TEXT_SCHEMA
from schemas.remote import remote_of
from schemas.stages import before


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
    versions: tuple[Step, ...] = ()
    """The versions in which something became of the row, from the first on."""

    def to_json(self) -> dict[str, Any]:
        """Give the life as plain values."""
        plain = {k: v for k, v in vars(self).items() if k not in ("history", "text", "versions")}
        history = [{"stage": e.stage, "what": e.what, **e.facts} for e in self.history]
        return {**plain, **self.text, "history": history, "versions": [vars(step) for step in self.versions]}


def why(dataset: Dataset, store: Store, row: str) -> Life:
    """Tell the life of one row, named by its id, the first letters of it, or `SOURCE:ROW` (where it stood in its file).

    Raises UnknownReferenceError where no row, or more than one, goes by that name.
    """
    named = find_row(dataset, row)
    shard, index = named.shard, named.index
    now = _row(shard.view([*TEXT_SCHEMA, "kept", "reject_reason", "split"]), index)
    history = (
        *_ingested(dataset, shard, now, index),
        *_stages(dataset, shard, index),
        *_reviewed(dataset, shard, index),
        *_runs(dataset, store, now["id"]),
        *_comparisons(dataset, store, now["id"]),
    )
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
        versions=past_of(dataset, named),
    )


def _row(frame: pl.LazyFrame, index: int) -> dict[str, Any]:
    return frame.slice(index, 1).collect().row(0, named=True)


def _annotation(shard: Shard, stage: str, index: int) -> dict[str, Any] | None:
    path = shard.annotations.get(stage)
    return _row(pl.scan_ipc(path), index) if path else None


def _ingested(dataset: Dataset, shard: Shard, now: Mapping[str, Any], index: int) -> Iterator[Event]:
    judged = _annotation(shard, "ingest", index) or {}
    source = dataset.manifest.source(shard.source)
    facts = {"source_key": now["source_key"], "license": source.license if source else None}
    yield Event("ingest", f"read from {now['source_file']} row {now['source_row']}", facts)
    if reason := judged.get("verdict"):
        facts = {"verdict": reason, "detail": judged["detail"]}
        yield Event("ingest", f"rejected: {sentence(reason)}", facts)
    elif judged.get("detail"):
        yield Event("ingest", "noted", {"detail": judged["detail"]})


def _stages(dataset: Dataset, shard: Shard, index: int) -> Iterator[Event]:
    """Tell, in order, what each stage did to the row and said about it; a stage that said nothing is left out."""
    text = _row(pl.scan_ipc(shard.text).select("messages", "context"), index)
    for stage in before("review")[1:]:
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


def _reviewed(dataset: Dataset, shard: Shard, index: int) -> Iterator[Event]:
    """Tell what each reviewer said and when, the correction with its authors, and the decision."""
    row = _row(shard.view(["id", "messages", "context"], before_stage="review"), index)
    own = read_ledger(dataset).filter(pl.col("id") == row["id"]).sort("updated_at", "reviewer")
    if not own.height:
        return
    entry = dataset.manifest.stage("review")
    said = said_about(own).get(row["id"], {})
    needed = entry.config["min_submitted"] if entry else None
    outcome = decide_row(row["messages"] or [], row["context"], said, min_submitted=needed)
    unused = {(r.review, r.content_hash, r.reviewer): why for r, why in outcome.unused}
    for response in responses(own):
        not_taken = unused.get((response.review, response.content_hash, response.reviewer))
        told = _response(response, stale=response in outcome.stale, not_taken=not_taken)
        facts = {name: getattr(response, name) for name in RESPONSES if name != "id"}
        yield Event("review", told, facts | ({"correction_not_taken": not_taken} if not_taken else {}))
    judged = _annotation(shard, "review", index)
    if judged is None or judged["review_status"] is None:
        return
    if (path := shard.overlays.get("review")) and (edited := _overlay_row(path, index)):
        edit = _edit("review", row, edited)
        authors = " and ".join(judged["corrected_by"] or ())
        yield replace(edit, what=edit.what.replace("edited:", f"edited by {authors}:", 1))
    kept = "kept" if judged["review_status"] == "decided" else judged["review_status"]
    told = f"rejected: {sentence(judged['verdict'])}" if judged["verdict"] else kept
    yield Event("review", f"{told} ({judged['detail']})", {k: v for k, v in judged.items() if v not in (None, [])})


def _response(response: Response, *, stale: bool, not_taken: str | None) -> str:
    """Say in one line what a reviewer said."""
    said = "kept after all" if response.review == RESTORE else response.verdict or response.status
    told = f"{response.reviewer}, {response.updated_at[:19].replace('T', ' ')} UTC: {said}"
    told += f", because: {response.because}" if response.because else ""
    told += f", rating {response.rating}" if response.rating is not None else ""
    told += f"; issues: {', '.join(response.issues)}" if response.issues else ""
    told += f"; the correction was not taken: {not_taken}" if not_taken else ""
    return told + ("; of an earlier text" if stale else "")


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
    changes = {field: word_diff(old, new) for field, old, new in texts_by_name(before, after)}
    facts = {
        "edits": edits,
        "before_hash": after["before_hash"],
        "after_hash": after["content_hash"],
        "changes": changes,
    }
    return Event(stage, f"edited: {'; '.join(sentence(e).rstrip('.') for e in edits)}.", facts)


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
        if remote := remote_of(store.root):
            with suppress(CorruptObjectError):  # lost there as it may be in a folder: its losses are not told
                remote.hold(run["records"])
        if not path.exists():
            continue
        found = pl.scan_ipc(path).filter(pl.col("id") == row_id).collect()
        if found.height:
            facts = {k: v for k, v in found.row(0, named=True).items() if k != "id" and v is not None}
            told = _trained(run, facts)
            yield Event("train", told, {"run": run["run_id"], "version": run.get("seq"), **facts})


def _trained(run: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Say what a run did with a row: learnt from it, or was measured on it; and its loss, in nats per target."""
    read = facts.get("split", "train") in {"train", "replay"}
    did = "trained on it" if read else f"was measured on it, as {facts['split']}"
    if facts.get("split") == "train" and facts.get("seen") == 0:
        did = "ended before it was read"
    of = f", version {run['seq']}" if run.get("seq") is not None else ""
    before = f"{facts['loss_before']:.3f} -> " if facts.get("loss_before") is not None else ""
    loss = f": loss {before}{facts['loss']:.3f}" if facts.get("loss") is not None else ""
    return f"run {run['run_id']}{of}, {did}{loss}"


def _comparisons(dataset: Dataset, store: Store, row_id: str) -> Iterator[Event]:
    """Tell how people compared what a run's model, its base model and the row itself answer to the row's prompt."""
    runs = [r for r in store.runs() if r.get("dataset") == dataset.manifest.name and r.get("objects", {})]
    if not runs:
        return
    from curate.review.outcome import outcome_of  # noqa: PLC0415 # reviews come with it, and few datasets have such runs

    for run in runs:
        for found in outcome_of(store, run).compared:
            if found.row["id"] != row_id:
                continue
            words = {True: "better than", False: "worse than"}
            told = [
                f"{'as good as' if score == 0.5 else words[score > 0.5]} {other}"
                for (side, other), score in found.scores.items()
                if side == "tuned"
            ]
            facts: dict[str, Any] = {"run": run["run_id"], "reviewers": found.reviewers}
            facts |= {f"{side} fails in": sorted(aspects) for side, aspects in found.fails.items() if aspects}
            facts |= {"comments": list(found.comments)} if found.comments else {}
            yield Event("compare", f"run {run['run_id']}: the tuned answer is {' and '.join(told)}", facts)
