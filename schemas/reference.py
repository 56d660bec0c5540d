"""References: how a person names a version, and the manifest that the name leads to.

NAME          the latest version          NAME@7     version 7
NAME@tag      what the tag points to      PATH.json  a manifest file
"""

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from schemas.errors import ConfigError, CorruptObjectError, StoreError, UnknownReferenceError
from schemas.manifest import FEATURES, FORMAT, Manifest, manifest_id
from schemas.place import inside, listed, read_bytes
from schemas.record import SCHEMA_VERSION
from schemas.remote import remote_of, shown
from schemas.stages import STAGES

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGITS = 18
"""Digits of a version's number at most: it fits 64 bits."""


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS


def _is_version(file: str) -> bool:
    number, dot, kind = file.partition(".")
    return _is_number(number) and dot + kind == ".json" and file == version_file(int(number))


def version_file(seq: int) -> str:
    """Give the name of the file that holds version `seq`."""
    return f"{seq:06d}.json"


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
    if remote := remote_of(root):
        return remote.versions(name)
    numbers = (n.removesuffix(".json") for n in listed(inside(root, "datasets", name, "versions")) if _is_version(n))
    return sorted(map(int, numbers))


def dataset_names(root: Path) -> list[str]:
    """List the datasets of a store."""
    remote = remote_of(root)
    names = remote.datasets() if remote else listed(inside(root, "datasets"))
    return [name for name in names if versions_of(root, name)]


def read_tags(root: Path, name: str) -> dict[str, int]:
    """Give the tags of a dataset: tag -> version number."""
    path = inside(root, "datasets", name, "tags.json")
    if remote := remote_of(root):
        remote.bring_tags(name)
    return parse_tags(read_bytes(path, str(path)), str(path)) if path.exists() else {}


def parse_tags(raw: bytes, where: str) -> dict[str, int]:
    """Read the content of a tags.json; raise StoreError where it is not what `Store.tag` writes."""
    expected = "a JSON object of tag: version number"
    try:
        tags: Any = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise StoreError(where, f"not JSON ({error})", expected) from error
    if not isinstance(tags, dict) or not all(type(n) is int for n in tags.values()):
        raise StoreError(where, "not a list of tags", expected)
    if odd := [tag for tag in tags if _is_number(tag) or not NAME.fullmatch(tag)]:
        raise StoreError(where, f"{odd[0]!r} is not a tag: it would name a version", expected, "give it a name")
    return tags


def manifest_path(reference: str, root: Path) -> Path:
    """Resolve `NAME` (latest), `NAME@7`, `NAME@tag` or the path of a manifest file."""
    with suppress(OSError):  # too long for a path, or in a folder that may not be entered
        if reference.endswith(".json") and Path(reference).is_file():
            return Path(reference)
    name, at, version = reference.partition("@")
    if reference.endswith(".json") or "/" in name or "\\" in name:
        raise UnknownReferenceError(reference, "no such manifest file", "NAME, NAME@7, NAME@tag, or a manifest's path")
    check_name(name, "dataset")
    if _is_number(version) and not remote_of(
        root
    ):  # without the list: who reads all versions would list them each time
        path = _manifest_file(root, name, int(version))
        if path.exists():
            return path
    numbers = versions_of(root, name)
    if not numbers:
        there = ", ".join(dataset_names(root)) or "none yet"
        raise UnknownReferenceError(
            f"dataset {name!r}",
            f"not in the store {shown(root)}",
            f"one of its datasets ({there})",
            "check --store and the name",
        )
    if not at:
        return _manifest_file(root, name, numbers[-1])
    tags = {} if _is_number(version) else read_tags(root, name)
    number = int(version) if _is_number(version) else tags.get(version)
    if number not in numbers:
        known = ", ".join(sorted(tags or read_tags(root, name))) or "none"
        found = f"version {number} is not there" if version in tags else f"no version {version!r}"
        raise UnknownReferenceError(
            reference,
            found,
            f"a number up to {numbers[-1]} or a tag ({known})",
            f"see `sft log {name}`",
        )
    return _manifest_file(root, name, number)


