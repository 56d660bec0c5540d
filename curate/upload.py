"""A version on its way into object storage: objects first, then the manifest, put only where there is none yet.

Killed at any point, the storage is at the old version or at the new one; objects that nothing names, `gc` finds. There
is no lock in a bucket, so a commit and a gc agree by one small object, gc.json, that says whether a gc is at work:

    commit   reads gc.json, uploads objects, puts the manifest, reads gc.json again;
             where a gc was at work meanwhile: waits for it, and uploads again what it took
    gc       says in gc.json that it is at work, then reads all manifests, then deletes what none of them names

Either the gc sees the manifest, or the commit sees the gc. A gc that was killed is waited for LEASE_S and then taken to
be dead; a living one says again that it is alive before it deletes anything more.
"""

import json
import random
import re
import secrets
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from typing import Any

from schemas.bucket import PAGE, Held, Listed
from schemas.errors import ConflictError, CorruptObjectError, StoreError
from schemas.manifest import Manifest
from schemas.objects import file_sha256
from schemas.reference import manifest_path, read_manifest, version_file
from schemas.remote import Remote, object_key, together

LEASE_S = 120.0
"""So long a gc that says nothing is waited for: one deletion, with all repetitions, takes RETRY_S + READ_S at most."""

TRIES = 30
"""So often a change to tags or runs starts over when somebody else's came first: 16 writers at once need about 10."""

APART_S = 0.3
"""Those who lost against the same commit begin anew within so long, one after the other: about the time of a commit."""

YOUNG_S = 12 * 3600.0
"""An unnamed object that was uploaded less than this ago is not uploaded again: half of gc's grace period."""

_GC = "gc.json"
_OBJECT = re.compile(r"objects/([0-9a-f]{2})/\1[0-9a-f]{62}\.arrow")  # as `schemas.remote.object_key`


def publish(remote: Remote, manifest: Manifest, text: str) -> None:
    """Upload what a version needs, then its manifest; raise ConflictError where its number is taken."""
    _check_conditions(remote)
    mine = _new_objects(remote, manifest)
    with _beside_gc(remote, mine):
        _upload(remote, mine)
        key = f"datasets/{manifest.name}/versions/{version_file(manifest.seq)}"
        put = remote.bucket.put_if(key, text.encode(), None)
        remote.forget()
        if put:
            return
        there = remote.bucket.get(key)
        if there is None or there.body != text.encode():  # else it is this very put, whose answer was lost
            time.sleep(random.uniform(0, APART_S))  # noqa: S311 # only chance, no secret
            raise ConflictError(
                f"dataset {manifest.name!r}",
                f"version {manifest.seq} was committed by another machine or process meanwhile",
                remedy="run the command again: it will start from that version",
            )


def update(
    remote: Remote,
    key: str,
    read: Callable[[bytes, str], dict[str, Any]],
    change: Callable[[dict[str, Any]], dict[str, Any]],
    names: Callable[[dict[str, Any]], Iterable[str]] = lambda _facts: (),
) -> None:
    """Change a small JSON file, its tags or a run, in place of the version that was read, until nobody else is first.

    `read` takes what stands there, and where, and raises StoreError where it is not what such a file holds. `names`
    gives the objects (sha256) that the changed file names; they are uploaded before it.
    """
    _check_conditions(remote)
    for turn in range(TRIES):
        held = remote.bucket.get(key)
        known = read(held.body, f"{key} in {remote.bucket.url}") if held else {}
        facts = change(known)
        if held and facts == known:
            return
        mine = list(names(facts))
        with _beside_gc(remote, mine):
            _upload(remote, mine)
            text = json.dumps(facts, indent=1, sort_keys=True) + "\n"
            if remote.bucket.put_if(key, text.encode(), held.version if held else None):
                return
        time.sleep(random.uniform(0, 0.02 * 2 ** min(turn, 5)))  # noqa: S311 # so that many do not meet again
    raise ConflictError(
        f"{key} in {remote.bucket.url}", f"changed by others {TRIES} times meanwhile", remedy="try again"
    )


def names_of_run(run: dict[str, Any]) -> list[str]:
    """Give the objects (sha256) that the record of a run names."""
    return [sha256 for sha256 in (run.get("records"), *run.get("objects", {}).values()) if sha256]


def unnamed(remote: Remote, named: set[str], limit: float) -> list[Listed]:
    """Find the objects in the storage that nothing names and that are older than a time (seconds since the epoch)."""
    objects = remote.bucket.below("objects")
    ours = [one for one in objects if _OBJECT.fullmatch(one.key)]  # all else is somebody else's
    return [one for one in ours if one.key[-70:-6] not in named and one.modified < limit]


def sweep(remote: Remote, keys: Iterable[str], named: Callable[[], set[str]], limit: float) -> dict[str, int]:
    """Delete those of the objects that still nothing names and nobody has uploaded again; give them and their sizes.

    `named` reads all manifests and runs anew. `limit` (seconds since the epoch) is by this machine's clock.
    """
    wanted = set(keys)
    gone: dict[str, int] = {}
    if not wanted:
        return gone
    token = secrets.token_hex(8)
    _say(remote, token, at_work=True, before=_idle(remote))
    try:
        remote.forget()
        told = remote.bucket.head(_GC)  # written just now: the storage's clock
        limit -= (
            max(0.0, time.time() - told.modified) if told else 0.0
        )  # where ours is ahead, all looks older than it is
        left = [one for one in unnamed(remote, named(), limit) if one.key in wanted]
        for start in range(0, len(left), PAGE):
            _say(remote, token, at_work=True, before=_own(remote, token))
            page = left[start : start + PAGE]
            remote.bucket.delete([one.key for one in page])
            gone.update((one.key, one.size) for one in page)
    finally:
        _say(remote, token, at_work=False, before=_own(remote, token))
    return gone


