"""The manifest: one version of a dataset as a list of objects, what made them, and what came of it.

Two parts. The *content* (schema, sources, stages, object hashes, compose rule, split salt) decides the id: the same
inputs with the same configuration give the same id on any machine. The *record* (number, time, message, parents,
counts, where the inputs lay) is true of this one commit and is no part of the id.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.record import COMPOSE_RULE, SCHEMA_VERSION

FORMAT = "sft-manifest/1"
FEATURES: frozenset[str] = frozenset({"overlays", "shard-index", "split-ledger"})
"""The features that this code can read. A manifest that names another one is refused: it comes from a later release."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9](\.?[A-Za-z0-9_-])*\.?$", max_length=100)]
"""What is safe as the name of a folder (see `schemas.reference.check_name`). A manifest may hold no other."""
Count = Annotated[int, Field(ge=0)]
Role = Literal["text", "overlay", "annotation", "index", "model"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputFile(_Part):
    """One file that was ingested, as it was found."""

    uri: str
    sha256: Sha256
    bytes: Count
    rows: Count


class Source(_Part):
    """Where rows come from, and on what terms."""

    name: Name
    format: str
    license: str | None = None
    terms: str | None = None
    generated_by: str | None = None
    inputs: tuple[InputFile, ...] = ()


class FileEntry(_Part):
    """One object. `shard` and `source` say which text shard it is or goes with; what is for all of them has neither.

    `made_from` digests what an index was made from: it is good as long as that is the same.
    """

    role: Role
    stage: Name
    source: Name | None = None
    shard: Count | None = None
    rows: Count
    bytes: Count
    sha256: Sha256
    statistics: dict[str, int] = {}
    made_from: str | None = None

    @property
    def path(self) -> str:
        """Where the object lies, relative to the store."""
        return f"objects/{self.sha256[:2]}/{self.sha256}.arrow"

    @property
    def order(self) -> tuple[str, str, int, str]:
        """The one order in which a manifest lists its files."""
        return (self.stage, self.source or "", -1 if self.shard is None else self.shard, self.role)


class StageEntry(_Part):
    """One stage as it ran: its resolved configuration, and a digest of everything that it read."""

    name: Name
    version: int
    config: dict[str, Any]
    reads: Sha256
    seconds: float = 0.0


class StageCount(_Part):
    """Rows through one stage. Conservation: entered = kept + the sum of rejected."""

    stage: str
    entered: int
    kept: int
    edited: int = 0
    rejected: dict[str, int] = {}


class Manifest(_Part):
    """One version of a dataset."""

    format: str = FORMAT
    features: tuple[str, ...] = ()
    id: str
    name: Name
    seq: Count
    created: str
    message: str
    code_version: str
    parents: tuple[str, ...] = ()
    semver: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")]
    train_visible: str
    schema_version: int = SCHEMA_VERSION
    compose: str = COMPOSE_RULE
    split_salt: str | None = None
    sources: tuple[Source, ...]
    stages: tuple[StageEntry, ...]
    files: tuple[FileEntry, ...]
    counts: tuple[StageCount, ...]

    def stage(self, name: str) -> StageEntry | None:
        """Give the entry of one stage, or None when it has not run."""
        return next((entry for entry in self.stages if entry.name == name), None)

    def source(self, name: str) -> Source | None:
        """Give the entry of one source, or None when there is no such source."""
        return next((entry for entry in self.sources if entry.name == name), None)

    def files_of(self, stage: str) -> tuple[FileEntry, ...]:
        """Give the objects that one stage wrote."""
        return tuple(file for file in self.files if file.stage == stage)

    def to_json(self) -> str:
        """Write the manifest as people can read it; `canonical` is for the id alone."""
        return self.model_dump_json(indent=1) + "\n"


def canonical(value: Any) -> bytes:
    """Write JSON in one way only: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: Any) -> str:
    """Give the sha256 of the canonical JSON of a value, in hex."""
    return hashlib.sha256(canonical(value)).hexdigest()


def _objects(files: Iterable[FileEntry]) -> list[list[Any]]:
    return [[f.role, f.source, f.shard, f.rows, f.sha256] for f in sorted(files, key=lambda f: f.order)]


def manifest_id(manifest: Manifest | Mapping[str, Any]) -> str:
    """Give the id: the digest of what the version *is*, without when, where, by whom and from what it was made."""
    m = manifest if isinstance(manifest, Manifest) else Manifest.model_validate(manifest)
    return digest(
        {
            "format": m.format,
            "schema_version": m.schema_version,
            "compose": m.compose,
            "split_salt": m.split_salt,
            "sources": [
                {
                    "name": s.name,
                    "license": s.license,
                    "terms": s.terms,
                    "generated_by": s.generated_by,
                    "objects": _objects(f for f in m.files_of("ingest") if f.source == s.name),
                }
                for s in m.sources
            ],
            "stages": [
                {
                    "name": s.name,
                    "version": s.version,
                    "config": s.config,
                    "reads": s.reads,
                    "objects": _objects(m.files_of(s.name)),
                }
                for s in m.stages
            ],
        }
    )


def reads_digest(files: Iterable[FileEntry], stage: str, earlier: Iterable[str]) -> str:
    """Digest everything that a stage reads: the text and every earlier stage's objects.

    A stage whose recorded digest differs from this is stale: something before it has changed since it ran.
    """
    known = set(earlier)
    return digest(
        [
            stage,
            [[f.stage, *o] for f in sorted(files, key=lambda f: f.order) if f.stage in known for o in _objects([f])],
        ]
    )
