"""The store: objects, commits, tags, runs, and what `gc` may remove.

Commit: objects are written to temporary files, fsynced, renamed to the hash of their bytes, the folder fsynced; the
manifest is written likewise and linked into place, which fails when the number is taken. A process killed at any
instruction leaves the store at the old version or at the new one; what it leaves over, `gc` finds.

Locks are flock(2): they end with the process, however it ends. `gc.lock` is shared by those who take up objects and
commit, and held alone while `gc` removes; `commit.lock` of a dataset makes its writers take turns.
"""

import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import polars as pl

from curate.canonical import write_canonical
from curate.garbage import GRACE_S, Garbage, Names
from curate.upload import names_of_run, publish, update
from schemas.errors import ConfigError, ConflictError, CorruptObjectError, StoreError, UnknownReferenceError
from schemas.manifest import FileEntry, Manifest, Role
from schemas.objects import Checked, check_object, file_sha256
from schemas.place import inside, read_bytes
from schemas.reference import (
    check_name,
    manifest_path,
    parse_run,
    parse_tags,
    read_manifest,
    read_run,
    read_runs,
    read_tags,
    version_file,
    versions_of,
)
from schemas.remote import remote_of


def _explain(error: OSError, where: Path) -> NoReturn:
    """Turn a failure of the file system into one line that says what to do."""
    remedies = {
        errno.ENOSPC: "free some space, or name another place with --store",
        errno.EDQUOT: "free some space, or name another place with --store",
        errno.EROFS: "name a place that can be written with --store",
        errno.EACCES: "check who owns it, or name another place with --store",
        errno.EPERM: "check who owns it, or name another place with --store",
        errno.ENOTDIR: "name a folder with --store",
        errno.EFBIG: "the file system or a limit (ulimit -f) allows no file of that size",
        errno.ENOLCK: "the file system has no locks: put the store on another one",
        errno.EOPNOTSUPP: "the file system has no locks or links: put the store on another one",
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
        self._names = Names(root)
        self._turns: set[str] = set()

    # locks ------------------------------------------------------------------------------------------------------------

    @contextmanager
    def _locked(self, *place: str, shared: bool = False) -> Generator[None]:
        """Hold a lock of the store, alone or with others who share it; wait for it where need be."""
        path = inside(self.root, *place)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        except OSError as error:
            _explain(error, self.root)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            except OSError as error:
                _explain(error, self.root)
            yield
        finally:
            os.close(lock)

    @contextmanager
    def turn(self, name: str) -> Generator[None]:
        """Have one's turn to commit to a dataset: writers on this machine come one after the other.

        What keeps versions apart is the commit itself; this only spares work that would have to be done again.
        """
        check_name(name, "dataset")
        if name in self._turns:
            yield
            return
        with self._locked("datasets", name, "commit.lock"):
            self._turns.add(name)
            try:
                yield
            finally:
                self._turns.remove(name)

    # objects ----------------------------------------------------------------------------------------------------------

    @contextmanager
    def _temporary(self, suffix: str) -> Generator[Path]:
        """Give a new path in the store's own tmp folder, and see that nothing stays there."""
        try:
            folder = inside(self.root, "tmp")
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
            shutil.copyfile(path, temporary)
            return self._keep(temporary)[0]

    def _keep(self, temporary: Path) -> tuple[str, int]:
        """Rename a finished temporary file to the hash of its bytes, durably. Gives (sha256, bytes)."""
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        size = temporary.stat().st_size
        sha256 = file_sha256(temporary)
        final = inside(self.root, "objects", sha256[:2], f"{sha256}.arrow")
        final.parent.mkdir(parents=True, exist_ok=True)
        there = final.is_file() and file_sha256(final) == sha256
        with self._locked("gc.lock", shared=True):
            if not (there and _touched(final)):
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
        """Put a manifest in place as version `manifest.seq`.

        Raises ConflictError when that number is taken, StoreError when an object that it names is not there whole.
        """
        check_name(manifest.name, "dataset")
        folder = inside(self.root, "datasets", manifest.name, "versions")
        final = folder / version_file(manifest.seq)
        with self._temporary(".json") as temporary:
            folder.mkdir(parents=True, exist_ok=True)
            self._write(temporary, manifest.to_json())
            with self._locked("gc.lock", shared=True):
                if remote := remote_of(self.root):
                    publish(remote, manifest, manifest.to_json())
                    temporary.replace(final)
                    return final
                for file in manifest.files:
                    self._check_there(file)
                try:
                    os.link(temporary, final)
                except FileExistsError as error:
                    raise conflict(manifest.name, manifest.seq) from error
                for place in (folder, folder.parent, folder.parent.parent, self.root):
                    _fsync_folder(place)
        return final

    def _check_there(self, file: FileEntry) -> None:
        try:
            size = (self.root / file.path).stat().st_size
        except FileNotFoundError:
            size = -1
        if size != file.bytes:
            raise StoreError(
                f"object {file.path}",
                "gone" if size < 0 else f"{size} bytes",
                f"the {file.bytes} bytes that the new version names",
                "run the command again: it will be made again",
            )

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
        if seq not in versions_of(self.root, name):
            raise UnknownReferenceError(
                f"{name}@{seq}", "no such version", "one of the dataset", f"see `sft log {name}`"
            )
        if remote := remote_of(self.root):
            update(remote, f"datasets/{name}/tags.json", parse_tags, lambda known: {**known, tag: seq})
            return
        folder = inside(self.root, "datasets", name)
        with self._locked("datasets", name, "tags.lock"):
            tags = {**read_tags(self.root, name), tag: seq}
            with self._temporary(".json") as temporary:
                self._write(temporary, json.dumps(tags, indent=1, sort_keys=True) + "\n")
                temporary.replace(folder / "tags.json")
                _fsync_folder(folder)

    # stage results that a run may take up again -----------------------------------------------------------------------

    def remember(self, key: str, files: Sequence[FileEntry], facts: dict[str, Any]) -> None:
        """Keep the outcome of finished work, its objects and facts, under the digest of all that it depends on."""
        facts = {**facts, "files": [file.model_dump(mode="json") for file in files]}
        with self._temporary(".json") as temporary:
            self._write(temporary, json.dumps(facts) + "\n")
            final = inside(self.root, "cache", f"{key}.json")
            final.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(final)

    def recall(self, key: str, *, partly: bool = False) -> tuple[tuple[FileEntry, ...], dict[str, Any]] | None:
        """Give the objects and facts that were remembered under a key; None where they cannot be used any more.

        `partly`: objects that are damaged or gone are left out, and the others given. All of them are young again
        afterwards: gc counts its grace period from here.
        """
        try:
            path = inside(self.root, "cache", f"{key}.json")
            facts = json.loads(read_bytes(path, str(path)))
            files = tuple(FileEntry.model_validate(file) for file in facts.pop("files"))
            files = tuple(file for file in files if not partly or self._is_right(file))
            used = [*(check_object(self.root, file, self._checked) for file in files), path]
            with self._locked("gc.lock", shared=True):
                if not all(map(_touched, used)):
                    return None
            for file in files:  # touching changed the times by which it is remembered as right
                self._checked.add(file.sha256, self.root / file.path)
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError, StoreError):
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
        path = inside(self.root, "objects", sha256[:2], f"{sha256}.arrow")
        if remote := remote_of(self.root):
            remote.hold(sha256)
        if not path.is_file() or file_sha256(path) != sha256:
            found = "not what was written" if path.is_file() else "gone"
            raise CorruptObjectError(f"{name} of run {run['run_id']}, object {sha256[:12]}", found, "its bytes")
        return path

    def _write_run(self, run_id: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
        check_name(run_id, "run")
        final = inside(self.root, "runs", f"{run_id}.json")
        if remote := remote_of(self.root):
            read = partial(parse_run, run_id=run_id)
            update(remote, f"runs/{run_id}.json", read, lambda known: {**change(known), "run_id": run_id}, names_of_run)
            remote.bring_runs()
            return final
        with self._locked("runs", "runs.lock"):
            known = read_run(final) if final.exists() else {}
            with self._temporary(".json") as temporary:
                self._write(temporary, json.dumps({**change(known), "run_id": run_id}, indent=1) + "\n")
                temporary.replace(final)
                _fsync_folder(final.parent)
        return final

    def runs(self) -> list[dict[str, Any]]:
        """List the registered training runs, by id."""
        return read_runs(self.root)

    # gc ---------------------------------------------------------------------------------------------------------------

    def garbage(self, grace_s: float = GRACE_S) -> Garbage:
        """Find what nothing names and what is older than the grace period (see `curate.garbage`)."""
        return self._names.garbage(grace_s)

    def remove(self, garbage: Garbage) -> Garbage:
        """Remove what `garbage` found, unless it was taken up again since. Gives what was removed.

        Writers wait meanwhile: none can take up an object between the look at it and its removal.
        """
        with self._locked("gc.lock"):
            try:
                return self._names.remove(garbage)
            except OSError as error:
                _explain(error, self.root)


def conflict(name: str, seq: int) -> ConflictError:
    """Give the error of a commit whose number is taken."""
    return ConflictError(
        f"dataset {name!r}",
        f"version {seq} was committed by another process meanwhile",
        remedy="run the command again: it will start from that version",
    )


def _touched(path: Path) -> bool:
    """Make a file young, so that gc counts its grace period from here; False where it is gone or not ours to touch."""
    try:
        os.utime(path)
    except (FileNotFoundError, PermissionError):
        return False
    return True


def now() -> str:
    """Give the time of a commit: UTC, seconds, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
