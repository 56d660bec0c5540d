"""Open a version of a dataset and read it: text, overlays and annotations joined into one view.

A `Dataset` is a manifest together with the store that it lies in. `scan` gives the joined rows lazily, and reads only
the columns that are asked for; `Shard.view` gives one shard as a given stage sees it; `records` gives what a trainer
reads, a slice of a shard at a time.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, overload

import polars as pl

from schemas.errors import ConfigError, CorruptObjectError
from schemas.manifest import FileEntry, Manifest, StageCount, digest, reads_digest
from schemas.objects import Checked, check_object
from schemas.record import EDITABLE, TEXT_SCHEMA, Record, records_of
from schemas.reference import manifest_path, read_manifest
from schemas.remote import bring_along
from schemas.stages import ANNOTATION_COLUMNS, STAGES, before

_OUTCOME = ("kept", "reject_reason", "reject_detail", "stage")


class Paths(Mapping[str, Path]):
    """Objects by stage; each is checked when its path is asked for, so that what is not read need not be right."""

    def __init__(self, files: Mapping[str, FileEntry], opened: Callable[[FileEntry], Path]) -> None:
        self._files, self._opened = files, opened

    def __getitem__(self, stage: str) -> Path:
        return self._opened(self._files[stage])

    def __contains__(self, stage: object) -> bool:
        return stage in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


@dataclass(frozen=True)
class Shard:
    """One text object with everything that the stages say about its rows."""

    source: str
    number: int
    rows: int
    texts: Paths
    overlays: Paths
    annotations: Paths

    @property
    def text(self) -> Path:
        """The text object; its bytes are checked when it is first asked for."""
        return self.texts["ingest"]

    def view(self, columns: Sequence[str], *, before_stage: str | None = None) -> pl.LazyFrame:
        """Give columns of the joined view as they stand before a stage (None: after all of them).

        Any of the text columns, the annotations' own columns, `verdict_STAGE` and `detail_STAGE`, and the outcome:
        `kept` (bool), `reject_reason`, `reject_detail`, `stage` (null where kept). Rows keep their order and number.
        """
        stages = before(before_stage)
        text = self._text(columns, stages)
        wanted = [c for c in columns if c not in TEXT_SCHEMA and c not in _OUTCOME]
        outcome = any(c in _OUTCOME for c in columns)
        parts = [text] if text is not None else []
        present: dict[str, pl.DataType] = {}
        for stage in stages:
            own = ANNOTATION_COLUMNS.get(stage, pl.Schema())
            schema = {f"verdict_{stage}": pl.String(), f"detail_{stage}": pl.String(), **own}
            if stage in self.annotations:
                lf = pl.scan_ipc(self.annotations[stage]).rename(
                    {"verdict": f"verdict_{stage}", "detail": f"detail_{stage}"}
                )
                if stage not in ANNOTATION_COLUMNS:
                    schema = dict(lf.collect_schema())
                need = [c for c in schema if c in wanted or (outcome and c in _outcome_needs(stage))]
                if need:
                    held = lf.collect_schema()  # an object may be older than a column
                    given = (pl.col(c) if c in held else pl.lit(None).alias(c) for c in need)
                    parts.append(lf.select(column.cast(schema[c]) for c, column in zip(need, given, strict=True)))
                    present.update({c: schema[c] for c in need})
            else:
                absent = [c for c in schema if c in wanted]
                if absent:
                    parts.append(self._nulls({c: schema[c] for c in absent}))
                    present.update({c: schema[c] for c in absent})
        unknown = [c for c in wanted if c not in present]
        if unknown:
            raise ConfigError(f"columns {', '.join(unknown)}", f"not before stage {before_stage or 'the end'}")
        if not parts:
            parts = [pl.scan_ipc(self.text).select("id")]
        joined = pl.concat(parts, how="horizontal") if len(parts) > 1 else parts[0]
        if outcome:
            joined = joined.with_columns(**_outcome(stages, self.annotations))
        return joined.select(columns)

    def _text(self, columns: Sequence[str], stages: Sequence[str]) -> pl.LazyFrame | None:
        wanted = [c for c in columns if c in TEXT_SCHEMA]
        if not wanted:
            return None
        text = pl.scan_ipc(self.text).select(wanted)
        rewritten = [c for c in wanted if c in EDITABLE]
        overlays = [pl.scan_ipc(self.overlays[s]).select("row", *rewritten) for s in stages if s in self.overlays]
        if not rewritten or not overlays:
            return text
        last = (
            overlays[0] if len(overlays) == 1 else pl.concat(overlays).unique("row", keep="last", maintain_order=True)
        )
        last = last.rename({c: f"{c}_new" for c in rewritten}).with_columns(edited_=pl.lit(value=True))
        return (
            text.with_row_index("row")
            .join(last, on="row", how="left", maintain_order="left")
            .with_columns(
                **{c: pl.when(pl.col("edited_")).then(pl.col(f"{c}_new")).otherwise(pl.col(c)) for c in rewritten}
            )
            .select(wanted)
        )

    def _nulls(self, schema: dict[str, pl.DataType]) -> pl.LazyFrame:
        return pl.select([pl.repeat(None, self.rows, dtype=dtype).alias(name) for name, dtype in schema.items()]).lazy()


def _outcome_needs(stage: str) -> tuple[str, ...]:
    return (
        (f"verdict_{stage}", f"detail_{stage}", "override")
        if stage == "review"
        else (f"verdict_{stage}", f"detail_{stage}")
    )


def _outcome(stages: Sequence[str], annotations: Paths) -> dict[str, pl.Expr]:
    """The verdict of the first stage that rejected the row; a person's decision stands above all."""
    judged = [s for s in stages if s in annotations]
    if not judged:
        null = pl.lit(None, dtype=pl.String)
        return {"kept": pl.lit(value=True), "reject_reason": null, "reject_detail": null, "stage": null}
    reason = pl.coalesce([pl.col(f"verdict_{s}") for s in judged])
    stage = pl.coalesce([pl.when(pl.col(f"verdict_{s}").is_not_null()).then(pl.lit(s)) for s in judged])
    detail = pl.coalesce(
        [pl.when(pl.col(f"verdict_{s}").is_not_null()).then(pl.col(f"detail_{s}").fill_null("")) for s in judged]
    )
    if "review" in judged:
        override = pl.col("override")
        keep, reject = override.eq_missing(pl.lit("keep")), override.eq_missing(pl.lit("reject"))

        def decided(then: str, otherwise: pl.Expr) -> pl.Expr:
            return pl.when(keep).then(None).when(reject).then(pl.lit(then)).otherwise(otherwise)

        reason, stage = decided("review:rejected", reason), decided("review", stage)
        detail = pl.when(keep).then(None).when(reject).then(pl.col("detail_review").fill_null("")).otherwise(detail)
    return {"kept": reason.is_null(), "reject_reason": reason, "reject_detail": detail, "stage": stage}


