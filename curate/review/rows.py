"""Rows as cards show them: the text after all stages, what each stage said and edited, which rows are like it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from curate.change import changed_texts
from schemas.dataset import Dataset, Shard
from schemas.record import Message, compose
from schemas.stages import ANNOTATION_COLUMNS, STAGES

_TEXT = ("id", "source", "source_file", "source_row", "messages", "context", "tools", "category", "content_hash")
_OUTCOME = ("kept", "reject_reason", "reject_detail", "stage")
MOST_ALIKE = 20
"""Other answers to a prompt that are shown with a row; more cannot be compared by eye."""


@dataclass(frozen=True)
class Edit:
    """What a stage rewrote: the names of the edits, and (what, before, after) of each text that changed."""

    stage: str
    edits: tuple[str, ...]
    texts: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Alike:
    """Another row that a row is compared with: `how` it is related, and its text after all stages."""

    how: str
    source: str
    place: str
    kept: bool
    messages: tuple[Message, ...]
    asks_the_same: bool = False
    """Whether it is in conflict: the same prompt, another answer."""


@dataclass(frozen=True)
class Row:
    """One row with everything that a card tells. `facts`: the columns of all stages that say something about it."""

    id: str
    content_hash: str
    source: str
    place: str
    messages: tuple[Message, ...]
    tools: str | None
    category: str | None
    kept: bool
    reason: str | None
    detail: str | None
    stage: str | None
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    edits: tuple[Edit, ...] = ()
    alike: tuple[Alike, ...] = ()

    @property
    def is_redacted(self) -> bool:
        """Whether personal data was taken out of it: then no earlier text of it may be shown."""
        return any(edit.stage == "pii" for edit in self.edits)

    @property
    def answer(self) -> str | None:
        """The last assistant turn's text; None where nobody answers."""
        return next((m.content for m in reversed(self.messages) if m.role == "assistant"), None)


def read_rows(dataset: Dataset, ids: Sequence[str]) -> list[Row]:
    """Read rows by id, in that order, with the rows that are alike. Ids that the version does not have are left out."""
    found = _read(dataset, ids)
    if not found.height:
        return []
    edits = _edits(dataset, found)
    alike = _alike(dataset, found)
    rows = {r["id"]: _row(r, edits.get(r["id"], ()), alike.get(r["id"], ())) for r in found.iter_rows(named=True)}
    return [rows[i] for i in ids if i in rows]


def _read(dataset: Dataset, ids: Sequence[str]) -> pl.DataFrame:
    """Read rows whole. Adds: shard, row (its place in the shard)."""
    ran = [stage for stage in STAGES if stage != "ingest" and dataset.manifest.stage(stage)]
    said = [name for stage in ran for name in (f"detail_{stage}", *ANNOTATION_COLUMNS.get(stage, ()))]
    wanted = pl.LazyFrame({"id": list(ids)}, schema={"id": pl.String}).unique()
    parts = [
        shard.view([*_TEXT, *_OUTCOME, *said])
        .with_row_index("row")
        .with_columns(shard=pl.lit(number, pl.UInt32))
        .join(wanted, on="id", how="semi", maintain_order="left")
        .collect()
        for number, shard in enumerate(dataset.shards)
        if shard.view(["id"]).join(wanted, on="id", how="semi").collect().height
    ]
    return pl.concat(parts) if parts else pl.DataFrame(schema={"id": pl.String})


def _row(read: Mapping[str, Any], edits: Sequence[Edit], alike: Sequence[Alike]) -> Row:
    own = {*_TEXT, *_OUTCOME, "row", "shard"}
    return Row(
        id=read["id"],
        content_hash=read["content_hash"],
        source=read["source"],
        place=_place(read),
        messages=_messages(read),
        tools=read["tools"],
        category=read["category"],
        kept=read["kept"],
        reason=read["reject_reason"],
        detail=read["reject_detail"],
        stage=read["stage"],
        facts={name: value for name, value in read.items() if name not in own and value not in (None, [], "")},
        edits=tuple(edits),
        alike=tuple(alike),
    )


def _place(read: Mapping[str, Any]) -> str:
    return f"{read['source_file']} row {read['source_row']}"


def _messages(read: Mapping[str, Any]) -> tuple[Message, ...]:
    said = [Message(m["role"] or "", m["content"] or "", m["name"], m["tool_calls"]) for m in read["messages"] or []]
    return compose(said, read["context"])


