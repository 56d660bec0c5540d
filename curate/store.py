"""The store: objects, commits, tags, runs, and what `gc` may remove.

Commit: objects are written to temporary files, fsynced, renamed to the hash of their bytes, the folder fsynced; the
manifest is written likewise and linked into place, which fails when the number is taken. A process killed at any
instruction leaves the store at the old version or at the new one; what it leaves over, `gc` finds.
"""

import errno
import fcntl
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import polars as pl

from curate.canonical import write_canonical
from schemas.errors import ConfigError, ConflictError, CorruptObjectError, StoreError
from schemas.manifest import FileEntry, Manifest, Role
from schemas.objects import Checked, check_object, file_sha256
from schemas.reference import check_name, dataset_names, manifest_path, read_manifest, read_tags, versions_of

GRACE_S = 24 * 3600.0
"""Unnamed objects younger than this may belong to a commit that is under way, and stay (one day)."""


_SHA256 = re.compile(r"\b[0-9a-f]{64}\b")


@dataclass(frozen=True)
class Garbage:
    """What `gc` found: files that nothing names and that are older than the grace period."""

    paths: tuple[Path, ...]
    bytes: int
    limit: float
    """Time in seconds since the epoch: what is younger stays."""


def _explain(error: OSError, where: Path) -> NoReturn:
    """Turn a failure of the file system into one line that says what to do."""
    remedies = {
        errno.ENOSPC: "free some space, or name another place with --store",
        errno.EDQUOT: "free some space, or name another place with --store",
        errno.EROFS: "name a place that can be written with --store",
        errno.EACCES: "check who owns it, or name another place with --store",
        errno.EPERM: "check who owns it, or name another place with --store",
        errno.ENOTDIR: "name a folder with --store",
    }
    remedy = remedies.get(error.errno or 0, "nothing was committed: the store is as it was")
    found = os.strerror(error.errno) if error.errno else str(error)
    raise StoreError(f"store {where}", found, "a place to write to", remedy) from error


def _fsync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


