"""A store in object storage: a folder on this machine that holds what was needed of it, and is like any store.

`--store s3://BUCKET/PREFIX` leads to the mirror, a folder with `remote.json`, and everything goes on working with that
folder. What is shared is fetched when it is first asked for: which versions, tags and runs there are is asked every
time; manifests and objects never change and are fetched once, objects checked by their sha256. What is only ours stays
here: cache/, tmp/, review/, checked.log. How a version gets there is in `curate.upload`.
"""

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

from schemas.bucket import Bucket, Listed, check_url, endpoint_of, is_url, open_bucket
from schemas.cache import user_cache
from schemas.errors import ConfigError, CorruptObjectError, StoreError
from schemas.manifest import FileEntry

PARALLEL = 8
"""Requests under way at once: more gain little on one line, and a server may slow us down."""

FRESH_S = 1.0
"""For so long one list of versions is good: a log of 800 versions asks once. Commits do not depend on it."""

SAID_BYTES = 4 << 20
"""A transfer of more than this is worth a line: it takes over a second on a line of 4 MB/s."""

_RESTORE = "restore it from a backup, or from a machine that read it before"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # as `schemas.reference.NAME`; a bucket's keys are anybody's
_VERSION = re.compile(r"(\d{6}|[1-9]\d{6,17})\.json")

T = TypeVar("T")
R = TypeVar("R")