def _edits(dataset: Dataset, found: pl.DataFrame) -> dict[str, list[Edit]]:
    """Give what the stages rewrote, in order, by row."""
    edits: dict[str, list[Edit]] = {}
    for number, shard in enumerate(dataset.shards):
        own = found.filter(pl.col("shard") == number).select("row", "id")
        if not own.height or not any(stage in shard.overlays for stage in STAGES):
            continue
        texts = {r["row"]: r for r in _gather(pl.scan_ipc(shard.text).with_row_index("row"), own)}
        for stage in (s for s in STAGES if s in shard.overlays):
            for after in _overlay(shard, stage, own):
                before = texts[after["row"]]
                changed = tuple(_texts(before, after))
                edits.setdefault(before["id"], []).append(Edit(stage, tuple(after["edits"] or ()), changed))
                texts[after["row"]] = {**after, "id": before["id"]}
    return edits


def _gather(text: pl.LazyFrame, own: pl.DataFrame) -> Iterator[dict[str, Any]]:
    read = text.select("row", "id", "messages", "context").join(own.select("row").lazy(), on="row", how="semi")
    return read.collect().iter_rows(named=True)


def _overlay(shard: Shard, stage: str, own: pl.DataFrame) -> Iterator[dict[str, Any]]:
    overlay = pl.scan_ipc(shard.overlays[stage]).select("row", "messages", "context", "edits")
    return overlay.join(own.select("row").lazy(), on="row", how="semi").collect().iter_rows(named=True)


def _texts(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Name the texts that an edit changed: (what, before, after)."""
    for text in changed_texts(before, after):
        if text.turn is None:
            yield "context", text.before, text.after
            continue
        role, new_role = text.roles
        if not new_role:
            what = f"{role}, taken out"
        elif not role:
            what = f"{new_role}, put in"
        else:
            what = role if role == new_role else f"{role} -> {new_role}"
        part = "" if text.field == "content" else f", {text.field.replace('_', ' ')}"
        yield f"turn {text.turn + 1}, {what}{part}", text.before, text.after


def _alike(dataset: Dataset, found: pl.DataFrame) -> dict[str, list[Alike]]:
    """Give, by row, the row it is a duplicate of, and the other rows of its conflict."""
    pairs = [pl.DataFrame(schema={"id": pl.String, "other": pl.String, "how": pl.String, "same": pl.Boolean})]
    if "nearest" in found.columns:
        means = found.filter(pl.col("reject_reason") == "duplicate:semantic")
        pairs.append(means.select("id", other="nearest", how=pl.lit("means nearly the same"), same=pl.lit(value=False)))
    if "duplicate_of" in found.columns:
        twins = found.filter(pl.col("duplicate_of").is_not_null())
        pairs.append(twins.select("id", other="duplicate_of", how=_duplicate(), same=pl.lit(value=False)))
        groups = found.filter(pl.col("conflict_id").is_not_null()).select("id", "conflict_id")
        in_conflict = pl.col("conflict_id").is_in(groups["conflict_id"].unique().implode())
        members = dataset.scan(["id", "conflict_id"]).filter(in_conflict).collect()
        others = groups.join(members.rename({"id": "other"}), on="conflict_id").filter(pl.col("id") != pl.col("other"))
        others = others.filter(pl.int_range(pl.len()).over("id") < MOST_ALIKE)
        how = pl.lit("the same prompt, another answer")
        pairs.append(others.select("id", "other", how=how, same=pl.lit(value=True)))
    related = pl.concat(pairs)
    if not related.height:
        return {}
    texts = {r["id"]: r for r in _read(dataset, related["other"].unique().to_list()).iter_rows(named=True)}
    alike: dict[str, list[Alike]] = {}
    for row, other, how, same in related.iter_rows():
        if read := texts.get(other):  # the match of an overlap lies in another dataset
            shown = Alike(how, read["source"], _place(read), read["kept"], _messages(read), same)
            alike.setdefault(row, []).append(shown)
    return alike


def _duplicate() -> pl.Expr:
    near = pl.format("a duplicate, Jaccard similarity {}", pl.col("jaccard").round(3))
    return pl.coalesce(near, pl.lit("a duplicate"))