@dataclass(frozen=True)
class Dataset:
    """One version of a dataset, opened: its manifest and the store that holds its objects."""

    manifest: Manifest
    root: Path

    def __getstate__(self) -> dict[str, Any]:
        """Give what another process needs: it opens the objects itself."""
        return {"manifest": self.manifest, "root": self.root}

    @cached_property
    def _checked(self) -> Checked:
        return Checked(self.root)

    def path(self, file: FileEntry) -> Path:
        """Give the path of an object after its bytes were found right."""
        bring_along(self.root, file, self.manifest.files)
        return check_object(self.root, file, self._checked)

    @cached_property
    def shards(self) -> tuple[Shard, ...]:
        """The text shards, by source and number: the one order of the rows."""
        by_place: dict[tuple[str, int], dict[str, dict[str, FileEntry]]] = {}
        for file in self.manifest.files:
            if file.source is None or file.shard is None or file.role not in ("text", "overlay", "annotation"):
                continue
            roles = by_place.setdefault((file.source, file.shard), {"text": {}, "overlay": {}, "annotation": {}})
            roles[file.role][file.stage] = file
        shards: list[Shard] = []
        for (source, number), roles in sorted(by_place.items()):
            text = roles["text"].get("ingest")
            if text is None:
                raise CorruptObjectError(f"source {source} shard {number}", "annotations without a text object")
            shards.append(
                Shard(
                    source,
                    number,
                    text.rows,
                    Paths(roles["text"], self.path),
                    Paths(roles["overlay"], self.path),
                    Paths(roles["annotation"], self.path),
                )
            )
        return tuple(shards)

    @property
    def rows(self) -> int:
        """Number of rows, broken ones included."""
        return sum(f.rows for f in self.manifest.files if f.role == "text")

    def scan(self, columns: Sequence[str], *, before_stage: str | None = None) -> pl.LazyFrame:
        """Give columns of all rows, in order (see `Shard.view`). Lazy: collect it with the streaming engine."""
        views = [shard.view(columns, before_stage=before_stage) for shard in self.shards]
        if not views:
            known = {"kept": pl.Boolean(), **TEXT_SCHEMA}
            for own in ANNOTATION_COLUMNS.values():
                known.update(own)
            return pl.DataFrame(schema={c: known.get(c, pl.String()) for c in columns}).lazy()
        return pl.concat(views, how="vertical")

    def records(self, split: str) -> "Records":
        """Give the kept rows of one split, in order, as a trainer reads them."""
        return Records(self, split)

    def stale(self) -> list[str]:
        """Name the stages that ran before something that they read was changed."""
        return [s.name for s in self.manifest.stages if self.reads(s.name, s.config) != s.reads]

    def reads(self, stage: str, config: Mapping[str, Any]) -> str:
        """Digest everything that a stage of these settings reads: the objects before it, and with `commercial` the
        licences and terms of the sources.
        """
        m = self.manifest
        objects = reads_digest(m.files, stage, before(stage))
        if not config.get("commercial"):
            return objects
        return digest([objects, [[s.name, s.license, s.terms] for s in m.sources]])

    def counts(self) -> tuple[StageCount, ...]:
        """Recompute from the objects how many rows entered each stage, were kept, edited and rejected, and why."""
        ran = ["ingest", *(s.name for s in self.manifest.stages)]
        outcome = (
            self.scan(["stage", "reject_reason"]).group_by("stage", "reject_reason").len().collect(engine="streaming")
        )
        rejected: dict[str, dict[str, int]] = {}
        for stage, reason, n in (
            outcome.filter(pl.col("stage").is_not_null()).sort("stage", "reject_reason").iter_rows()
        ):
            rejected.setdefault(stage, {})[reason] = n
        counts: list[StageCount] = []
        entered = self.rows
        for stage in (s for s in STAGES if s in ran):
            out = rejected.get(stage, {})
            kept = entered - sum(out.values())
            edited = sum(f.rows for f in self.manifest.files_of(stage) if f.role == "overlay")
            counts.append(StageCount(stage=stage, entered=entered, kept=kept, edited=edited, rejected=out))
            entered = kept
        return tuple(counts)

    def train_visible(self) -> str:
        """Digest exactly what a trainer would see: id, content, split and weight of every kept row that has a split."""
        seen = hashlib.sha256(self.manifest.compose.encode())
        columns = ["id", "content_hash", "split", "weight"]
        for shard in self.shards:
            if "split" not in shard.annotations:  # none of its rows has a split
                seen.update(b"\n")
                continue
            lines = (
                shard.view([*columns, "kept"])
                .filter(pl.col("kept") & pl.col("split").is_not_null())
                .select(pl.concat_str([pl.col(c).cast(pl.String).fill_null("1.0") for c in columns], separator=" "))
                .collect()
                .to_series()
            )
            seen.update("\n".join(lines.to_list()).encode())
            seen.update(b"\n")
        return seen.hexdigest()


