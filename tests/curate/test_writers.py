"""Several processes write to one store: every commit is there once, and nothing that is in use is taken away."""

from collections import Counter
from collections.abc import Callable, Generator
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curate.pipeline import apply_stage
from curate.sources import Existing, add_source
from curate.stage import StageResult, no_progress
from curate.store import Store
from curate.verify import verify_store
from curate.version import FREELY, Draft, commit_version, commit_work
from schemas.config import IngestConfig
from schemas.dataset import Dataset, open_dataset
from schemas.errors import ConfigError, ConflictError, StoreError
from schemas.manifest import FileEntry, Manifest, Source, StageEntry
from schemas.reference import manifest_path, read_manifest, read_tags, versions_of
from tests.curate.crashing import Job, Jobs
from tests.rows import dataset_of, put_source, question, staged


@pytest.fixture(scope="module")
def jobs() -> Generator[Jobs]:
    with Jobs() as running:
        yield running


def manifests(root: Path, name: str = "d") -> list[Manifest]:
    return [read_manifest(manifest_path(f"{name}@{seq}", root)) for seq in versions_of(root, name)]


def test_every_commit_of_many_writers_is_there_once(jobs: Jobs, tmp_path: Path) -> None:
    """6 processes commit 6 times each; in bench/crash.py there are 16, and 50 times."""
    root = tmp_path / "store"
    dataset_of(root, {"first": [question("a", "b")]})
    done = jobs.run(*(Job(str(root), "write", ("d", n, 6)) for n in range(6)))
    assert [one.error for one in done] == [None] * 6
    made = manifests(root)
    assert [m.seq for m in made] == list(range(1, 38))
    told = Counter(identity for one in done for identity in one.value)
    assert told == Counter(m.id for m in made[1:])
    assert max(told.values()) == 1
    assert all(after.parents == (before.id,) for before, after in pairwise(made))
    assert open_dataset("d", root).rows == 1 + 6 * 6 * 3
    assert [problem for one in verify_store(root) for problem in one.problems] == []


def test_a_writer_that_is_killed_holds_nobody_up(jobs: Jobs, tmp_path: Path) -> None:
    root = tmp_path / "store"
    dataset_of(root, {"first": [question("a", "b")]})
    writers = [Job(str(root), "write", ("d", n, 3), at=90 if n == 1 else None) for n in range(3)]
    done = jobs.run(*writers)
    assert [one.killed for one in done] == [False, True, False]
    assert open_dataset("d", root).manifest.source("w0") is not None
    assert open_dataset("d", root).manifest.source("w2") is not None
    assert [problem for one in verify_store(root, deep=True) for problem in one.problems] == []


def test_gc_takes_nothing_that_a_writer_takes_up(jobs: Jobs, tmp_path: Path) -> None:
    """One process takes up an old object again and again, two others remove what is old."""
    root = str(tmp_path / "store")
    Store(tmp_path / "store").put(pl.DataFrame({"a": [0]}), role="index", stage="dedup")
    taker, *sweepers = jobs.run(Job(root, "take up", (150,)), Job(root, "sweep", (150,)), Job(root, "sweep", (150,)))
    assert (taker.error, *(one.error for one in sweepers)) == (None, None, None)
    assert taker.value == 0
    assert sum(one.value for one in sweepers) > 0


def test_tags_of_many_writers_all_stay(jobs: Jobs, tmp_path: Path) -> None:
    root = tmp_path / "store"
    dataset_of(root, {"first": [question("a", "b")]})
    done = jobs.run(*(Job(str(root), "tag", ("d", f"t{n}", 1)) for n in range(8)))
    assert [one.error for one in done] == [None] * 8
    assert read_tags(root, "d") == {f"t{n}": 1 for n in range(8)}


def ingest(store: Store, file: Path, source: str, existing: Existing = "refuse") -> Manifest:
    config = IngestConfig(source=source)
    return add_source(
        store, "d", [str(file)], "auto", config, existing=existing, started=lambda _what, _rows: no_progress
    ).commit.manifest