class Store:
    """A folder with objects, versions, tags and runs. Made on first use."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._checked = Checked(root)

    # objects ----------------------------------------------------------------------------------------------------------

    @contextmanager
    def _temporary(self, suffix: str) -> Generator[Path]:
        """Give a new path in the store's own tmp folder, and see that nothing stays there."""
        try:
            folder = self.root / "tmp"
            folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(suffix=suffix, dir=folder)
            os.close(handle)
        except OSError as error:
            _explain(error, self.root)
        path = Path(name)
        try:
            yield path
        except OSError as error:
            _explain(error, self.root)
        finally:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def put(
        self,
        frame: pl.DataFrame,
        *,
        role: Role,
        stage: str,
        source: str | None = None,
        shard: int | None = None,
        statistics: dict[str, int] | None = None,
        made_from: str | None = None,
    ) -> FileEntry:
        """Write a frame as an object: Arrow IPC, one record batch, not compressed, so that it can be memory-mapped."""
        with self._temporary(".arrow") as temporary:
            write_canonical(frame, temporary, compact=role == "annotation")
            sha256, size = self._keep(temporary)
        return FileEntry(
            role=role,
            stage=stage,
            source=source,
            shard=shard,
            rows=frame.height,
            bytes=size,
            sha256=sha256,
            statistics=statistics or {},
            made_from=made_from,
        )

    def put_file(self, path: Path) -> str:
        """Copy a finished Arrow file into the objects; give its sha256."""
        with self._temporary(".arrow") as temporary:
            temporary.write_bytes(path.read_bytes())
            return self._keep(temporary)[0]

    def _keep(self, temporary: Path) -> tuple[str, int]:
        """Rename a finished temporary file to the hash of its bytes, durably. Gives (sha256, bytes)."""
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        size = temporary.stat().st_size
        sha256 = file_sha256(temporary)
        final = self.root / "objects" / sha256[:2] / f"{sha256}.arrow"
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists() and file_sha256(final) == sha256:
            os.utime(final)  # gc counts its grace period from here
        else:
            temporary.chmod(0o444)
            temporary.replace(final)
            _fsync_folder(final.parent)
            _fsync_folder(final.parent.parent)
        self._checked.add(sha256, final)
        return sha256, size

    # versions ---------------------------------------------------------------------------------------------------------

    def latest(self, name: str) -> Manifest | None:
        """Give the latest version of a dataset, or None where there is none yet."""
        check_name(name, "dataset")
        return read_manifest(manifest_path(name, self.root)) if versions_of(self.root, name) else None

    def commit(self, manifest: Manifest) -> Path:
        """Put a manifest in place as version `manifest.seq`; raise ConflictError when that number is taken."""
        check_name(manifest.name, "dataset")
        folder = self.root / "datasets" / manifest.name / "versions"
        final = folder / f"{manifest.seq:06d}.json"
        with self._temporary(".json") as temporary:
            folder.mkdir(parents=True, exist_ok=True)
            self._write(temporary, manifest.to_json())
            try:
                os.link(temporary, final)
            except FileExistsError as error:
                raise ConflictError(
                    f"dataset {manifest.name!r}",
                    f"version {manifest.seq} was committed by another process meanwhile",
                    remedy="run the command again: it will start from that version",
                ) from error
            for place in (folder, folder.parent, folder.parent.parent, self.root):
                _fsync_folder(place)
        return final

    @staticmethod
    def _write(path: Path, text: str) -> None:
        with path.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    # tags -------------------------------------------------------------------------------------------------------------

    def tag(self, name: str, tag: str, seq: int) -> None:
        """Point a tag of a dataset at a version; an existing tag moves."""
        check_name(tag, "tag")
        if tag.isascii() and tag.isdigit():
            raise ConfigError(f"tag {tag!r}", "a number, which names a version", "a name such as 'golden'")
        folder = self.root / "datasets" / name
        try:
            with (folder / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                tags = {**read_tags(self.root, name), tag: seq}
                with self._temporary(".json") as temporary:
                    self._write(temporary, json.dumps(tags, indent=1, sort_keys=True) + "\n")
                    temporary.replace(folder / "tags.json")
                    _fsync_folder(folder)
        except OSError as error:
            _explain(error, self.root)

    # stage results that a run may take up again -----------------------------------------------------------------------

    def remember(self, key: str, files: Sequence[FileEntry], facts: dict[str, Any]) -> None:
        """Keep the outcome of finished work, its objects and facts, under the digest of all that it depends on."""
        facts = {**facts, "files": [file.model_dump(mode="json") for file in files]}
        with self._temporary(".json") as temporary:
            self._write(temporary, json.dumps(facts) + "\n")
            final = self.root / "cache" / f"{key}.json"
            final.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(final)

    def recall(self, key: str, *, partly: bool = False) -> tuple[tuple[FileEntry, ...], dict[str, Any]] | None:
        """Give the objects and facts that were remembered under a key; None where they cannot be used any more.

        `partly`: objects that are damaged or gone are left out, and the others given. All of them are young again
        afterwards: gc counts its grace period from here.
        """
        path = self.root / "cache" / f"{key}.json"
        try:
            facts = json.loads(path.read_bytes())
            files = tuple(FileEntry.model_validate(file) for file in facts.pop("files"))
            files = tuple(file for file in files if not partly or self._is_right(file))
            for used in (*(check_object(self.root, file, self._checked) for file in files), path):
                os.utime(used)
            for file in files:  # touching changed the times by which it is remembered as right
                self._checked.add(file.sha256, self.root / file.path)
        except (OSError, ValueError, KeyError, AttributeError, TypeError, StoreError):
            return None
        return files, facts

    def _is_right(self, file: FileEntry) -> bool:
        try:
            check_object(self.root, file, self._checked)
        except StoreError:
            return False
        return True

    # runs -------------------------------------------------------------------------------------------------------------

    def register_run(self, run_id: str, facts: dict[str, Any], records_file: Path | None = None) -> Path:
        """Write runs/RUN_ID.json: which manifest a training run saw, and the object with its per-record losses.

        Objects that were added to the run since (`add_to_run`) stay with it.
        """
        records = self.put_file(records_file) if records_file else None
        return self._write_run(run_id, lambda known: {**facts, "records": records, "objects": known.get("objects", {})})

    def add_to_run(self, run_id: str, facts: dict[str, Any], added: Mapping[str, str]) -> Path:
        """Name objects (name -> sha256) with a run; those that it has stay. A run that is not registered here is now,
        with `facts`."""
        return self._write_run(
            run_id, lambda known: {**(known or facts), "objects": {**known.get("objects", {}), **added}}
        )

    def run_object(self, run: Mapping[str, Any], name: str) -> Path | None:
        """Give the path of an object of a run; None where the run has none of that name.

        Raises CorruptObjectError where its bytes are gone or are not those that were written.
        """
        sha256: str | None = run.get("objects", {}).get(name)
        if sha256 is None:
            return None
        path = self.root / "objects" / sha256[:2] / f"{sha256}.arrow"
        if not path.is_file() or file_sha256(path) != sha256:
            found = "not what was written" if path.is_file() else "gone"
            raise CorruptObjectError(f"{name} of run {run['run_id']}, object {sha256[:12]}", found, "its bytes")
        return path

    def _write_run(self, run_id: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
        check_name(run_id, "run")
        final = self.root / "runs" / f"{run_id}.json"
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with (final.parent / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                known = json.loads(final.read_bytes()) if final.is_file() else {}
                with self._temporary(".json") as temporary:
                    self._write(temporary, json.dumps({**change(known), "run_id": run_id}, indent=1) + "\n")
                    temporary.replace(final)
                    _fsync_folder(final.parent)
        except OSError as error:
            _explain(error, self.root)
        return final

    def runs(self) -> list[dict[str, Any]]:
        """List the registered training runs, by id."""
        folder = self.root / "runs"
        return [json.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))] if folder.is_dir() else []

    # gc ---------------------------------------------------------------------------------------------------------------

    def garbage(self, grace_s: float = GRACE_S) -> Garbage:
        """Find what nothing names and what is older than the grace period: objects, temporary files, stage results."""
        if not self.root.is_dir():
            raise StoreError(f"store {self.root}", "no such folder", "a store", "check --store")
        limit = time.time() - grace_s
        old = [p for sub in ("tmp", "cache") for p in (self.root / sub).glob("*") if p.stat().st_mtime < limit]
        named = self._named(skip=set(old))
        old += [
            path
            for path in (self.root / "objects").glob("??/*")
            if path.stem not in named and path.stat().st_mtime < limit
        ]
        return Garbage(tuple(old), sum(p.stat().st_size for p in old), limit)

    def _named(self, skip: set[Path]) -> set[str]:
        """Collect the hashes of all objects that a version, a run or a remembered stage result names."""
        named: set[str] = set()
        for name in dataset_names(self.root):
            for seq in versions_of(self.root, name):
                named.update(f.sha256 for f in read_manifest(manifest_path(f"{name}@{seq}", self.root)).files)
        for run in self.runs():
            named.update(sha256 for sha256 in (run.get("records"), *run.get("objects", {}).values()) if sha256)
        for path in (self.root / "cache").glob("*.json"):
            if path not in skip:
                named.update(_SHA256.findall(path.read_text(errors="replace")))
        return named

    def remove(self, garbage: Garbage) -> None:
        """Remove what `garbage` found, unless it was taken up again since."""
        named = self._named(skip=set(garbage.paths))
        for path in garbage.paths:
            try:
                taken_up = path.stem in named or path.stat().st_mtime > garbage.limit
                if not taken_up:
                    path.unlink(missing_ok=True)
            except FileNotFoundError:  # another gc was faster
                continue
            except OSError as error:
                _explain(error, self.root)


def now() -> str:
    """Give the time of a commit: UTC, seconds, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