@dataclass(frozen=True)
class Slice:
    """The kept rows of a split between two rows of a shard. It can be sent to another process, which reads them."""

    dataset: Dataset
    split: str
    shard: int
    start: int
    rows: int

    def __iter__(self) -> Iterator[Record]:
        wanted = ["id", "source", "messages", "context", "tools", "weight"]
        view = self.dataset.shards[self.shard].view([*wanted, "kept", "split"]).slice(self.start, self.rows)
        chosen = view.filter(pl.col("kept") & (pl.col("split") == self.split)).select(wanted).collect()
        return records_of(chosen)


@dataclass(frozen=True)
class Records(Sequence[Record]):
    """The kept rows of one split, read from the store when they are asked for, some thousand at a time.

    Its length is counted from the annotations alone: no text is opened for it.
    """

    dataset: Dataset
    split: str

    @cached_property
    def digest(self) -> str:
        """Name exactly what is in it, without reading it: 64 hex digits of the split, of what a trainer would see
        (ids, contents, splits, weights), and of the text objects, which hold the tools."""
        m = self.dataset.manifest
        texts = [file.sha256 for file in sorted(m.files, key=lambda f: f.order) if file.role == "text"]
        return digest([self.split, m.compose, m.train_visible, texts])

    @cached_property
    def _counts(self) -> tuple[int, ...]:
        here = pl.col("kept") & (pl.col("split") == self.split)
        return tuple(s.view(["kept", "split"]).select(here.sum()).collect().item() or 0 for s in self.dataset.shards)

    def slices(self, rows: int) -> list[Slice]:
        """Cut it into slices of at most so many rows of a shard, in order; together they are all of it."""
        return [
            Slice(self.dataset, self.split, i, start, min(rows, shard.rows - start))
            for i, shard in enumerate(self.dataset.shards)
            for start in range(0, shard.rows, rows)
            if self._counts[i]
        ]

    def ids(self) -> Iterator[str]:
        """Give the ids of its records, in order. No text is read for them."""
        here = pl.col("kept") & (pl.col("split") == self.split)
        for shard, count in zip(self.dataset.shards, self._counts, strict=True):
            if count:
                yield from shard.view(["id", "kept", "split"]).filter(here).select("id").collect().to_series()

    def find(self, ids: Collection[str]) -> dict[str, Record]:
        """Give a few of its records by id. What is not among them is left out."""
        wanted = pl.col("id").is_in(list(ids)) & pl.col("kept") & (pl.col("split") == self.split)
        columns = ["id", "source", "messages", "context", "tools", "weight"]
        found: dict[str, Record] = {}
        for shard in self.dataset.shards if ids else ():
            if (
                "split" not in shard.annotations
                or not shard.view(["id"]).select(pl.col("id").is_in(list(ids)).any()).collect().item()
            ):
                continue
            rows = shard.view([*columns, "kept", "split"]).filter(wanted).select(columns).collect()
            found.update((record.id, record) for record in records_of(rows))
        return found

    def __len__(self) -> int:
        return sum(self._counts)

    def __iter__(self) -> Iterator[Record]:
        for piece in self.slices(SLICE_ROWS):
            yield from piece

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Record, ...]: ...
    def __getitem__(self, at: int | slice) -> Record | tuple[Record, ...]:
        """Give one record, or some: read from the beginning of their shard, so for a few and not for all in turn."""
        if isinstance(at, slice):
            start, stop, step = at.indices(len(self))
            if step > 0:
                return tuple(islice(iter(self), start, stop, step))
            return tuple(self[i] for i in range(start, stop, step))
        if not -len(self) <= at < len(self):
            raise IndexError(f"record {at} of {len(self)}")
        left = at % len(self)
        for shard, count in zip(self.dataset.shards, self._counts, strict=True):
            if left < count:
                here = pl.col("kept") & (pl.col("split") == self.split)
                columns = ["id", "source", "messages", "context", "tools", "weight"]
                row = shard.view([*columns, "kept", "split"]).filter(here).slice(left, 1).select(columns).collect()
                return next(records_of(row))
            left -= count
        raise IndexError(f"record {at}: the annotations hold fewer")


SLICE_ROWS = 16_384
"""Rows that are turned into records at a time: some tens of megabytes."""


def ids_of(records: Sequence[Record]) -> Iterator[str]:
    """Give the ids of any sequence of records, in order."""
    return records.ids() if isinstance(records, Records) else (record.id for record in records)


def find(records: Sequence[Record], ids: Collection[str]) -> dict[str, Record]:
    """Give a few records by id, of any sequence of them."""
    if isinstance(records, Records):
        return records.find(ids)
    wanted = set(ids)
    return {record.id: record for record in records if record.id in wanted}


def open_dataset(reference: str, root: Path) -> Dataset:
    """Open a version by reference. A manifest given by its path inside a store is read with that store's objects."""
    path = manifest_path(reference, root)
    manifest = read_manifest(path)
    parents = path.resolve().parents
    inside = len(parents) > 3 and parents[0].name == "versions" and parents[2].name == "datasets"
    return Dataset(manifest, parents[3] if inside else root)