def _new_objects(remote: Remote, manifest: Manifest) -> list[str]:
    """Give the objects that the version before does not name: what an earlier manifest names is there and stays."""
    before: set[str] = set()
    if manifest.seq - 1 in remote.versions(manifest.name):
        parent = read_manifest(manifest_path(f"{manifest.name}@{manifest.seq - 1}", remote.root))
        before = {file.sha256 for file in parent.files}
    return list(dict.fromkeys(file.sha256 for file in manifest.files if file.sha256 not in before))


def _upload(remote: Remote, hashes: list[str]) -> None:
    """See that objects are in the storage and young, so that no gc takes them before a manifest names them."""

    def one(sha256: str) -> None:
        path, key = remote.root / object_key(sha256), object_key(sha256)
        there = remote.bucket.head(key)
        if (
            there
            and time.time() - there.modified < YOUNG_S
            and (not path.is_file() or path.stat().st_size == there.size)
        ):
            return
        if not path.is_file() and there:
            remote.hold(sha256)
        if not path.is_file() or file_sha256(path) != sha256:
            found = "not what was written" if path.is_file() else "missing"
            raise CorruptObjectError(f"object {key} in {remote.root}", found, "the object that a manifest names")
        remote.bucket.put(key, path)

    sizes = [path.stat().st_size for path in (remote.root / object_key(s) for s in hashes) if path.is_file()]
    remote.say_transfer("sending", "to", sizes)
    together(one, hashes)


@contextmanager
def _beside_gc(remote: Remote, hashes: list[str]) -> Generator[None]:
    """Make the block safe against a gc: afterwards the objects are there, whatever a gc did meanwhile."""
    before = remote.bucket.get(_GC)
    yield
    after = remote.bucket.get(_GC)
    if (before.body if before else b"") == (after.body if after else b"") and not _at_work(after):
        return
    _idle(remote)
    taken = [sha256 for sha256 in hashes if remote.bucket.head(object_key(sha256)) is None]
    _upload(remote, taken)


def _idle(remote: Remote) -> Held | None:
    """Wait until no gc is at work, or the one that says so has said nothing for LEASE_S. Gives what stands there."""
    held = remote.bucket.get(_GC)
    since = time.monotonic()
    told = False
    while _at_work(held) and time.monotonic() - since < LEASE_S:
        if not told:
            remote.said(
                f"waiting for a gc of {remote.bucket.url} (at most {LEASE_S:.0f} s after its last sign of life)"
            )
            told = True
        time.sleep(min(0.5, LEASE_S / 4))
        now = remote.bucket.get(_GC)
        if held is None or now is None or now.body != held.body:
            since = time.monotonic()
        held = now
    if _at_work(held):  # it was killed; should it live on, it finds another's token there, and stops
        with suppress(ConflictError):  # others waited too, and one of them came first, or a new gc did
            _say(remote, secrets.token_hex(8), at_work=False, before=held)
        return _idle(remote)
    return held


def _at_work(held: Held | None) -> bool:
    return held is not None and b'"at work"' in held.body


def _say(remote: Remote, token: str, *, at_work: bool, before: Held | None) -> None:
    """Write gc.json in place of what stood there; each time with other bytes, so that everybody sees a sign of life."""
    facts = {"gc": token, "state": "at work" if at_work else "idle", "sign": secrets.token_hex(8)}
    body = json.dumps(facts).encode()
    if not remote.bucket.put_if(_GC, body, before.version if before else None):
        now = remote.bucket.get(_GC)
        if now is None or now.body != body:  # else it is this very put, whose answer was lost
            raise ConflictError(
                f"store {remote.bucket.url}", "another gc is at work", remedy="try again when it is done"
            )


def _own(remote: Remote, token: str) -> Held | None:
    """Give gc.json as this gc wrote it; raise ConflictError where another took over, because this one was too slow."""
    held = remote.bucket.get(_GC)
    if held is None or f'"{token}"'.encode() not in held.body:
        raise _other_gc(remote)
    return held


def _other_gc(remote: Remote) -> ConflictError:
    return ConflictError(f"store {remote.bucket.url}", "another gc is at work", remedy="try again when it is done")


def _check_conditions(remote: Remote) -> None:
    """Find out, once for each mirror, that the storage puts under conditions; refuse to write where it does not.

    Some storages ignore the conditions and overwrite: two commits at once would lose one of them without a word.
    """
    proof = remote.root / "conditional-put.ok"
    if proof.is_file():
        return
    key = f"tmp/probe-{secrets.token_hex(8)}"
    try:
        made = remote.bucket.put_if(key, b"1", None)
        again = remote.bucket.put_if(key, b"2", None)
        held = remote.bucket.get(key)
        changed = held is not None and remote.bucket.put_if(key, b"3", held.version)
        late = held is not None and remote.bucket.put_if(key, b"4", held.version)
    finally:
        remote.bucket.delete([key])
    if (made, again, changed, late) != (True, False, True, False):
        where, found = f"store {remote.bucket.url}", "it overwrites where it is asked not to"
        remedy = "versions are only safe where there is one: choose another storage; reading works"
        raise StoreError(where, found, "object storage with conditional put (If-None-Match, If-Match)", remedy)
    proof.touch()
