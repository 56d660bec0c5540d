"""gc: what is named stays, what is in use stays, and where that is not known nothing goes."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from curate.store import Store
from schemas.dataset import open_dataset
from schemas.errors import StoreError
from schemas.manifest import FileEntry
from tests.rows import dataset_of, question

OLD = 1_000_000_000
FRAME = pl.DataFrame({"a": [1, 2, 3]})


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for sub in ("objects", "cache", "tmp") for path in (root / sub).rglob("*.*")}


def put(store: Store, *numbers: int) -> list[FileEntry]:
    return [store.put(pl.DataFrame({"n": [n]}), role="index", stage="dedup") for n in numbers]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A version, a run with two objects, a remembered result, a stray object; all of it old but the result."""
    store = Store(tmp_path / "store")
    dataset_of(store.root, {"s": [question("a", "b")]})
    FRAME.write_ipc(tmp_path / "records.arrow")
    store.register_run("r", {}, tmp_path / "records.arrow")
    [answers, kept, _stray] = put(store, 1, 2, 3)
    store.add_to_run("r", {}, {"answers": answers.sha256})
    store.remember("key", [kept], {})
    for path in store.root.rglob("*.arrow"):
        os.utime(path, (OLD, OLD))
    return store


def test_what_a_version_a_run_or_a_remembered_result_names_stays(store: Store) -> None:
    before = files(store.root)
    stray = f"objects/{put(Store(store.root.parent / 'x'), 3)[0].path.removeprefix('objects/')}"
    garbage = store.garbage()
    assert [str(path.relative_to(store.root)) for path in garbage.paths] == [stray]
    assert files(store.root) == before  # to look is not to remove
    assert store.remove(garbage) == garbage
    assert files(store.root) == before - {stray}


def test_an_old_result_goes_with_its_objects(store: Store) -> None:
    os.utime(store.root / "cache/key.json", (OLD, OLD))
    removed = store.remove(store.garbage())
    assert {path.parent.parent.name if path.suffix == ".arrow" else path.name for path in removed.paths} == {
        "objects",
        "key.json",
    }
    assert len(removed.paths) == 3
    assert open_dataset("d", store.root).rows == 1


def broken(store: Store) -> Path:
    path = store.root / "datasets/d/versions/000002.json"
    path.write_bytes((store.root / "datasets/d/versions/000001.json").read_bytes()[:500])
    return path


@pytest.mark.parametrize(
    "spoil",
    [
        broken,
        lambda store: (store.root / "datasets/d/versions/000002.json").mkdir(),
        lambda store: (store.root / "datasets/d/versions/000002.json").symlink_to("000001.json"),
        lambda store: os.mkfifo(store.root / "datasets/d/versions/000002.json"),
        lambda store: (store.root / "runs/r.json").write_text("{"),
        lambda store: (store.root / "datasets/d/versions/000001.json").write_text(
            (store.root / "datasets/d/versions/000001.json").read_text().replace('"features": []', '"features": ["x"]')
        ),
    ],
    ids=["cut off", "a folder", "a link", "a pipe", "a run", "a later release"],
)
def test_where_a_version_or_run_cannot_be_read_nothing_is_garbage(
    store: Store, spoil: Callable[[Store], object]
) -> None:
    """Its objects would be taken for nobody's. Also where it goes bad after the garbage was found."""
    garbage, before = store.garbage(), files(store.root)
    spoil(store)
    with pytest.raises(StoreError):
        Store(store.root).garbage(0)
    with pytest.raises(StoreError):
        Store(store.root).remove(garbage)
    assert files(store.root) == before


def test_garbage_that_a_commit_has_named_since_stays(store: Store) -> None:
    """Even if it is as old as before: the names are read again while nobody can commit."""
    garbage = store.garbage()
    [path] = garbage.paths
    store.add_to_run("r", {}, {"late": path.stem})
    os.utime(path, (OLD, OLD))
    assert store.remove(garbage).paths == ()
    assert path.exists()


def test_gc_waits_for_who_is_taking_up_an_object_and_they_for_gc(store: Store) -> None:
    garbage = store.garbage()
    order: list[str] = []

    def remove() -> None:
        Store(store.root).remove(garbage)
        order.append("removed")

    with store._locked("gc.lock", shared=True), store._locked("gc.lock", shared=True):
        waiting = threading.Thread(target=remove)
        waiting.start()
        time.sleep(0.2)
        order.append("taken up")
    waiting.join(30)
    assert order == ["taken up", "removed"]


def test_files_that_vanish_while_gc_looks_are_no_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    garbage = store.garbage(0)
    for path in garbage.paths:
        path.unlink()
    assert store.remove(garbage).paths == ()
    gone = store.root / "tmp/gone.arrow"
    names = [*(path.name for path in (store.root / "tmp").iterdir()), gone.name]
    monkeypatch.setattr("curate.garbage.listed", lambda folder: names if folder.name == "tmp" else [])
    assert gone not in store.garbage(0).paths
