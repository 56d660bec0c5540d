"""The store: objects named by their bytes, commits that happen whole or not at all, tags, gc."""

import errno
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curate.store import Store
from curate.version import Draft, commit_version
from schemas.dataset import Dataset, open_dataset
from schemas.errors import ConfigError, ConflictError, StoreError, UnknownReferenceError
from schemas.manifest import Source
from schemas.objects import Checked
from schemas.reference import read_manifest, read_tags, versions_of
from tests.rows import dataset_of, put_source, question

FRAME = pl.DataFrame({"a": [1, 2, 3], "b": ["x", None, "z"]})


def test_the_same_frame_is_the_same_object(tmp_path: Path) -> None:
    one = Store(tmp_path / "one").put(FRAME, role="text", stage="ingest")
    chunked = pl.concat([FRAME[:1], FRAME[1:]], rechunk=False)
    two = Store(tmp_path / "two").put(chunked, role="text", stage="ingest")
    assert one == two
    assert (tmp_path / "one" / one.path).read_bytes() == (tmp_path / "two" / two.path).read_bytes()


def test_an_object_whose_bytes_went_wrong_is_written_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    entry = store.put(FRAME, role="text", stage="ingest")
    path = tmp_path / entry.path
    path.chmod(0o644)
    path.write_bytes(b"garbage")
    store.put(FRAME, role="text", stage="ingest")
    assert pl.read_ipc(path).equals(FRAME)


def test_nothing_temporary_stays(tmp_path: Path) -> None:
    dataset_of(tmp_path, {"s": [question("a b c", "d e f")]})
    assert list((tmp_path / "tmp").iterdir()) == []


def test_two_writers_of_the_same_number_conflict_and_the_first_stays(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, {"s": [question("a", "b")]})
    with pytest.raises(ConflictError, match=r"d.*version 1 was committed by another process.*[Rr]un the command again"):
        Store(tmp_path).commit(dataset.manifest.model_copy(update={"message": "late"}))
    assert read_manifest(tmp_path / "datasets/d/versions/000001.json").message == "test"


def test_an_unchanged_draft_commits_nothing(tmp_path: Path) -> None:
    first = dataset_of(tmp_path, {"s": [question("a", "b")]})
    second = dataset_of(tmp_path, {"s": [question("a", "b")]})
    assert second.manifest == first.manifest
    assert versions_of(tmp_path, "d") == [1]


def test_a_message_that_is_no_utf8_does_not_lose_the_version(tmp_path: Path) -> None:
    first = dataset_of(tmp_path, {"s": [question("a", "b")]})
    draft = Draft.of(first.manifest)
    source = first.manifest.sources[0].model_copy(update={"terms": "other"})
    done = commit_version(Store(tmp_path), replace(draft, sources=(source,)), first.manifest, "caf\udce9")
    assert read_manifest(tmp_path / "datasets/d/versions/000002.json").message == done.manifest.message == "caf?"


@pytest.mark.parametrize("name", ["a/b", "..", "", ".hidden", "y.json", "a..b", "x" * 101, "naïve", "a b", "-a"])
def test_names_that_are_no_folder_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        commit_version(Store(tmp_path), Draft(name), None, "x")
    assert not (tmp_path / "datasets").exists()


def test_tags_move_and_resolve(tmp_path: Path) -> None:
    dataset_of(tmp_path, {"s": [question("a", "b")]})
    dataset_of(tmp_path, {"t": [question("c", "d")]})
    store = Store(tmp_path)
    store.tag("d", "golden", 1)
    assert open_dataset("d@golden", tmp_path).manifest.seq == 1
    store.tag("d", "golden", 2)
    assert open_dataset("d@golden", tmp_path).manifest.seq == 2
    assert read_tags(tmp_path, "d") == {"golden": 2}
    with pytest.raises(ConfigError, match="a number, which names a version"):
        store.tag("d", "7", 1)


@pytest.mark.parametrize("reference", ["nope", "d@9", "d@²", "d@nope", "nowhere/x.json", "d@"])
def test_an_unknown_reference_says_what_is_there(tmp_path: Path, reference: str) -> None:
    dataset_of(tmp_path, {"s": [question("a", "b")]})
    with pytest.raises(UnknownReferenceError) as caught:
        open_dataset(reference, tmp_path)
    assert "expected" in str(caught.value)


def test_gc_removes_only_what_nothing_names_and_is_old(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, {"s": [question("a", "b")]})
    store = Store(tmp_path)
    stray = tmp_path / store.put(FRAME, role="text", stage="ingest").path
    assert store.garbage().paths == ()
    old = time.time() - 90_000
    for file in [stray, *(tmp_path / f.path for f in dataset.manifest.files)]:
        os.utime(file, (old, old))
    garbage = store.garbage()
    assert garbage.paths == (stray,)
    store.remove(garbage)
    assert not stray.exists()
    assert open_dataset("d", tmp_path).counts() == dataset.manifest.counts


def test_an_object_that_is_written_again_is_young_again(tmp_path: Path) -> None:
    """A commit that is under way may use an old unnamed object: gc must see that it is in use."""
    store = Store(tmp_path)
    path = tmp_path / store.put(FRAME, role="text", stage="ingest").path
    old = time.time() - 90_000
    os.utime(path, (old, old))
    garbage = store.garbage()
    assert garbage.paths == (path,)
    store.put(FRAME, role="text", stage="ingest")
    assert store.garbage().paths == ()
    store.remove(garbage)
    assert path.exists()