def _manifest_file(root: Path, name: str, seq: int) -> Path:
    if remote := remote_of(root):
        remote.bring_manifest(name, seq)
    return inside(root, "datasets", name, "versions", version_file(seq))


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest: known format and features, and an id that its content gives again."""
    where = f"manifest {path}"
    raw = read_bytes(path, where)
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        with suppress(ValidationError):  # another release's manifest may hold what this one has no field for
            _check_release(where, _Release.model_validate_json(raw))
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise CorruptObjectError(where, f"{place}: {first['msg']}", f"a manifest of format {FORMAT}") from error
    _check_release(where, manifest)
    if manifest_id(manifest) != manifest.id:
        raise CorruptObjectError(where, "its content does not give its id", "a manifest as it was committed")
    told = (manifest.name, f"{manifest.seq:06d}")
    if path.parent.name == "versions" and (path.parent.parent.name, path.stem) != told:
        found = f"it says that it is {manifest.name}@{manifest.seq}"
        raise CorruptObjectError(where, found, "a manifest where it was committed")
    return manifest


def read_runs(root: Path) -> list[dict[str, Any]]:
    """Read the records of the training runs that are registered in a store, by id."""
    if remote := remote_of(root):
        remote.bring_runs()
    names = [name for name in listed(inside(root, "runs")) if name.endswith(".json")]
    return [read_run(inside(root, "runs", name)) for name in names]


def read_run(path: Path) -> dict[str, Any]:
    """Read what is known of a run; raise StoreError where it is not what `register_run` writes."""
    return parse_run(read_bytes(path, f"run {path}"), f"run {path}", path.stem)


def parse_run(raw: bytes, where: str, run_id: str) -> dict[str, Any]:
    """Read the content of a run's file; raise CorruptObjectError where it is not what `register_run` writes."""
    expected = "the record of a training run"
    try:
        run: Any = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise CorruptObjectError(where, f"not JSON ({error})", expected, "restore it from a backup") from error
    objects: Any = run.get("objects", {}) if isinstance(run, dict) else None
    if not isinstance(run, dict) or not isinstance(objects, dict) or run.get("run_id") != run_id:
        raise CorruptObjectError(where, "not a record of that run", expected, "restore it from a backup")
    named: list[Any] = [sha256 for sha256 in (run.get("records"), *objects.values()) if sha256 is not None]
    if odd := [sha256 for sha256 in named if not (isinstance(sha256, str) and SHA256.fullmatch(sha256))]:
        raise CorruptObjectError(where, f"{odd[0]!r} names no object", "sha256 in hex", "restore it from a backup")
    return run


class _Release(BaseModel):
    """What every release's manifest says of itself, whatever else it holds."""

    format: str
    features: tuple[str, ...] = ()
    schema_version: int
    code_version: str = "not known"
    stages: tuple["_Named", ...] = ()


class _Named(BaseModel):
    name: str


def _check_release(where: str, said: "_Release | Manifest") -> None:
    """Raise StoreError for a manifest of another release, which says which one and what is not known of it."""
    release = f"written by sft-toolkit {said.code_version}"
    if said.schema_version != SCHEMA_VERSION:
        found = f"rows of schema version {said.schema_version}, {release}"
        raise StoreError(where, found, f"schema version {SCHEMA_VERSION}", "use the release that wrote it")
    unknown = {
        "features": sorted(set(said.features) - FEATURES),
        "stages": [stage.name for stage in said.stages if stage.name not in STAGES],
    }
    told = [f"{what} {', '.join(names)}" for what, names in unknown.items() if names]
    if said.format != FORMAT or told:
        found = f"format {said.format}" + (f" with {' and '.join(told)}" if told else "") + f", {release}"
        raise StoreError(where, found, f"format {FORMAT}", "it is of a later release: upgrade sft-toolkit")
