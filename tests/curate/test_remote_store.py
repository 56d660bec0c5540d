"""A store in object storage: the same versions as in a folder, whoever writes or is killed meanwhile."""

import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from curate import garbage, upload
from curate.store import Store
from curate.verify import verify, verify_store
from curate.version import Draft, commit_version
from schemas.bucket import Bucket
from schemas.dataset import Dataset, open_dataset
from schemas.errors import ConflictError, StoreError
from schemas.manifest import Source
from schemas.reference import read_runs, read_tags, versions_of
from schemas.remote import Remote, mirror, object_key, remote_of
from tests.rows import dataset_of, put_source, question
from tests.s3 import S3, Blob, alone, serve

pytest.importorskip("obstore", reason="the extra `remote` is not installed")

URL = "s3://b/team/p"
ROWS = {"s": [question("a", "b"), question("c", "d")]}
DAY = 86400.0


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[S3]:
    with serve() as s3:
        alone(s3, tmp_path, monkeypatch)
        yield s3


Machine = Callable[[str], Path]


@pytest.fixture
def machine(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:  # noqa: ARG001 # the bucket is up
    """Give the mirror of the store on a machine of that name; the bucket is up."""

    def there(name: str) -> Path:
        monkeypatch.setenv("SFT_CACHE", str(tmp_path / name))
        return mirror(URL)

    return there


def versions(s3: S3) -> list[str]:
    return [key.rpartition("/")[2] for key in s3.keys("team/p/datasets/d/versions/")]


def found(root: Path) -> Remote:
    remote = remote_of(root)
    assert remote is not None
    return remote


def see_anew(root: Path) -> None:
    """A list of versions is good for a second; here the second is over."""
    found(root).forget()


def test_another_machine_sees_the_same_version(s3: S3, machine: Machine, tmp_path: Path) -> None:
    """The same id, rows and bytes, and the id that a folder on a disk gives."""
    made = dataset_of(machine("one"), ROWS)
    seen = open_dataset("d", machine("two"))
    assert seen.manifest == made.manifest
    assert seen.manifest.id == dataset_of(tmp_path / "disk", ROWS).manifest.id
    assert seen.scan(["id", "messages"]).collect().equals(made.scan(["id", "messages"]).collect())
    for file in made.manifest.files:
        assert (seen.root / file.path).read_bytes() == s3.blobs[f"team/p/{file.path}"].body
    assert verify(seen, deep=True) == []
    after = dataset_of(machine("two"), {"t": [question("e", "f")]})
    see_anew(made.root)
    assert open_dataset("d", made.root).manifest == after.manifest
    assert len(versions(s3)) == 2


def test_objects_are_fetched_when_they_are_read_and_only_once(s3: S3, machine: Machine) -> None:
    made = dataset_of(machine("one"), ROWS, shard_rows=1)
    s3.asked.clear()
    seen = open_dataset("d", machine("two"))
    assert [key for method, key in s3.asked if "objects/" in key and method == "GET"] == []
    seen.scan(["id"]).collect()
    fetched = [key for method, key in s3.asked if "objects/" in key and method == "GET"]
    assert sorted(fetched) == sorted({f"team/p/{f.path}" for f in made.manifest.files})
    s3.asked.clear()
    seen.scan(["id"]).collect()
    assert s3.asked == []


def test_what_the_version_before_has_is_not_sent_again(s3: S3, machine: Machine) -> None:
    first = dataset_of(machine("one"), ROWS)
    s3.asked.clear()
    second = dataset_of(machine("two"), {"t": [question("e", "f")]})
    sent = {key for method, key in s3.asked if method == "PUT" and "objects/" in key}
    new = {f.path for f in second.manifest.files} - {f.path for f in first.manifest.files}
    assert sent == {f"team/p/{path}" for path in new}


def test_a_taken_number_is_a_conflict_and_the_first_stays(s3: S3, machine: Machine) -> None:
    made = dataset_of(machine("one"), ROWS)
    before = s3.blobs["team/p/datasets/d/versions/000001.json"].body
    with pytest.raises(ConflictError, match=r"version 1 was committed by another"):
        Store(machine("two")).commit(made.manifest.model_copy(update={"message": "late"}))
    assert s3.blobs["team/p/datasets/d/versions/000001.json"].body == before


def test_a_commit_whose_answer_is_lost_is_no_conflict(s3: S3, machine: Machine) -> None:
    """The client asks again, hears that the version is there, and finds that it is its own."""
    s3.faults.lose_answer.append(("PUT", "versions/000001.json"))
    made = dataset_of(machine("one"), ROWS)
    assert made.manifest.seq == 1
    assert versions(s3) == ["000001.json"]


def add(root: Path, source: str) -> None:
    """Add a source of one row, in as many tries as it takes."""
    store = Store(root)
    for _ in range(100):
        see_anew(root)
        parent = store.latest("d")
        draft = (Draft.of(parent) if parent else Draft("d")).with_source(
            Source(name=source, format="test"), put_source(store, [question(source, "x")], source)
        )
        try:
            commit_version(store, draft, parent, source)
        except ConflictError:
            continue
        return
    pytest.fail("100 conflicts in a row")


def test_eight_machines_at_once_commit_every_version_once(s3: S3, machine: Machine) -> None:
    roots = [machine(f"m{i}") for i in range(8)]

    def work(i: int) -> None:
        add(roots[i], f"s{i}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    root = machine("reader")
    assert versions_of(root, "d") == list(range(1, 9))
    last = open_dataset("d", root)
    assert {s.name for s in last.manifest.sources} == {f"s{i}" for i in range(8)}
    messages = [open_dataset(f"d@{n}", root).manifest.message for n in range(1, 9)]
    assert len(set(messages)) == 8
    assert verify(last, deep=True) == []
    assert len(versions(s3)) == 8


def test_tags_and_runs_of_many_machines_all_stay(machine: Machine, tmp_path: Path) -> None:
    dataset_of(machine("one"), ROWS)
    roots = [machine(f"m{i}") for i in range(6)]
    losses = tmp_path / "losses.arrow"
    losses.write_bytes(b"losses of a run")

    def work(i: int) -> str:
        store = Store(roots[i])
        store.tag("d", f"t{i}", 1)
        store.register_run(f"run{i}", {"dataset": "d"}, losses)
        sha256 = store.put_file(losses)
        store.add_to_run("shared", {"dataset": "d"}, {f"answers{i}": sha256})
        return sha256

    with ThreadPoolExecutor(6) as pool:
        [sha256] = set(pool.map(work, range(6)))
    root = machine("reader")
    assert read_tags(root, "d") == {f"t{i}": 1 for i in range(6)}
    runs = {run["run_id"]: run for run in read_runs(root)}
    assert sorted(runs) == [*(f"run{i}" for i in range(6)), "shared"]
    assert runs["shared"]["objects"] == {f"answers{i}": sha256 for i in range(6)}
    path = Store(root).run_object(runs["shared"], "answers3")
    assert path is not None
    assert path.read_bytes() == b"losses of a run"
    Store(root).tag("d", "t0", 1)  # changes nothing
    assert Store(machine("one")).runs() == read_runs(root)


class Killed(BaseException):
    """Where a process would be gone: nothing catches it."""


def test_killed_at_every_request_the_store_is_old_or_new(
    s3: S3, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before any one of the requests of a commit, and run again elsewhere: the id of an undisturbed run."""
    undisturbed = dataset_of(tmp_path / "disk", ROWS).manifest.id
    told = Bucket._told  # pyright: ignore[reportPrivateUsage] # what every request goes through
    left = n = 0

    def count(self: Bucket) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return told(self)

    finished = 0
    for n in range(60):
        s3.blobs.clear()
        left = n
        monkeypatch.setattr(Bucket, "_told", count)
        try:
            dataset_of(machine(f"killed{n}"), ROWS)
            finished += 1
        except Killed:
            pass
        monkeypatch.setattr(Bucket, "_told", told)
        root = machine(f"after{n}")
        if versions(s3):
            assert open_dataset("d", root).manifest.id == undisturbed
            assert verify(open_dataset("d", root), deep=True) == []
        see_anew(root)
        assert dataset_of(root, ROWS).manifest.id == undisturbed
        assert versions(s3) == ["000001.json"]
        if finished:
            break
    assert finished, "the last round is one that was not disturbed"
    assert n > 10


def test_gc_removes_what_is_old_and_unnamed_in_the_storage(s3: S3, machine: Machine, tmp_path: Path) -> None:
    made = dataset_of(machine("one"), ROWS)
    store = Store(made.root)
    losses = tmp_path / "losses.arrow"
    losses.write_bytes(b"losses")
    store.register_run("r", {"dataset": "d"}, losses)
    stray = object_key("ab" * 32)
    s3.blobs[f"team/p/{stray}"] = Blob(b"left by a commit that was killed")
    s3.blobs["team/p/objects/readme.txt"] = Blob(b"somebody else's")
    before = s3.keys("team/p/objects/")
    assert store.garbage().keys == (), "it is young"
    s3.age(2 * DAY)
    found = store.garbage()
    assert (found.keys, found.bytes) == ((stray,), 32)
    assert store.remove(found).keys == (stray,)
    assert sorted(set(before) - set(s3.keys("team/p/objects/"))) == [f"team/p/{stray}"]
    assert verify(open_dataset("d", machine("two")), deep=True) == []
    assert store.garbage().keys == ()


def test_a_gc_between_upload_and_manifest_takes_nothing_away(
    s3: S3, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole gc runs there, with no grace period: the commit sees it, and uploads again what it took."""
    one, two = machine("one"), machine("two")
    put_if = Bucket.put_if
    taken: list[str] = []

    def with_gc(self: Bucket, key: str, content: bytes, before: Any) -> bool:
        if key.endswith("000001.json") and not taken:
            s3.age(DAY)
            other = Store(two)
            taken.extend(other.remove(other.garbage(60)).keys)
        return put_if(self, key, content, before)

    monkeypatch.setattr(Bucket, "put_if", with_gc)
    made = dataset_of(one, ROWS)
    assert len(taken) == len({f.sha256 for f in made.manifest.files})
    assert verify(open_dataset("d", machine("three")), deep=True) == []


def test_a_commit_between_a_gcs_look_and_its_deletion_loses_nothing(
    s3: S3, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gc has looked at all manifests and is about to delete; the commit waits for it, and uploads again."""
    one, two = machine("one"), machine("two")
    made: list[Dataset] = []
    for file in dataset_of(machine("scratch"), ROWS).manifest.files:
        assert f"team/p/{file.path}" in s3.blobs
    for key in s3.keys("team/p/datasets/"):
        del s3.blobs[key]
    s3.age(2 * DAY)  # objects of a commit that was killed, old enough for gc
    delete = Bucket.delete
    committing = threading.Thread(target=lambda: made.append(dataset_of(one, ROWS)))

    def slowly(self: Bucket, keys: Any) -> None:
        keys = list(keys)
        if any("objects/" in key for key in keys) and not committing.is_alive() and not made:
            committing.start()
            while not versions(s3):
                threading.Event().wait(0.01)
        delete(self, keys)

    monkeypatch.setattr(Bucket, "delete", slowly)
    other = Store(two)
    removed = other.remove(other.garbage())
    committing.join()
    assert removed.keys, "they were deleted"
    assert verify(open_dataset("d", machine("three")), deep=True) == []
    assert len(made) == 1


def test_a_gc_that_was_killed_holds_nobody_up_for_long(
    s3: S3, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for as long as a living one may be silent, with a word to the person; then things go on."""
    monkeypatch.setattr(upload, "LEASE_S", 0.2)
    s3.blobs["team/p/gc.json"] = Blob(b'{"gc": "dead", "state": "at work", "sign": "1"}')
    root = machine("one")
    said: list[str] = []
    remote = remote_of(root)
    assert remote is not None
    remote.said = said.append
    dataset_of(root, ROWS)
    assert any("waiting for a gc" in line for line in said)
    said.clear()
    dataset_of(root, {"t": [question("e", "f")]})
    assert said == [], "the dead one was cleared away"
    s3.blobs["team/p/gc.json"] = Blob(b'{"gc": "dead", "state": "at work", "sign": "1"}')
    s3.blobs[f"team/p/{object_key('ab' * 32)}"] = Blob(b"stray", 0.0)
    store = Store(root)
    assert store.remove(store.garbage()).keys == (object_key("ab" * 32),)


def test_many_who_wait_for_the_same_dead_gc_all_go_on(
    s3: S3, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them clears it away; to have come second there is no failure of one's own work."""
    monkeypatch.setattr(upload, "LEASE_S", 0.2)
    roots = [machine(f"m{n}") for n in range(6)]
    for root in roots:
        upload._check_conditions(found(root))  # pyright: ignore[reportPrivateUsage] # so that all wait at once
    s3.blobs["team/p/gc.json"] = Blob(b'{"gc": "dead", "state": "at work", "sign": "1"}')
    s3.faults.slow_s = 0.02
    start = threading.Barrier(len(roots))

    def register(root: Path) -> None:
        start.wait()
        Store(root).register_run(root.parent.parent.name, {"dataset": "d"})

    with ThreadPoolExecutor(len(roots)) as pool:
        list(pool.map(register, roots))
    assert len(s3.keys("team/p/runs/")) == len(roots)


def test_a_gc_whose_clock_is_ahead_leaves_what_is_young(
    s3: S3, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(machine("one"))
    young, old = (f"team/p/{object_key(name * 32)}" for name in ("ab", "cd"))
    s3.blobs[young], s3.blobs[old] = Blob(b"young"), Blob(b"old", 0.0)
    ahead = SimpleNamespace(**{**vars(time), "time": lambda: time.time() + 3 * DAY})
    monkeypatch.setattr(garbage, "time", ahead)  # the bucket keeps its own
    monkeypatch.setattr(upload, "time", ahead)
    store.remove(store.garbage())
    assert young in s3.blobs
    assert old not in s3.blobs


@pytest.mark.parametrize(
    ("key", "body"),
    [
        ("runs/r.json", b"[" * 100_000),
        ("runs/r.json", b"[]"),
        ("runs/r.json", b'{"run_id": "r", "objects": []}'),
        ("runs/r.json", b'{"run_id": "r", "objects": {"a": "../../../../etc/passwd"}}'),
        ("runs/r.json", b'{"run_id": "r", "records": 5}'),
        ("datasets/d/tags.json", b"[" * 100_000),
        ("datasets/d/tags.json", b'{"gold": "one"}'),
        ("datasets/d/tags.json", b'{"../x": 1}'),
    ],
)
def test_a_file_that_somebody_else_changed_is_neither_followed_nor_written_over(
    s3: S3, machine: Machine, key: str, body: bytes
) -> None:
    store = Store(machine("one"))
    dataset_of(store.root, ROWS)
    s3.blobs[f"team/p/{key}"] = Blob(body)
    with pytest.raises(StoreError, match=f"{key} in s3://b/team/p"):
        store.tag("d", "new", 1) if "tags" in key else store.add_to_run("r", {}, {})
    assert s3.blobs[f"team/p/{key}"].body == body


def test_a_run_that_changes_within_a_second_is_seen(s3: S3, machine: Machine) -> None:
    """Storages tell whole seconds, and the new one may have the size of the old one."""
    root = machine("one")
    for state in ("a", "b"):
        s3.blobs["team/p/runs/r.json"] = Blob(b'{"run_id": "r", "state": "%s"}' % state.encode(), 1000.0)
        assert [run["state"] for run in read_runs(root)] == [state]


def test_what_was_removed_in_the_bucket_is_gone_here(s3: S3, machine: Machine) -> None:
    root = machine("one")
    dataset_of(root, ROWS)
    dataset_of(root, {"t": [question("e", "f")]})
    s3.blobs["team/p/runs/r.json"] = Blob(b"broken")
    with pytest.raises(StoreError):
        read_runs(root)
    del s3.blobs["team/p/runs/r.json"]
    del s3.blobs["team/p/datasets/d/versions/000002.json"]
    see_anew(root)
    assert read_runs(root) == []
    assert [found.problems for found in verify_store(root)] == [(), (), ()]


def test_gc_takes_only_what_is_named_as_an_object(s3: S3, machine: Machine) -> None:
    store = Store(machine("one"))
    dataset_of(store.root, ROWS)
    note = "team/p/objects/RE/README.arrow"
    s3.blobs[note] = Blob(b"somebody's", 0.0)
    assert store.garbage().keys == ()
    s3.blobs["team/p/datasets/a..b/versions/000001.json"] = Blob(b"somebody's")
    s3.blobs["team/p/datasets/x.json/versions/000001.json"] = Blob(b"somebody's")
    store.remove(store.garbage())
    assert note in s3.blobs


def test_a_gc_that_was_too_slow_deletes_nothing_more(s3: S3, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody took it for dead and went on: when it wakes up it finds another's sign, and stops."""
    root = machine("one")
    dataset_of(root, ROWS)
    stray = f"team/p/{object_key('ab' * 32)}"
    s3.blobs[stray] = Blob(b"stray", 0.0)
    unnamed = upload.unnamed

    def overtaken(*args: Any) -> Any:
        if "team/p/gc.json" in s3.blobs:
            s3.blobs["team/p/gc.json"] = Blob(b'{"gc": "another", "state": "at work", "sign": "2"}')
        return unnamed(*args)

    store = Store(root)
    found = store.garbage()
    monkeypatch.setattr(upload, "unnamed", overtaken)
    with pytest.raises(ConflictError, match="another gc is at work"):
        store.remove(found)
    assert stray in s3.blobs


def test_a_copy_that_went_bad_here_is_fetched_again(machine: Machine) -> None:
    made = dataset_of(machine("one"), ROWS)
    seen = open_dataset("d", machine("two"))
    assert verify(seen) == []
    path = seen.root / made.manifest.files[0].path
    path.chmod(0o644)
    path.write_bytes(b"rotten")
    assert verify(open_dataset("d", seen.root)) == []
    assert path.read_bytes() == (made.root / made.manifest.files[0].path).read_bytes()


def test_verify_tells_what_the_storage_has_lost_or_spoilt(s3: S3, machine: Machine) -> None:
    """Lost: also where this machine has its copy. Spoilt, with the same size: found by --deep, which reads there."""
    made = dataset_of(machine("one"), ROWS)
    file = made.manifest.files[0]
    blob = s3.blobs.pop(f"team/p/{file.path}")
    [problem] = verify(made)
    assert f"object {file.path} in {URL}: missing" in problem
    s3.blobs[f"team/p/{file.path}"] = Blob(bytes(len(blob.body)))
    assert verify(made) == []
    [problem] = verify(made, deep=True)
    assert "its bytes have the sha256" in problem
    s3.blobs[f"team/p/{file.path}"] = blob
    assert verify(made, deep=True) == []


def test_a_storage_that_ignores_conditions_is_not_written_to(s3: S3, machine: Machine) -> None:
    """It would lose versions without a word. Reading works."""
    root = machine("one")
    dataset_of(root, ROWS)
    s3.faults.ignore_conditions = True
    before = s3.keys()
    with pytest.raises(StoreError, match=r"it overwrites where it is asked not to; expected object storage with cond"):
        dataset_of(machine("two"), {"t": [question("e", "f")]})
    assert s3.keys() == before
    assert open_dataset("d", machine("two")).manifest.seq == 1


@pytest.mark.parametrize("part", ["objects/", "versions/", "tmp/probe"])
def test_a_refused_upload_leaves_the_store_as_it_was(s3: S3, machine: Machine, part: str) -> None:
    s3.faults.status["PUT", part] = [-1]
    root = machine("one")
    with pytest.raises(StoreError, match=r"store s3://b/team/p: access denied"):
        dataset_of(root, ROWS)
    assert versions(s3) == []
    assert versions_of(root, "d") == []
    s3.faults.status.clear()
    see_anew(root)
    assert dataset_of(root, ROWS).manifest.seq == 1


def test_a_version_that_was_replaced_in_the_bucket_is_seen(s3: S3, machine: Machine) -> None:
    """Somebody emptied the bucket and began anew: the mirror's old copy does not stand for the new version."""
    old = dataset_of(machine("one"), ROWS)
    s3.blobs.clear()
    new = dataset_of(machine("two"), {"t": [question("e", "f")]})
    s3.age(-5, "team/p/datasets/")
    see_anew(old.root)
    assert open_dataset("d", old.root).manifest == new.manifest
