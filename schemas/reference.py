"""References: how a person names a version, and the manifest that the name leads to.

NAME          the latest version          NAME@7     version 7
NAME@tag      what the tag points to      PATH.json  a manifest file
"""

import json
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from schemas.errors import ConfigError, CorruptObjectError, StoreError, UnknownReferenceError
from schemas.manifest import FEATURES, FORMAT, Manifest, manifest_id
from schemas.record import SCHEMA_VERSION

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def check_name(name: str, what: str) -> str:
    """Return a name that is safe as a folder; raise ConfigError otherwise."""
    if not NAME.fullmatch(name) or ".." in name or name.endswith(".json"):
        raise ConfigError(
            f"{what} {name!r}",
            "not a name",
            "letters, digits, '.', '_' and '-', a letter or digit first, 100 at most, no '..' and no '.json'",
        )
    return name


def versions_of(root: Path, name: str) -> list[int]:
    """List the version numbers of a dataset, in order; empty where there is no such dataset."""
    folder = root / "datasets" / name / "versions"
    if not folder.is_dir():
        return []
    return sorted(int(p.stem) for p in folder.glob("*.json") if _is_number(p.stem))


def dataset_names(root: Path) -> list[str]:
    """List the datasets of a store."""
    folder = root / "datasets"
    return sorted(p.name for p in folder.iterdir() if versions_of(root, p.name)) if folder.is_dir() else []


def read_tags(root: Path, name: str) -> dict[str, int]:
    """Give the tags of a dataset: tag -> version number."""
    path = root / "datasets" / name / "tags.json"
    if not path.exists():
        return {}
    try:
        tags: Any = json.loads(path.read_bytes())
    except ValueError as error:
        raise StoreError(str(path), f"not JSON ({error})", "a JSON object of tag: version number") from error
    if not isinstance(tags, dict) or not all(isinstance(n, int) for n in tags.values()):
        raise StoreError(str(path), "not a list of tags", "a JSON object of tag: version number")
    return tags


def manifest_path(reference: str, root: Path) -> Path:
    """Resolve `NAME` (latest), `NAME@7`, `NAME@tag` or the path of a manifest file."""
    if reference.endswith(".json") and Path(reference).is_file():
        return Path(reference)
    name, at, version = reference.partition("@")
    if reference.endswith(".json") or "/" in name or "\\" in name:
        raise UnknownReferenceError(reference, "no such manifest file", "NAME, NAME@7, NAME@tag, or a manifest's path")
    check_name(name, "dataset")
    numbers = versions_of(root, name)
    if not numbers:
        there = ", ".join(dataset_names(root)) or "none yet"
        raise UnknownReferenceError(
            f"dataset {name!r}",
            f"not in the store {root}",
            f"one of its datasets ({there})",
            "check --store and the name",
        )
    if not at:
        return root / "datasets" / name / "versions" / f"{numbers[-1]:06d}.json"
    tags = read_tags(root, name)
    number = int(version) if _is_number(version) else tags.get(version)
    if number not in numbers:
        known = ", ".join(sorted(tags)) or "none"
        raise UnknownReferenceError(
            reference,
            f"no version {version!r}",
            f"a number up to {numbers[-1]} or a tag ({known})",
            f"see `sft log {name}`",
        )
    return root / "datasets" / name / "versions" / f"{number:06d}.json"


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest: known format and features, and an id that its content gives again."""
    where = f"manifest {path}"
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise StoreError(where, error.strerror or str(error), "a readable file") from error
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise CorruptObjectError(where, f"{place}: {first['msg']}", f"a manifest of format {FORMAT}") from error
    if manifest.schema_version != SCHEMA_VERSION:
        found = f"rows of schema version {manifest.schema_version}"
        raise StoreError(where, found, f"schema version {SCHEMA_VERSION}", "use the release that wrote it")
    unknown = sorted(set(manifest.features) - FEATURES)
    if manifest.format != FORMAT or unknown:
        found = f"format {manifest.format}" + (f" with features {', '.join(unknown)}" if unknown else "")
        raise StoreError(where, found, f"format {FORMAT}", "it was written by a later release: upgrade sft-toolkit")
    if manifest_id(manifest) != manifest.id:
        raise CorruptObjectError(where, "its content does not give its id", "a manifest as it was committed")
    told = (manifest.name, f"{manifest.seq:06d}")
    if path.parent.name == "versions" and (path.parent.parent.name, path.stem) != told:
        found = f"it says that it is {manifest.name}@{manifest.seq}"
        raise CorruptObjectError(where, found, "a manifest where it was committed")
    return manifest
