"""A version: how a new one grows from the one before, and how it is committed.

A `Draft` is the content of the next version. Drafts are made from a version by adding a source or a stage's result;
`commit_version` counts the rows, compares with the parent, and puts the manifest in place, unless nothing changed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from curate.diff.changes import Bump, compare
from curate.stage import StageResult
from curate.store import Store, now
from schemas.dataset import Dataset
from schemas.manifest import FileEntry, InputFile, Manifest, Source, StageEntry, manifest_id
from schemas.reference import check_name
from schemas.stages import STAGES

FIRST_VERSION = "1.0.0"


@dataclass(frozen=True)
class Draft:
    """The content of a version that is not committed yet."""

    name: str
    sources: tuple[Source, ...] = ()
    stages: tuple[StageEntry, ...] = ()
    files: tuple[FileEntry, ...] = ()
    features: tuple[str, ...] = ()

    @classmethod
    def of(cls, manifest: Manifest) -> "Draft":
        """Begin with what a version holds."""
        return cls(manifest.name, manifest.sources, manifest.stages, manifest.files, manifest.features)

    def with_source(self, source: Source, files: Sequence[FileEntry], *, append: bool = False) -> "Draft":
        """Add a source, or exchange its rows; with `append`, keep its shards and put the new ones after them.

        What later stages said about exchanged shards goes with them; it no longer fits row by row.
        """
        old = next((s for s in self.sources if s.name == source.name), None)
        if append and old is not None:
            source = source.model_copy(update={"inputs": _inputs(old.inputs, source.inputs)})
        kept = self.files if append else tuple(f for f in self.files if f.source != source.name)
        sources = [s for s in self.sources if s.name != source.name] + [source]
        return replace(self, sources=tuple(sorted(sources, key=lambda s: s.name)), files=_ordered((*kept, *files)))

    def with_stage(self, result: StageResult, features: Iterable[str] = ()) -> "Draft":
        """Put in a stage's result for whatever that stage said before.

        What people decided was about the text as it was: of the stage review only its indexes stay, until it has run
        over the new one.
        """
        name = result.entry.name
        stages = [s for s in self.stages if s.name != name] + [result.entry]
        files = [f for f in self.files if f.stage != name and (f.stage != "review" or f.role == "index")]
        used = {*self.features, *features}
        if any(f.role == "overlay" for f in result.files):
            used.add("overlays")
        return replace(
            self,
            stages=tuple(sorted(stages, key=lambda s: STAGES.index(s.name))),
            files=_ordered((*files, *result.files)),
            features=tuple(sorted(used)),
        )

    def manifest(self, *, seq: int = 0, message: str = "", parents: tuple[str, ...] = ()) -> Manifest:
        """Give the draft as a manifest that can be opened; its counts and digests are filled in by the commit."""
        split = next((s for s in self.stages if s.name == "split"), None)
        manifest = Manifest(
            features=self.features,
            id="",
            name=self.name,
            seq=seq,
            created=now(),
            message=message,
            code_version=code_version(),
            parents=parents,
            semver=FIRST_VERSION,
            train_visible="",
            split_salt=str(split.config["salt"]) if split else None,
            sources=self.sources,
            stages=self.stages,
            files=self.files,
            counts=(),
        )
        return manifest.model_copy(update={"id": manifest_id(manifest)})


@dataclass(frozen=True)
class Commit:
    """What became of a draft: the version it is now, and whether that is a new one."""

    manifest: Manifest
    is_new: bool
    bump: Bump | None = None


def commit_version(
    store: Store, draft: Draft, parent: Manifest | None, message: str, *, latest: Manifest | None = None
) -> Commit:
    """Commit a draft as the next version of its dataset; where it equals its parent, commit nothing.

    `latest` is the latest version at the time the work began, where that is another one than the parent (somebody works
    on an old version on purpose). The new version takes the number after it and no other, so that what another process
    committed meanwhile is never left out unseen: then this raises ConflictError, and the work is to be done again.
    Raises StoreError when the store cannot be written.
    """
    check_name(draft.name, "dataset")
    latest = latest or parent
    seq = latest.seq + 1 if latest else 1
    manifest = draft.manifest(seq=seq, message=message, parents=(parent.id,) if parent else ())
    if parent is not None and parent.id == manifest.id:
        return Commit(parent, is_new=False)
    dataset = Dataset(manifest, store.root)
    bump: Bump | None = None
    semver = FIRST_VERSION
    if latest is not None:
        bump = compare(Dataset(latest, store.root), dataset).bump
        semver = bumped(latest.semver, bump)
    manifest = manifest.model_copy(
        update={"semver": semver, "counts": dataset.counts(), "train_visible": dataset.train_visible()}
    )
    store.commit(manifest)
    return Commit(manifest, is_new=True, bump=bump)


def bumped(semver: str, bump: Literal["major", "minor", "patch"]) -> str:
    """Raise one part of a version number; the parts after it begin at 0."""
    major, minor, patch = (int(part) for part in semver.split("."))
    match bump:
        case "major":
            return f"{major + 1}.0.0"
        case "minor":
            return f"{major}.{minor + 1}.0"
        case "patch":
            return f"{major}.{minor}.{patch + 1}"


def code_version() -> str:
    """Give the version of this project, as installed."""
    try:
        return version("sft-toolkit")
    except PackageNotFoundError:
        return "not installed"


def _ordered(files: Iterable[FileEntry]) -> tuple[FileEntry, ...]:
    return tuple(sorted(files, key=lambda file: file.order))


def _inputs(old: tuple[InputFile, ...], new: tuple[InputFile, ...]) -> tuple[InputFile, ...]:
    return (*old, *new)