class Overtaken(Store):
    """A store in which somebody else commits between a writer's reading of the latest version and its commit."""

    def __init__(self, root: Path, other: Callable[[], object]) -> None:
        super().__init__(root)
        self._other: Callable[[], object] | None = other

    def put(self, *args: Any, **kwargs: Any) -> FileEntry:
        other, self._other = self._other, None
        if other:
            other()
        return super().put(*args, **kwargs)


def lines(path: Path, *prompts: str) -> Path:
    path.write_text("".join(f'{{"instruction": "{p}", "output": "Answer to {p}"}}\n' for p in prompts))
    return path


def test_an_ingest_goes_on_from_what_was_committed_meanwhile(tmp_path: Path) -> None:
    root = tmp_path / "store"
    dataset_of(root, {"s": [question("a", "b")]})
    store = Overtaken(root, lambda: dataset_of(root, {"theirs": [question("c", "d")]}))
    made = ingest(store, lines(tmp_path / "mine.jsonl", "one", "two"), "mine")
    assert [s.name for s in made.sources] == ["mine", "s", "theirs"]
    assert (made.seq, made.parents) == (3, (open_dataset("d@2", root).manifest.id,))


@pytest.mark.parametrize("existing", ["refuse", "replace", "append"])
def test_the_same_source_twice_at_once_is_a_clear_error_and_the_first_stays(tmp_path: Path, existing: Existing) -> None:
    root = tmp_path / "store"
    start = {"s": [question("a", "b")]} if existing == "refuse" else {"mine": [question("a", "b")]}
    dataset_of(root, start)
    store = Overtaken(root, lambda: dataset_of(root, {"mine": [question("e", "f")]}))
    with pytest.raises(ConflictError, match=r"source mine of dataset 'd'.*another process.*look at d@2"):
        ingest(store, lines(tmp_path / "mine.jsonl", "one"), "mine", existing)
    assert versions_of(root, "d") == [1, 2]


def test_the_same_rows_appended_twice_at_once_are_not_appended_as_one(tmp_path: Path) -> None:
    root, file = tmp_path / "store", lines(tmp_path / "more.jsonl", "one")
    ingest(Store(root), lines(tmp_path / "first.jsonl", "zero"), "mine")
    store = Overtaken(root, lambda: ingest(Store(root), file, "mine", "append"))
    with pytest.raises(ConflictError, match="another process appended to it meanwhile"):
        ingest(store, file, "mine", "append")
    assert open_dataset("d", root).rows == 2


def test_the_same_source_with_the_same_rows_twice_at_once_is_one_version(tmp_path: Path) -> None:
    root, file = tmp_path / "store", lines(tmp_path / "mine.jsonl", "one")
    dataset_of(root, {"s": [question("a", "b")]})
    store = Overtaken(root, lambda: ingest(Store(root), file, "mine"))
    assert ingest(store, file, "mine").seq == 2


def test_a_stage_runs_again_over_what_was_committed_meanwhile(tmp_path: Path) -> None:
    root = tmp_path / "store"
    dataset = dataset_of(root, {"s": [question("Who?", "Me.  \r\n")]})
    store = Overtaken(root, lambda: dataset_of(root, {"theirs": [question("What?", "That.  \r\n")]}))
    _, commit = apply_stage(store, dataset, "normalize", {})
    assert commit.manifest.seq == 3
    assert commit.manifest.counts[-1].edited == 2
    assert Dataset(commit.manifest, root).stale() == []


def test_the_same_stage_with_other_settings_at_once_is_a_clear_error(tmp_path: Path) -> None:
    root = tmp_path / "store"
    dataset = dataset_of(root, {"s": [question("a b c", "d e f")]})
    store = Overtaken(root, lambda: staged(dataset, "normalize", nfc=False))
    with pytest.raises(ConflictError, match=r"stage normalize of dataset 'd'.*look at d@2"):
        apply_stage(store, dataset, "normalize", {})
    assert versions_of(root, "d") == [1, 2]


def test_work_on_an_old_version_on_purpose_is_not_put_on_another(tmp_path: Path) -> None:
    root = tmp_path / "store"
    first = dataset_of(root, {"s": [question("a", "b")]})
    latest = dataset_of(root, {"t": [question("c", "d")]}).manifest
    store = Overtaken(root, lambda: dataset_of(root, {"u": [question("e", "f")]}))
    with pytest.raises(ConflictError, match="version 3 was committed by another process"):
        apply_stage(store, first, "normalize", {}, latest=latest)


