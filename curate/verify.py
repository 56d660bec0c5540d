"""Verify: recompute from the objects what a manifest claims, and list every difference, of one version or all."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from curate.diff.changes import compare
from curate.version import FIRST_VERSION, bumped
from schemas.dataset import Dataset, Shard
from schemas.errors import SftError
from schemas.manifest import FileEntry, Manifest
from schemas.objects import Checked, check_columns, check_object
from schemas.place import check_store, inside, listed
from schemas.record import content_hash, lineage_id
from schemas.reference import (
    dataset_names,
    manifest_path,
    read_manifest,
    read_run,
    read_tags,
    version_file,
    versions_of,
)
from schemas.remote import remote_of
from schemas.stages import STAGES

_TEXT_STATED = ["id", "source", "source_key", "messages", "context", "content_hash"]
_EDIT_STATED = ["row", "messages", "context", "content_hash", "before_hash"]


@dataclass
class _Seen:
    """What was found right already: versions share most of their objects, and each is looked at once."""

    checked: Checked
    right: set[Any] = field(default_factory=set[Any])
    ids: dict[tuple[str, int], str] = field(default_factory=dict[tuple[str, int], str])

    def first(self, what: Any, look: Callable[[], Iterator[str]]) -> Iterator[str]:
        """Look at something unless it was found right before."""
        if what not in self.right:
            problems = list(look())
            yield from problems
            if not problems:
                self.right.add(what)


def verify(dataset: Dataset, *, deep: bool = False) -> list[str]:
    """List what is wrong with a version; an empty list means that all of it holds.

    Always: every object is there and its bytes give its name (an object that was read whole before and has not been
    touched since is not read again), columns and row numbers fit, ids are unique, rows entered = kept + rejected in
    every stage, and what a trainer sees is what the manifest says. `deep` reads every byte again, recomputes every id
    and content hash, and checks that every edit was made to the text that it covers, that the version's parents are in
    the store, and that its semver follows from what changed.
    """
    return _verify(dataset, _Seen(Checked(dataset.root, afresh=deep)), deep=deep)


def _verify(dataset: Dataset, seen: _Seen, *, deep: bool) -> list[str]:
    problems = [*_named(dataset.manifest), *_objects(dataset, seen)]
    if remote := remote_of(dataset.root):
        problems += [] if problems else remote.lacking(dataset.manifest.files)
    if problems:  # joining objects that are missing or broken would only say the same again, less clearly
        return problems
    try:
        problems += _alignment(dataset, seen)
        if not problems:
            problems += _rows(dataset)
            problems += _counts(dataset)
            problems += [*_hashes(dataset, seen), *_descent(dataset, seen)] if deep else ()
    except (SftError, pl.exceptions.PolarsError) as error:
        problems.append(str(error))
    return problems


@dataclass(frozen=True)
class Verified:
    """What was found of one version, or with `seq` 0 of what is beside the versions: tags, runs, files of no kind."""

    name: str
    seq: int
    problems: tuple[str, ...]


def verify_store(root: Path, *, deep: bool = False) -> Iterator[Verified]:
    """Verify every version of every dataset in a store, its tags and runs; gives each as it is done."""
    check_store(root)
    seen = _Seen(Checked(root, afresh=deep))
    for name in dataset_names(root):
        numbers = versions_of(root, name)
        for seq in numbers:
            try:
                manifest = read_manifest(manifest_path(f"{name}@{seq}", root))
                problems = _verify(Dataset(manifest, root), seen, deep=deep)
            except SftError as error:
                problems = [str(error)]
            yield Verified(name, seq, tuple(problems))
        yield Verified(name, 0, tuple(_beside(root, name, numbers)))
    yield Verified("", 0, tuple(_runs(root, seen)))


def _beside(root: Path, name: str, numbers: list[int]) -> Iterator[str]:
    """Check what goes with the versions of a dataset: that none is missing, and that tags name those that are there."""
    if gone := sorted(set(range(1, numbers[-1] + 1)) - set(numbers)):
        yield f"dataset {name}: version {', '.join(map(str, gone))} is not there; versions are never removed"
    ours = {version_file(seq) for seq in numbers}
    there = [] if remote_of(root) else listed(inside(root, "datasets", name, "versions"))  # a mirror only keeps copies
    for file in there:
        if file not in ours:
            yield f"dataset {name}: versions/{file} is no version"
    try:
        for tag, seq in read_tags(root, name).items():
            if seq not in numbers:
                yield f"dataset {name}: tag {tag!r} names version {seq}, which is not there"
    except SftError as error:
        yield str(error)


def _runs(root: Path, seen: _Seen) -> Iterator[str]:
    """Check that every run can be read, and that the objects with its losses and answers are what was written."""
    if remote := remote_of(root):
        remote.bring_runs()
    for file in (name for name in listed(inside(root, "runs")) if name.endswith(".json")):
        try:
            run = read_run(inside(root, "runs", file))
        except SftError as error:
            yield str(error)
            continue
        for what, sha256 in {"records": run.get("records"), **run.get("objects", {})}.items():
            if sha256 is not None:
                entry = FileEntry(role="index", stage="run", rows=0, bytes=0, sha256=sha256)
                try:
                    check_object(root, entry, seen.checked)
                except SftError as error:
                    yield f"run {run['run_id']}, {what}: {error}"


def _named(manifest: Manifest) -> Iterator[str]:
    """Check that the manifest names each shard's objects once, and only of the sources and stages that it lists."""
    places = [
        (f.role, f.stage, f.source, f.shard) for f in manifest.files if f.role in ("text", "overlay", "annotation")
    ]
    for role, stage, source, shard in sorted({p for p in places if places.count(p) > 1}, key=str):
        yield f"source {source} shard {shard}: two objects are the {role} of {stage}"
    for what, named, told in (
        ("source", {f.source for f in manifest.files} - {None}, [s.name for s in manifest.sources]),
        ("stage", {f.stage for f in manifest.files} - {"ingest"}, [s.name for s in manifest.stages]),
    ):
        for name in sorted(map(str, named - set(told))):
            yield f"{what} {name}: it has objects and no entry"
        for name in sorted({name for name in told if told.count(name) > 1}):
            yield f"{what} {name}: it has two entries"


