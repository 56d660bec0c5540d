"""Objects: immutable files named by the sha256 of their bytes, and the check that they still are what they were."""

import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path

import polars as pl

from schemas.errors import CorruptObjectError, StoreError
from schemas.manifest import FileEntry
from schemas.place import inside, read_bytes
from schemas.record import OVERLAY_SCHEMA, TEXT_SCHEMA, VERDICT_SCHEMA, check_schema
from schemas.remote import remote_of
from schemas.stages import ANNOTATION_COLUMNS


def file_sha256(path: Path) -> str:
    """Give the sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Checked:
    """Which objects were already read whole and found right, by size, times and inode, in one append-only file.

    A file whose bytes change gets another ctime, so it is read again. With `afresh` nothing is believed that was
    found before (`sft verify --deep`): each object is read again, once. A line that a crash tore holds for no file.
    """

    def __init__(self, root: Path, *, afresh: bool = False) -> None:
        self._root, self.afresh = root, afresh
        self._known: set[str] = set() if afresh else set(self._lines())

    def _lines(self) -> list[str]:
        with suppress(StoreError):  # it only spares work
            path = inside(self._root, "checked.log")
            return read_bytes(path, str(path)).decode(errors="replace").splitlines()
        return []

    @staticmethod
    def _line(sha256: str, path: Path) -> str:
        s = path.stat()
        return f"{sha256} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns} {s.st_ino}"

    def __contains__(self, entry: tuple[str, Path]) -> bool:
        return self._line(*entry) in self._known

    def add(self, sha256: str, path: Path) -> None:
        """Remember an object that was just read whole (or written) and is right."""
        line = self._line(sha256, path)
        if line in self._known:
            return
        self._known.add(line)
        if self.afresh:
            return
        with suppress(OSError):  # a read-only store is read all the same; it is only checked again next time
            path = self._root / "checked.log"
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
            try:
                os.write(file, f"{line}\n".encode())
            finally:
                os.close(file)


def check_object(root: Path, file: FileEntry, checked: Checked | None) -> Path:
    """Return the path of an object whose bytes are right; raise CorruptObjectError otherwise.

    With `checked`, an object that was found right before and has not been touched since is not read again.
    """
    path = inside(root, *file.path.split("/"))
    where = f"object {file.path} ({file.stage} {file.role}{f' of {file.source}' if file.source else ''})"
    remote = remote_of(root)
    try:
        if remote and not (checked is not None and path.is_file() and (file.sha256, path) in checked):
            remote.hold(file.sha256, anew=checked is None or checked.afresh)
        if not stat.S_ISREG(path.lstat().st_mode):
            raise CorruptObjectError(where, "not a file", "the file that was written", "restore it from a backup")
        if checked is not None and (file.sha256, path) in checked:
            return path
        found = file_sha256(path)
        if remote and found != file.sha256:  # the copy on this machine went bad
            remote.hold(file.sha256, anew=True)
            found = file_sha256(path)
    except FileNotFoundError as error:
        raise CorruptObjectError(
            where, "missing", "every object that a manifest names", "restore it from a backup"
        ) from error
    except OSError as error:
        raise StoreError(where, error.strerror or str(error), "a readable file") from error
    if found != file.sha256:
        raise CorruptObjectError(
            where, f"its bytes have the sha256 {found[:12]}…", "the one in its name", "restore it from a backup"
        )
    if checked is not None:
        checked.add(file.sha256, path)
    return path


def check_columns(path: Path, file: FileEntry) -> None:
    """Raise StoreError when an object's columns are not those of its role and stage."""
    found = pl.Schema(pl.scan_ipc(path).collect_schema())
    if file.role == "text":
        check_schema(found, TEXT_SCHEMA, file.path)
    elif file.role == "overlay":
        check_schema(found, OVERLAY_SCHEMA, file.path)
    elif file.role == "annotation" and file.stage in ANNOTATION_COLUMNS:
        expected = pl.Schema({**VERDICT_SCHEMA, **ANNOTATION_COLUMNS[file.stage]})
        brief = (pl.Null, pl.Categorical, pl.List(pl.Categorical))  # as `curate.canonical` writes what says little
        found = pl.Schema({c: expected.get(c, t) if t in brief else t for c, t in found.items()})
        check_schema(found, expected, file.path)