def together(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Do the same to several objects at once; raise the first failure."""
    if len(items) < 2:
        return [work(item) for item in items]
    pool = ThreadPoolExecutor(PARALLEL)
    try:
        return list(pool.map(work, items))
    finally:
        pool.shutdown(cancel_futures=True)  # after a failure or Ctrl-C, what has not begun does not begin


def object_key(sha256: str) -> str:
    """Give the key of an object: its path in any store."""
    return f"objects/{sha256[:2]}/{sha256}.arrow"


class Remote:
    """The object storage behind a mirror: what is there, brought here."""

    def __init__(self, root: Path, bucket: Bucket) -> None:
        self.root, self.bucket = root, bucket
        self.said: Callable[[str], None] = lambda _line: None
        """Gets a line for a person where there is a wait."""
        self._listed: dict[str, tuple[float, dict[int, Listed]]] = {}

    # which versions, tags and runs there are --------------------------------------------------------------------------

    def datasets(self) -> list[str]:
        """List the folders of datasets; a name that is none is somebody else's and left alone."""
        names = [name for name in self.bucket.folders("datasets") if _NAME.fullmatch(name)]
        return [name for name in names if ".." not in name and not name.endswith(".json")]

    def versions(self, name: str) -> list[int]:
        """List the version numbers of a dataset, in order."""
        return sorted(self._versions(name))

    def _versions(self, name: str) -> dict[int, Listed]:
        if not _NAME.fullmatch(name):
            return {}
        asked, found = self._listed.get(name, (0.0, {}))
        if not asked or time.monotonic() - asked > FRESH_S:
            listed = self.bucket.below(f"datasets/{name}/versions")
            numbers = ((_VERSION.fullmatch(one.key.rpartition("/")[2]), one) for one in listed)
            found = {int(number[1]): one for number, one in numbers if number and one.key.count("/") == 3}
            self._listed[name] = (time.monotonic(), found)
        return found

    def forget(self) -> None:
        """Ask anew which versions there are, the next time."""
        self._listed.clear()

    def bring_manifest(self, name: str, seq: int) -> None:
        """Fetch a manifest unless it is here."""
        if listed := self._versions(name).get(seq):
            self._bring_file(listed)

    def bring_tags(self, name: str) -> None:
        """Fetch the tags of a dataset as they are now."""
        self._bring_now(f"datasets/{name}/tags.json")

    def bring_runs(self) -> None:
        """Fetch the registered runs that are new or have changed."""
        found = [one for one in self.bucket.below("runs") if one.key.endswith(".json") and one.key.count("/") == 1]
        runs = {one.key[5:]: one for one in found if _NAME.fullmatch(one.key[5:-5])}
        together(self._bring_file, list(runs.values()))
        with self._here():
            for file in (self.root / "runs").glob("*.json"):
                if file.name not in runs:  # somebody removed it there
                    file.unlink(missing_ok=True)

    def _bring_file(self, listed: Listed) -> None:
        """Fetch a small file unless the one here is of the same version."""
        path = self.root / listed.key
        with suppress(FileNotFoundError):
            here = path.stat()
            if here.st_size == listed.size and here.st_mtime_ns == _stamp(listed):
                return
        self._bring_now(listed.key, _stamp(listed))

    def _bring_now(self, key: str, stamp: int | None = None) -> None:
        path = self.root / key
        held = self.bucket.get(key)
        with self._here():
            if held is None:
                path.unlink(missing_ok=True)
                return
            with self._temporary() as temporary:
                temporary.write_bytes(held.body)
                if stamp is not None:
                    os.utime(temporary, ns=(stamp, stamp))
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary.replace(path)

    # objects ----------------------------------------------------------------------------------------------------------

    def hold(self, sha256: str, *, anew: bool = False) -> None:
        """Fetch an object unless it is here (`anew`: also then), and check it.

        Raises CorruptObjectError where it is not there, or comes with other bytes than its name says, twice.
        """
        path = self.root / object_key(sha256)
        if not anew and path.is_file():
            return
        where, found = f"object {object_key(sha256)} in {self.bucket.url}", ""
        with self._here():
            path.parent.mkdir(parents=True, exist_ok=True)
            for _ in range(2):  # a line can go wrong once
                with self._temporary() as temporary:
                    came = self.bucket.download(object_key(sha256), temporary)
                    if came == sha256:
                        temporary.chmod(0o444)
                        temporary.replace(path)
                        return
                    found = f"its bytes have the sha256 {came[:12]}…" if came else "missing"
        raise CorruptObjectError(where, found, "the object that a manifest names", _RESTORE)

    def bring(self, files: Iterable[FileEntry]) -> None:
        """Fetch several objects at once, those that are not here."""
        missing = {file.sha256: file.bytes for file in files if not (self.root / file.path).is_file()}
        self.say_transfer("fetching", "from", list(missing.values()))
        together(self.hold, list(missing))

    def lacking(self, files: Iterable[FileEntry]) -> list[str]:
        """Say which objects are not in the storage with the size that a manifest states, whatever is here."""
        there = {one.key: one.size for one in self.bucket.below("objects")}
        lost = [file for file in files if there.get(file.path) != file.bytes]
        found = (f"{there[file.path]} bytes" if file.path in there else "missing" for file in lost)
        return [
            str(CorruptObjectError(f"object {file.path} in {self.bucket.url}", what, f"{file.bytes} bytes", _RESTORE))
            for file, what in zip(lost, found, strict=True)
        ]

    def say_transfer(self, doing: str, way: str, sizes: Sequence[int]) -> None:
        """Tell a person about a transfer that may take a while; sizes in bytes."""
        if sum(sizes) > SAID_BYTES:
            self.said(f"{doing} {len(sizes)} objects, {sum(sizes) / 1e6:,.0f} MB, {way} {self.bucket.url}")

    # this machine's side ----------------------------------------------------------------------------------------------

    @contextmanager
    def _temporary(self) -> Generator[Path]:
        folder = self.root / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder)
        os.close(handle)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    @contextmanager
    def _here(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            where, found = f"mirror {self.root} of {self.bucket.url}", error.strerror or str(error)
            remedy = "free some space, or name another place with SFT_CACHE"
            raise StoreError(where, found, "a folder to write to", remedy) from error


def _stamp(listed: Listed) -> int:
    """Give the time (ns) that a small file's copy bears: the storage's time, and below its milliseconds the e_tag.

    Many storages tell whole seconds, and a run may change twice in one without changing its size. The time goes into
    place together with the content, as a note in a second file would not.
    """
    mark = int(hashlib.sha256(listed.e_tag.encode()).hexdigest()[:12], 16) % 1_000_000
    return round(listed.modified * 1000) * 1_000_000 + mark


def mirror(url: str) -> Path:
    """Give the folder that mirrors a store in object storage, made where there is none; for file:// the folder itself.

    It lies in SFT_CACHE, or `sft` in the user's cache, under a digest of the URL and of the server that is asked.
    """
    if url.startswith("file://"):
        if not url.startswith("file:///"):
            raise ConfigError(f"store {url}", "no whole path", "file:///FOLDER, or the folder itself")
        return Path(url.removeprefix("file://"))
    url = check_url(url)
    endpoint = endpoint_of(url)
    open_bucket(url, endpoint)  # says what is wrong before a folder is made
    root = _mirrors() / hashlib.sha256(f"{endpoint or ''} {url}".encode()).hexdigest()[:16]
    facts = root / "remote.json"
    try:
        if not facts.is_file():
            root.parent.mkdir(parents=True, exist_ok=True)
            root.mkdir(mode=0o700, exist_ok=True)  # a bucket is seldom open to everybody on this machine
            temporary = root / f".remote-{os.getpid()}.json"
            temporary.write_text(json.dumps({"url": url, "endpoint": endpoint}) + "\n")
            temporary.replace(facts)
    except OSError as error:
        found = error.strerror or str(error)
        raise StoreError(
            f"mirror {root} of {url}", found, "a folder to write to", "name another by SFT_CACHE"
        ) from error
    _OURS.add(root)
    return root


def _mirrors() -> Path:
    return user_cache() / "stores"


_OURS: set[Path] = set()
"""Mirrors that were named by their URL in this process."""


def remote_of(root: Path) -> Remote | None:
    """Give the object storage behind a store's folder; None (after one look) where the folder is the store.

    Raises ConfigError for a mirror outside our cache: a folder that came from elsewhere does not decide whom we ask.
    """
    is_mirror = os.path.isfile(root / "remote.json")  # noqa: PTH113 # where nobody lets us look: False, not an error
    return _opened(root) if is_mirror else None


@cache
def _opened(root: Path) -> Remote:
    file = root / "remote.json"
    try:
        facts = json.loads(file.read_bytes())
        url, endpoint = str(facts["url"]), facts["endpoint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(str(file), "not what it was written as", "url and endpoint", "remove the mirror") from error
    if root not in _OURS and root.resolve().parent != _mirrors().resolve():
        found = f"a mirror of {url[:200]!r}, and not one of this machine's"
        raise ConfigError(f"store {root}", found, "a store's folder, or its URL", "name the store by its URL")
    if (asked := endpoint_of(url)) not in (None, endpoint):
        found = f"a mirror of {url} at {endpoint or 'the provider'}, and the environment says {asked}"
        raise ConfigError(f"store {root}", found, "one server", f"name it as --store {url}")
    return Remote(root, open_bucket(check_url(url), endpoint))


def bring_along(root: Path, file: FileEntry, files: Iterable[FileEntry]) -> None:
    """Before one object is opened: where it has to be fetched, fetch all of its kind (stage and role) together."""
    if not (root / file.path).is_file() and (remote := remote_of(root)):
        remote.bring(one for one in files if (one.stage, one.role) == (file.stage, file.role))


def shown(root: Path) -> str:
    """Give a store as a person names it: its URL, or its folder."""
    remote = remote_of(root)
    return remote.bucket.url if remote else str(root)


def folder_of(text: str | Path) -> Path:
    """Give the folder of a store from what a person wrote: a folder, or a URL."""
    return mirror(str(text)) if is_url(str(text)) else Path(text)
