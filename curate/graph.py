"""The log of a dataset as a graph: versions with their parents, what made each, and the runs that trained on it.

Read from manifests, tags and registered runs alone; no row is read.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.store import Store
from schemas.errors import SftError, StoreError
from schemas.manifest import Manifest, Source
from schemas.reference import manifest_path, read_manifest, read_tags, versions_of
from schemas.stages import STAGES


@dataclass(frozen=True)
class Run:
    """A training run that saw a version. `loss_first`, `loss_last`: nats per target, of the training batches."""

    run_id: str
    seq: int
    loss_first: float | None
    loss_last: float | None


@dataclass(frozen=True)
class Node:
    """A version. `kept`: its kept rows; `change`: how many more than its parent keeps (all, for the first).

    `bump`: which part of the version number it raised. `made_by`: sources and stages that are not as in the parent.
    """

    seq: int
    semver: str
    id: str
    created: str
    message: str
    tags: tuple[str, ...]
    parents: tuple[int, ...]
    children: tuple[int, ...]
    bump: str | None
    kept: int
    change: int
    made_by: tuple[str, ...]
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Graph:
    """The versions of a dataset, latest first. `unreadable`: those whose manifest is not what it should be, and why."""

    name: str
    nodes: tuple[Node, ...]
    unreadable: tuple[tuple[int, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Give the graph as plain values."""
        return {
            "name": self.name,
            "versions": [{**vars(node), "runs": [vars(run) for run in node.runs]} for node in self.nodes],
            "unreadable": dict(self.unreadable),
        }


@dataclass(frozen=True)
class Line:
    """A line of the picture: the lanes to the left, and the version that stands on it; None between versions."""

    lanes: str
    node: Node | None = None


def graph_of(store: Store, name: str) -> Graph:
    """Read all versions of a dataset. Raises UnknownReferenceError where there is none of that name.

    A version whose manifest cannot be read is named as that; a child of it begins a line of descent of its own.
    """
    name = _dataset(name, store.root)
    manifests: list[Manifest] = []
    unreadable: list[tuple[int, str]] = []
    for seq in versions_of(store.root, name):
        try:
            manifests.append(_manifest(store.root, name, seq))
        except StoreError as error:
            unreadable.append((seq, str(error)))
    tags, runs = read_tags(store.root, name), _runs(store, name)
    parents = {m.seq: _parents(m, manifests) for m in manifests}
    by_seq = {m.seq: m for m in manifests}
    nodes = [
        Node(
            seq=m.seq,
            semver=m.semver,
            id=m.id,
            created=m.created,
            message=m.message,
            tags=tuple(sorted(tag for tag, seq in tags.items() if seq == m.seq)),
            parents=parents[m.seq],
            children=tuple(child for child, own in parents.items() if m.seq in own),
            bump=_bump(before.semver if before else None, m.semver),
            kept=_kept(m),
            change=_kept(m) - sum(_kept(by_seq[p]) for p in parents[m.seq][:1]),
            made_by=made_by(by_seq[parents[m.seq][0]], m) if parents[m.seq] else () if m.parents else made_by(None, m),
            runs=tuple(run for run in runs if run.seq == m.seq),
        )
        for before, m in zip([None, *manifests], manifests, strict=False)
    ]
    return Graph(name, tuple(reversed(nodes)), tuple(unreadable))


def _dataset(reference: str, root: Path) -> str:
    """Give the name of the dataset that a reference is of; raise UnknownReferenceError for what is none."""
    path = manifest_path(reference, root)
    return read_manifest(path).name if reference.endswith(".json") else reference.partition("@")[0]


def ancestry(root: Path, manifest: Manifest) -> list[Manifest]:
    """Give a version and those that led to it, each the first parent of the one before; as far as they can be read."""
    found = [manifest]
    for seq in reversed(versions_of(root, manifest.name)):
        if seq >= found[-1].seq or not found[-1].parents:
            continue
        with suppress(SftError):  # another version that is damaged is no reason to tell nothing of this one
            earlier = _manifest(root, manifest.name, seq)
            if earlier.id == found[-1].parents[0]:
                found.append(earlier)
    return found


