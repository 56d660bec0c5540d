"""A version: how a new one grows from the one before, and how it is committed.

A `Draft` is the content of the next version. Drafts are made from a version by adding a source or a stage's result;
`commit_version` counts the rows, compares with the parent, and puts the manifest in place, unless nothing changed.
`commit_work` does so for work that others may overtake: it is put on their version, unless both did the same thing.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, TypeVar

from curate.diff.changes import Bump, compare
from curate.stage import StageResult
from curate.store import Store, conflict, now
from schemas.dataset import Dataset
from schemas.errors import ConflictError
from schemas.manifest import FileEntry, InputFile, Manifest, Source, StageEntry, manifest_id
from schemas.reference import check_name, versions_of
from schemas.stages import STAGES

T = TypeVar("T")

FIRST_VERSION = "1.0.0"

FREELY = 3
"""So often long work is done beside other writers; overtaken each time, it is done once more while they wait."""

TRIES = 8
"""So often a commit is tried in one's turn. Turns are taken on one machine; only writers on others come in between."""


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
            message=message.encode(errors="replace").decode(),  # a terminal can give bytes that are no UTF-8
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
    with store.turn(draft.name):
        if seq in versions_of(store.root, draft.name):  # the commit would find it too, after the counting
            raise conflict(draft.name, seq)
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


def commit_work(
    store: Store,
    begun: Manifest | None,
    work: Callable[[Manifest | None], tuple[Draft, str, T]],
    writes: Callable[[T], Collection[str]],
    *,
    quick: bool = False,
) -> tuple[T, Commit]:
    """Do work on the version that it began with and commit it, on the latest one where others have committed meanwhile.

    `work` gives from a version the draft, the message and what else came of it; it is called again for every version
    that came first, and takes finished objects from where it remembers them. `writes` names what it exchanges, as
    "source NAME" and "stage NAME". `quick`: it takes no time, so it is done while other writers wait.

    Raises ConflictError where somebody else has exchanged the same meanwhile, for another content.
    """
    draft, message, made = work(begun)
    parent, error = begun, None
    for attempt in range(TRIES if quick else FREELY + TRIES):
        with store.turn(draft.name) if quick or attempt >= FREELY else nullcontext():
            latest = store.latest(draft.name)
            if latest != parent:
                _check_clash(begun, latest, draft, writes(made))
                parent = latest
                draft, message, made = work(parent)
            try:
                return made, commit_version(store, draft, parent, message)
            except ConflictError as taken:
                error = taken
    assert error is not None  # noqa: S101 # a loop that ends has failed each time
    raise error


def _check_clash(begun: Manifest | None, latest: Manifest | None, draft: Draft, writes: Collection[str]) -> None:
    before, now, mine = (_content(version) for version in (begun, latest, draft))
    clash = [what for what in sorted(writes) if now.get(what) not in (before.get(what), mine.get(what))]
    if clash and latest:
        raise ConflictError(
            f"{', '.join(clash)} of dataset {latest.name!r}",
            "another process committed the same meanwhile, with another outcome",
            remedy=f"nothing of this was committed: look at {latest.name}@{latest.seq}, then run the command again",
        )


def _content(version: Manifest | Draft | None) -> dict[str, Any]:
    """Give what a version holds, piece by piece: each source's rows and terms, each stage's settings.

    What people said lies in the indexes of the stage review, and is content too: two pulls are not one.
    """
    if version is None:
        return {}
    held: dict[str, Any] = {}
    for source in version.sources:
        rows = [f.sha256 for f in version.files if f.source == source.name and f.stage == "ingest"]
        held[f"source {source.name}"] = (source.license, source.terms, source.generated_by, rows)
    for stage in version.stages:
        said = [f.sha256 for f in version.files if stage.name == "review" == f.stage and f.role == "index"]
        held[f"stage {stage.name}"] = (stage.version, stage.config, said)
    return held


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