def _objects(dataset: Dataset, seen: _Seen) -> Iterator[str]:
    for file in dataset.manifest.files:

        def look(file: FileEntry = file) -> Iterator[str]:
            path = check_object(dataset.root, file, seen.checked)
            check_columns(path, file)
            rows = _height(path)
            size = path.stat().st_size
            if (rows, size) != (file.rows, file.bytes):
                yield f"object {file.path}: {rows} rows, {size} bytes; the manifest says {file.rows}, {file.bytes}"
            elif (found := _verdicts(path, file)) != file.statistics:
                yield f"object {file.path}: the rows' verdicts are {found}; the manifest says {file.statistics}"

        try:
            yield from seen.first(file.model_dump_json(), look)
        except (SftError, pl.exceptions.PolarsError) as error:
            yield str(error)


def _verdicts(path: Path, file: FileEntry) -> dict[str, int]:
    """Count the verdicts of an annotation."""
    if file.role != "annotation":
        return file.statistics
    said = pl.scan_ipc(path).select(pl.col("verdict").cast(pl.String).drop_nulls().value_counts()).unnest("verdict")
    return dict(said.collect().iter_rows())


def _height(path: Path) -> int:
    return int(pl.scan_ipc(path).select(pl.len()).collect().item())


def _alignment(dataset: Dataset, seen: _Seen) -> Iterator[str]:
    for shard in dataset.shards:
        yield from seen.first(("alignment", *_pieces(shard)), lambda shard=shard: _aligned(shard))


def _aligned(shard: Shard) -> Iterator[str]:
    where = f"source {shard.source} shard {shard.number}"
    for stage, path in shard.annotations.items():
        if (rows := _height(path)) != shard.rows:
            yield f"{where}: stage {stage} has {rows} opinions about {shard.rows} rows"
    for stage, path in shard.overlays.items():
        row = pl.scan_ipc(path).select("row").collect().to_series()
        if not row.is_sorted() or row.n_unique() != row.len() or (row.len() and int(row[-1]) >= shard.rows):
            yield f"{where}: the overlay of {stage} is not in row order, or points past the end"


def _pieces(shard: Shard) -> tuple[Any, ...]:
    """Tell a shard from every other by its place and its objects."""
    said = (tuple(sorted((stage, p.stem) for stage, p in o.items())) for o in (shard.overlays, shard.annotations))
    return (shard.source, shard.number, shard.text.stem, *said)


def _rows(dataset: Dataset) -> Iterator[str]:
    ids = dataset.scan(["id"]).collect(engine="streaming").to_series()
    if (twice := ids.len() - ids.n_unique()) > 0:
        yield f"{twice} ids occur more than once"