def made_by(parent: Manifest | None, manifest: Manifest) -> tuple[str, ...]:
    """Name what is not as in the parent: sources (their rows, or their licence and terms), then stages, in order."""
    sources = {s.name: s for s in parent.sources} if parent else {}
    found: list[str] = []
    for source in manifest.sources:
        old = sources.get(source.name)
        if parent is None or old is None or _objects(parent, source) != _objects(manifest, source):
            found.append(f"ingest {source.name}")
        elif (old.license, old.terms, old.generated_by) != (source.license, source.terms, source.generated_by):
            found.append(f"licence {source.name}")
    for stage in STAGES[1:]:
        old_entry, entry = parent.stage(stage) if parent else None, manifest.stage(stage)
        if entry and (old_entry is None or _stage(parent, stage) != _stage(manifest, stage)):
            found.append(stage)
    return tuple(found)


def draw(nodes: Sequence[Node]) -> list[Line]:
    """Draw versions, latest first, as `git log --graph` does: `*` a version, a lane for each line of descent.

    A lane ends where it meets the lane of the same parent, which is drawn right above that parent.
    """
    lanes: list[int] = []
    lines: list[Line] = []
    for node in nodes:
        while lanes.count(node.seq) > 1:
            first = lanes.index(node.seq)
            last = len(lanes) - 1 - lanes[::-1].index(node.seq)
            lines.append(Line(_joined(len(lanes), first, last)))
            del lanes[last]
        if node.seq not in lanes:
            lanes.append(node.seq)
        own = lanes.index(node.seq)
        lines.append(Line(" ".join("*" if i == own else "|" for i in range(len(lanes))), node))
        if node.parents:
            lanes[own] = node.parents[0]
            lanes += node.parents[1:]
        else:
            del lanes[own]
    return lines


def below(lines: Sequence[Line], index: int) -> str:
    """Give the lanes that go on below the version on a line, for what else is told of it."""
    node = lines[index].node
    drawn = lines[index].lanes
    return drawn.replace("*", "|" if node is None or node.parents else " ")


def _joined(lanes: int, first: int, last: int) -> str:
    """Draw how the lane `last` goes over to `first`; those to its right move one place to the left."""
    drawn = [" "] * (2 * lanes - 1)
    for lane in range(last):
        drawn[2 * lane] = "|"
    for place in range(2 * first + 1, 2 * last - 1, 2):
        drawn[place] = "_"
    for lane in range(last, lanes):
        drawn[2 * lane - 1] = "/"
    return "".join(drawn).rstrip()


def _manifest(root: Path, name: str, seq: int) -> Manifest:
    return read_manifest(manifest_path(f"{name}@{seq}", root))


def _parents(manifest: Manifest, manifests: Sequence[Manifest]) -> tuple[int, ...]:
    """Give the numbers of the parents; of versions with the same content, the last one before it."""
    earlier = {m.id: m.seq for m in manifests if m.seq < manifest.seq}
    return tuple(earlier[parent] for parent in manifest.parents if parent in earlier)


def _kept(manifest: Manifest) -> int:
    return manifest.counts[-1].kept if manifest.counts else 0


def _bump(before: str | None, after: str) -> str | None:
    """Name the part of a version number that was raised."""
    if before is None:
        return None
    parts = zip(before.split("."), after.split("."), ("major", "minor", "patch"), strict=True)
    return next((name for old, new, name in parts if old != new), None)


def _objects(manifest: Manifest, source: Source) -> list[str]:
    return [f.sha256 for f in manifest.files_of("ingest") if f.source == source.name]


def _stage(manifest: Manifest | None, name: str) -> tuple[Any, ...]:
    """Give what a stage is in a version: its settings and its objects."""
    entry = manifest.stage(name) if manifest else None
    if manifest is None or entry is None:
        return ()
    return entry.version, entry.config, entry.reads, [f.sha256 for f in manifest.files_of(name)]


def _runs(store: Store, name: str) -> list[Run]:
    """Give the registered runs of a dataset, by id."""
    facts: list[Mapping[str, Any]] = [run for run in store.runs() if run.get("dataset") == name]
    return [
        Run(str(run["run_id"]), int(run["seq"]), run.get("loss_first"), run.get("loss_last"))
        for run in facts
        if run.get("seq") is not None
    ]