def test_work_that_is_overtaken_again_and_again_is_done_in_its_turn(tmp_path: Path) -> None:
    """Somebody commits each time the work is done; at last they have to wait, and it comes through."""
    root, store = tmp_path / "store", Store(tmp_path / "store")
    begun = dataset_of(root, {"s": [question("a", "b")]}).manifest
    files = put_source(store, [question("mine", "x")], "mine")
    tries: list[bool] = []

    def work(version: Manifest | None) -> tuple[Draft, str, None]:
        assert version is not None
        waits = bool(store._turns)
        tries.append(waits)
        if not waits:
            dataset_of(root, {f"t{len(tries)}": [question(f"c {len(tries)}", "d")]})
        return Draft.of(version).with_source(Source(name="mine", format="x"), files), "mine", None

    _, commit = commit_work(store, begun, work, lambda _made: {"source mine"})
    assert tries == [False] * (FREELY + 1) + [True]
    assert commit.manifest.seq == FREELY + 3


def test_a_commit_whose_objects_are_gone_does_not_happen(tmp_path: Path) -> None:
    """gc may have taken an object that was made more than a grace period ago and never named."""
    root, store = tmp_path / "store", Store(tmp_path / "store")
    parent = dataset_of(root, {"s": [question("a", "b")]}).manifest
    draft = Draft.of(parent).with_source(Source(name="t", format="x"), put_source(store, [question("c", "d")], "t"))
    manifest = draft.manifest(seq=2).model_copy(update={"semver": "1.1.0"})
    (root / draft.files[-1].path).unlink()
    with pytest.raises(StoreError, match=r"gone.*the new version names.*[Rr]un the command again"):
        store.commit(manifest)
    assert versions_of(root, "d") == [1]


def test_the_second_ingest_of_a_source_that_is_there_is_refused_as_before(tmp_path: Path) -> None:
    root, file = tmp_path / "store", lines(tmp_path / "mine.jsonl", "one")
    ingest(Store(root), file, "mine")
    with pytest.raises(ConfigError, match="it is there already"):
        ingest(Store(root), file, "mine")


def test_commit_version_alone_still_tells_of_another_commit(tmp_path: Path) -> None:
    root, store = tmp_path / "store", Store(tmp_path / "store")
    start = dataset_of(root, {"s": [question("a", "b")]}).manifest
    mine = Draft.of(start).with_source(Source(name="m", format="x"), put_source(store, [question("c", "d")], "m"))
    dataset_of(root, {"t": [question("e", "f")]})
    with pytest.raises(ConflictError, match="committed by another process"):
        commit_version(store, mine, start, "mine")


def test_two_pulls_of_reviews_at_once_are_a_clash_and_one_over_another_stage_is_none(tmp_path: Path) -> None:
    """What people said lies in an index: put over another one, the responses in that would be lost."""
    root, store = tmp_path / "store", Store(tmp_path / "store")
    begun = dataset_of(root, {"s": [question("a", "b")]}).manifest
    entry = StageEntry(name="review", version=1, config={}, reads="0" * 64)

    def pulled(said: int) -> Callable[[Manifest | None], tuple[Draft, str, None]]:
        index = store.put(pl.DataFrame({"said": [said]}), role="index", stage="review")

        def work(version: Manifest | None) -> tuple[Draft, str, None]:
            assert version is not None
            return Draft.of(version).with_stage(StageResult(entry, (index,))), "pull", None

        return work

    def writes(_made: None) -> set[str]:
        return {"stage review"}

    _, first = commit_work(store, begun, pulled(1), writes)
    dataset_of(root, {"t": [question("c", "d")]})
    with pytest.raises(ConflictError, match=r"stage review of dataset 'd'.*look at d@3"):
        commit_work(store, begun, pulled(2), writes)
    _, second = commit_work(store, first.manifest, pulled(2), writes)
    assert second.manifest.seq == 4
    assert second.manifest.source("t") is not None