def _counts(dataset: Dataset) -> Iterator[str]:
    manifest = dataset.manifest
    found = {c.stage: c for c in dataset.counts()}
    stated = {c.stage: c for c in manifest.counts}
    for stage in dict.fromkeys([*found, *stated]):
        if found.get(stage) != stated.get(stage):
            yield f"stage {stage}: the objects give {found.get(stage)}, the manifest says {stated.get(stage)}"
    entered = dataset.rows
    for count in manifest.counts:
        if count.entered != entered or count.entered != count.kept + sum(count.rejected.values()):
            yield f"stage {count.stage}: {count.entered} rows entered, {count.kept} kept, {count.rejected} rejected"
        entered = count.kept
    if dataset.train_visible() != manifest.train_visible:
        yield "what a trainer would see is not what the manifest says (train_visible)"


def _hashes(dataset: Dataset, seen: _Seen) -> Iterator[str]:
    """Recompute the id and the content hash of every row, as ingested and after each overlay.

    A stage that is stale says itself that the text below its overlay may be another one.
    """
    stale = tuple(dataset.stale())
    for shard in dataset.shards:
        edits = tuple(sorted((stage, path.stem) for stage, path in shard.overlays.items()))
        what = ("hashes", shard.source, shard.text.stem, edits, stale)
        yield from seen.first(what, lambda shard=shard: _hashed(shard, stale))


def _hashed(shard: Shard, stale: Collection[str]) -> Iterator[str]:
    texts: list[str] = []
    for batch in _batches(pl.scan_ipc(shard.text).select(_TEXT_STATED)):
        for row in batch.iter_rows(named=True):
            texts.append(row["content_hash"])
            where = f"source {shard.source} row {row['source_key']}"
            if row["source"] != shard.source:
                yield f"{where}: the row says that it is of source {row['source']}"
            if lineage_id(row["source"], row["source_key"]) != row["id"]:
                yield f"{where}: its id does not follow from its source and key"
            if content_hash(row["messages"], row["context"]) != row["content_hash"]:
                yield f"{where}: its content does not give its content hash"
    for stage in (stage for stage in STAGES if stage in shard.overlays):
        for batch in _batches(pl.scan_ipc(shard.overlays[stage]).select(_EDIT_STATED)):
            for row in batch.iter_rows(named=True):
                where = f"source {shard.source} shard {shard.number} row {row['row']}: overlay of {stage}"
                if content_hash(row["messages"], row["context"]) != row["content_hash"]:
                    yield f"{where} altered"
                if stage not in stale and row["before_hash"] != texts[row["row"]]:
                    yield f"{where} was made for another text than the one below it"
                texts[row["row"]] = row["content_hash"]


def _descent(dataset: Dataset, seen: _Seen) -> Iterator[str]:
    """Check that a version's parents are in the store, and that its semver follows from what changed before it.

    Nothing is said of a version that was never committed here, such as one that was opened by the path of its manifest.
    """
    m = dataset.manifest
    numbers = versions_of(dataset.root, m.name)
    known = {seq: _id(dataset, seq, seen) for seq in numbers if seq <= m.seq}
    if known.get(m.seq) != m.id:
        return
    for parent in m.parents:
        if parent not in [known[seq] for seq in known if seq < m.seq]:
            yield f"its parent {parent[:12]} is not in the store before it"
    if m.seq == 1:
        if m.semver != FIRST_VERSION:
            yield f"the first version is {m.semver}; expected {FIRST_VERSION}"
    elif m.seq - 1 in known:
        before = _read(dataset, m.seq - 1)
        follows = bumped(before.semver, compare(Dataset(before, dataset.root), dataset).bump)
        if m.semver != follows:
            yield f"version {m.semver} after {before.semver}: the changes make it {follows}"


def _id(dataset: Dataset, seq: int, seen: _Seen) -> str:
    version = (dataset.manifest.name, seq)
    if version not in seen.ids:
        seen.ids[version] = _read(dataset, seq).id
    return seen.ids[version]


def _read(dataset: Dataset, seq: int) -> Manifest:
    return read_manifest(manifest_path(f"{dataset.manifest.name}@{seq}", dataset.root))


def _batches(frame: pl.LazyFrame, rows: int = 4096) -> Iterator[pl.DataFrame]:
    yield from frame.collect().iter_slices(rows)