def _failing(function: Callable[..., Any], calls: list[int], at: int, code: int) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == at:
            raise OSError(code, os.strerror(code))
        return function(*args, **kwargs)

    return fail


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_fails_at_any_call_leaves_the_old_version_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Every fsync, link, rename and mkdir of a commit fails in turn; the same commit again then succeeds."""
    dataset_of(tmp_path, {"s": [question("a", "b")]})
    failures, told = 0, list[str]()
    for at in range(1, 100):
        calls = [0]
        with monkeypatch.context() as patch:
            for owner, name in ((os, "fsync"), (os, "link"), (Path, "replace"), (Path, "mkdir")):
                patch.setattr(owner, name, _failing(getattr(owner, name), calls, at, code))
            try:
                dataset_of(tmp_path, {"t": [question("c", f"d {at} {code}")]})
            except StoreError as error:
                failures += 1
                told.append(str(error))
        latest = open_dataset("d", tmp_path)
        assert latest.counts() == latest.manifest.counts
        assert list((tmp_path / "tmp").iterdir()) == []
        if calls[0] < at:
            break
    else:
        pytest.fail("a commit makes more than 100 calls")
    assert failures >= 8
    assert all(str(tmp_path) in line for line in told)
    seen = versions_of(tmp_path, "d")
    assert seen == list(range(1, len(seen) + 1))


@pytest.mark.parametrize("text", ['{"a"', "{}", "[]", '{"files": 3}', '{"files": [{}]}'])
def test_a_remembered_result_that_cannot_be_read_is_forgotten(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path)
    store.remember("k", [], {"a": 1})
    assert store.recall("k") == ((), {"a": 1})
    (tmp_path / "cache" / "k.json").write_text(text)
    assert store.recall("k") is None


def test_a_run_is_registered_with_its_records(tmp_path: Path) -> None:
    dataset_of(tmp_path, {"s": [question("a", "b")]})
    FRAME.write_ipc(tmp_path / "records.arrow")
    store = Store(tmp_path)
    store.register_run("r1", {"dataset": "d"}, tmp_path / "records.arrow")
    [run] = store.runs()
    assert run["run_id"] == "r1"
    assert pl.read_ipc(tmp_path / "objects" / run["records"][:2] / f"{run['records']}.arrow").equals(FRAME)


def test_a_source_put_twice_in_a_draft_stands_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    files = put_source(store, [question("a", "b")], "s")
    draft = Draft("d").with_source(Source(name="s", format="x"), files).with_source(Source(name="s", format="x"), files)
    assert len(draft.files) == 2
    assert Dataset(draft.manifest(), tmp_path).rows == 1


def test_a_commit_that_came_while_another_worked_is_never_left_out(tmp_path: Path) -> None:
    """Two writers begin from the same version: the second is told, and its rows are not put over the first one's."""
    store = Store(tmp_path)
    start = dataset_of(tmp_path, {"s": [question("a", "b")]}).manifest
    mine = Draft.of(start).with_source(Source(name="mine", format="x"), put_source(store, [question("c", "d")], "mine"))
    dataset_of(tmp_path, {"theirs": [question("e", "f")]})
    with pytest.raises(ConflictError, match="Run the command again"):
        commit_version(store, mine, start, "mine")
    assert {s.name for s in open_dataset("d", tmp_path).manifest.sources} == {"s", "theirs"}


def test_a_version_made_from_an_old_one_is_numbered_after_the_latest(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = dataset_of(tmp_path, {"s": [question("a", "b")]}).manifest
    latest = dataset_of(tmp_path, {"t": [question("c", "d")]}).manifest
    draft = Draft.of(first).with_source(Source(name="u", format="x"), put_source(store, [question("e", "f")], "u"))
    made = commit_version(store, draft, first, "old", latest=latest).manifest
    assert (made.seq, made.parents, made.semver) == (3, (first.id,), "2.0.0")


def test_what_is_recalled_is_young_again_and_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)
    file = store.put(FRAME, role="text", stage="ingest")
    store.remember("k", [file], {"a": 1})
    old = time.time() - 90_000
    for path in (tmp_path / file.path, tmp_path / "cache/k.json"):
        os.utime(path, (old, old))
    assert store.recall("k") == ((file,), {"a": 1})
    assert store.garbage().paths == ()
    (tmp_path / file.path).chmod(0o644)
    (tmp_path / file.path).write_bytes(b"other")
    assert store.recall("k") is None


def test_a_torn_or_foreign_line_in_the_log_of_checks_holds_for_nothing_and_hides_nothing(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, {"s": [question("a", "b")]})
    file = dataset.manifest.files[0]
    log = tmp_path / "checked.log"
    whole = log.read_text()
    [line] = [line for line in whole.splitlines() if line.startswith(file.sha256)]
    path = tmp_path / file.path
    for torn in (line[:-3], line[3:], f"{line}\x00", line[:70] + line):
        log.write_text(torn)
        assert (file.sha256, path) not in Checked(tmp_path)
    log.write_bytes(b"\xff\xfe\x00" + line[:40].encode() + b"\n" + whole.encode())
    assert (file.sha256, path) in Checked(tmp_path)


def test_an_object_of_somebody_else_that_cannot_be_touched_is_put_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several people may share a store: only its owner may make a file young."""
    store = Store(tmp_path)
    path = tmp_path / store.put(FRAME, role="text", stage="ingest").path
    before = path.stat().st_ino
    with monkeypatch.context() as patch:
        patch.setattr(os, "utime", _failing(os.utime, [0], 1, errno.EPERM))
        store.put(FRAME, role="text", stage="ingest")
    assert path.stat().st_ino != before
    assert pl.read_ipc(path).equals(FRAME)
