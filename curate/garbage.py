"""Garbage: what lies in a store and is named by nothing, and how it goes without harm to those who write meanwhile.

An object is named by a version, a run, or a finished stage's result that is remembered. What is not, and is older than
the grace period, is garbage; so are old temporary files and old stage results. A version or a run that cannot be read
may name anything: then nothing is garbage, and nothing is removed.
"""

import re
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from curate.upload import sweep, unnamed
from schemas.errors import StoreError
from schemas.manifest import canonical
from schemas.place import check_store, inside, listed, read_bytes
from schemas.reference import dataset_names, manifest_path, read_manifest, read_runs, versions_of
from schemas.remote import remote_of

GRACE_S = 24 * 3600.0
"""Unnamed objects younger than this may belong to a commit that is under way, and stay (one day)."""

_SHA256 = re.compile(r"\b[0-9a-f]{64}\b")


@dataclass(frozen=True)
class Garbage:
    """Files that nothing names and that are older than the grace period."""

    paths: tuple[Path, ...]
    bytes: int
    limit: float
    """Time in seconds since the epoch: what is younger stays."""

    keys: tuple[str, ...] = ()
    """Where the store lies in object storage: what is garbage there, with its size in `bytes`."""


class Names:
    """What the versions, runs and stage results of a store name."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._versions: dict[Path, frozenset[str]] = {}

    def garbage(self, grace_s: float) -> Garbage:
        """Find the garbage; raise StoreError where a version or a run cannot be read."""
        check_store(self._root)
        limit = time.time() - grace_s
        old = {path: size for sub in ("tmp", "cache") for path, size in self._old(limit, sub)}
        named = self._named(skip=set(old))
        for folder in listed(inside(self._root, "objects")):
            old.update((p, size) for p, size in self._old(limit, "objects", folder) if p.stem not in named)
        remote = remote_of(self._root)
        there = {one.key: one.size for one in unnamed(remote, named, limit)} if remote else {}
        return Garbage(tuple(old), sum(old.values()) + sum(there.values()), limit, tuple(there))

    def remove(self, garbage: Garbage) -> Garbage:
        """Remove garbage that is still old and still named by nothing; give what was removed.

        Whoever calls this holds the lock that keeps others from taking objects up. Raises OSError.
        """
        named = self._named(skip=set(garbage.paths))
        removed: dict[Path, int] = {}
        for path in garbage.paths:
            with suppress(FileNotFoundError):  # another gc was faster
                found = path.lstat()
                if path.stem not in named and found.st_mtime < garbage.limit:
                    path.unlink()
                    removed[path] = found.st_size
        remote = remote_of(self._root)
        there = (
            sweep(remote, garbage.keys, lambda: self._named(skip=set(garbage.paths)), garbage.limit) if remote else {}
        )
        size = sum(removed.values()) + sum(there.values())
        return Garbage(tuple(removed), size, garbage.limit, tuple(there))

    def _old(self, limit: float, *place: str) -> list[tuple[Path, int]]:
        """Give the files of a folder that were last touched before a time, with their sizes in bytes."""
        folder = inside(self._root, *place)
        found: list[tuple[Path, int]] = []
        for name in listed(folder):
            with suppress(FileNotFoundError):  # it was being written, and is done
                told = (folder / name).lstat()
                if told.st_mtime < limit and not stat.S_ISDIR(told.st_mode):
                    found.append((folder / name, told.st_size))
        return found

    def _named(self, skip: set[Path]) -> set[str]:
        """Collect the hashes of all objects that are named; `skip`: stage results that count no more."""
        try:
            return self._collected(skip)
        except StoreError as error:
            remedy = error.remedy or "restore it from a backup"
            remedy += "; nothing was removed, since what it names is not known"
            raise type(error)(error.where, error.found, error.expected, remedy) from error

    def _collected(self, skip: set[Path]) -> set[str]:
        named: set[str] = set()
        for name in dataset_names(self._root):
            for seq in versions_of(self._root, name):
                path = manifest_path(f"{name}@{seq}", self._root)
                if path not in self._versions:  # a manifest never changes
                    self._versions[path] = frozenset(file.sha256 for file in read_manifest(path).files)
                named |= self._versions[path]
        named.update(_SHA256.findall(canonical(read_runs(self._root)).decode()))
        for name in listed(inside(self._root, "cache")):
            path = self._root / "cache" / name
            if path not in skip:
                with suppress(StoreError):  # what cannot be read is not taken up again either
                    named.update(
                        _SHA256.findall(
                            read_bytes(inside(self._root, "cache", name), str(path)).decode(errors="replace")
                        )
                    )
        return named
