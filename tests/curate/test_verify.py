"""Verify recomputes what a manifest claims, and finds what does not hold."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curate.store import Store
from curate.verify import verify, verify_store
from curate.version import Draft
from schemas.dataset import Dataset, open_dataset
from schemas.errors import StoreError
from schemas.manifest import manifest_id
from schemas.objects import file_sha256
from schemas.record import VERDICT_SCHEMA
from schemas.reference import manifest_path
from tests.rows import dataset_of, question, staged

ROWS = [question(f"question {i}", f"answer {i}") for i in range(20)]


def flip(path: Path, at: float) -> None:
    """Flip one bit at a share of the file's length."""
    data = bytearray(path.read_bytes())
    data[int((len(data) - 1) * at)] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def test_a_committed_version_is_whole(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, {"s": ROWS, "t": ROWS}, shard_rows=7)
    assert verify(dataset) == []
    assert verify(dataset, deep=True) == []


@pytest.mark.parametrize("at", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("deep", [False, True])
def test_one_flipped_bit_anywhere_is_found(tmp_path: Path, at: float, deep: bool) -> None:
    dataset = dataset_of(tmp_path, {"s": ROWS})
    assert verify(dataset) == []
    for file in dataset.manifest.files:
        flip(tmp_path / file.path, at)
        [problem] = verify(open_dataset("d", tmp_path), deep=deep)
        assert file.path in problem
        flip(tmp_path / file.path, at)
    assert verify(open_dataset("d", tmp_path), deep=deep) == []


def test_a_flip_that_hides_its_time_is_found_all_the_same(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, {"s": ROWS})
    path = tmp_path / dataset.manifest.files[0].path
    stat = path.stat()
    flip(path, 0.5)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert len(verify(dataset)) == 1


def test_a_missing_object_is_found(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, {"s": ROWS})
    (tmp_path / dataset.manifest.files[1].path).unlink()
    assert "missing" in verify(dataset)[0]


def test_counts_that_do_not_follow_from_the_objects_are_found(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, {"s": ROWS})
    [count] = dataset.manifest.counts
    wrong = dataset.manifest.model_copy(update={"counts": (count.model_copy(update={"kept": 19}),)})
    problems = verify(Dataset(wrong, tmp_path))
    assert any("the objects give" in p for p in problems)
    assert any("20 rows entered, 19 kept" in p for p in problems)


def test_another_train_visible_digest_is_found(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, {"s": ROWS})
    wrong = dataset.manifest.model_copy(update={"train_visible": "0" * 64})
    assert any("train_visible" in p for p in verify(Dataset(wrong, tmp_path)))


def test_an_annotation_of_another_length_is_found(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, {"s": ROWS})
    short = pl.DataFrame({"verdict": [None], "detail": [None]}, schema=VERDICT_SCHEMA)
    entry = Store(tmp_path).put(short, role="annotation", stage="rules", source="s", shard=0)
    draft = Draft.of(dataset.manifest)
    broken = Draft(draft.name, draft.sources, draft.stages, (*draft.files, entry)).manifest()
    assert manifest_id(broken) == broken.id
    assert any("1 opinions about 20 rows" in p or "columns" in p for p in verify(Dataset(broken, tmp_path)))


def test_deep_verify_recomputes_ids_and_content_hashes(tmp_path: Path) -> None:
    """Objects whose names fit their bytes can still hold rows that were made up."""
    dataset = dataset_of(tmp_path, {"s": ROWS})
    text = pl.read_ipc(
        tmp_path / dataset.manifest.files[1].path
        if dataset.manifest.files[1].role == "text"
        else tmp_path / dataset.manifest.files[0].path
    )
    forged = text.with_columns(pl.lit("0" * 32).alias("content_hash"))
    entry = Store(tmp_path).put(forged, role="text", stage="ingest", source="s", shard=0)
    files = tuple(entry if f.role == "text" else f for f in dataset.manifest.files)
    draft = Draft.of(dataset.manifest)
    forged_dataset = Dataset(Draft(draft.name, draft.sources, draft.stages, files).manifest(), tmp_path)
    problems = verify(forged_dataset, deep=True)
    assert sum("does not give its content hash" in p for p in problems) == 20


def test_deep_verify_finds_an_edit_that_was_made_to_another_text_than_it_covers(tmp_path: Path) -> None:
    """Unless the stage is stale, and says so itself."""
    rows = [question("Who is it?", f"Number {n}.  \r\n") for n in range(3)]
    dataset = staged(dataset_of(tmp_path, {"s": rows}), "normalize")
    assert verify(dataset, deep=True) == []
    [file] = [f for f in dataset.manifest.files if f.role == "overlay"]
    other = pl.read_ipc(tmp_path / file.path).with_columns(before_hash=pl.col("before_hash").reverse())
    entry = Store(tmp_path).put(other, role="overlay", stage="normalize", source="s", shard=0)
    draft = Draft.of(dataset.manifest)
    swapped = replace(draft, files=tuple(entry if f == file else f for f in draft.files)).manifest()
    told = [p for p in verify(Dataset(swapped, tmp_path), deep=True) if "made for another text" in p]
    assert [p.partition(":")[0] for p in told] == ["source s shard 0 row 0", "source s shard 0 row 2"]
    entries = [stage.model_copy(update={"reads": "0" * 64}) for stage in swapped.stages]
    stale = Dataset(swapped.model_copy(update={"stages": tuple(entries)}), tmp_path)
    assert stale.stale() == ["normalize"]
    assert not any("made for another text" in p for p in verify(stale, deep=True))


def edited(root: Path, seq: int, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest by hand, and give it the id that fits its content."""
    path = root / f"datasets/d/versions/{seq:06d}.json"
    content = json.loads(path.read_bytes())
    change(content)
    content["id"] = manifest_id(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda m: m["counts"][0].update(kept=19, rejected={"empty:prompt": 1}), "the objects give"),
        (lambda m: m["files"][0].update(rows=21), "the manifest says 21"),
        (lambda m: m["files"][0].update(bytes=5), "the manifest says 20, 5"),
        (lambda m: m["files"][0].update(statistics={"empty:prompt": 3}), "the manifest says {'empty:prompt': 3}"),
        (lambda m: m.update(train_visible="0" * 64), "train_visible"),
        (lambda m: m["files"].append(m["files"][0]), "two objects are the annotation of ingest"),
        (lambda m: m["sources"].clear(), "source s: it has objects and no entry"),
        (lambda m: m["sources"].append(m["sources"][0]), "source s: it has two entries"),
        (lambda m: m["files"][0].update(stage="rules"), "stage rules: it has objects and no entry"),
        (lambda m: m.update(counts=[]), "the objects give"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_manifest_that_was_edited_and_given_a_fitting_id_is_found(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], match: str
) -> None:
    dataset_of(tmp_path, {"s": ROWS})
    edited(tmp_path, 1, change)
    assert any(match in problem for problem in verify(open_dataset("d", tmp_path)))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda m: m.update(semver="1.0.1"), "version 1.0.1 after 1.0.0: the changes make it 1.1.0"),
        (lambda m: m.update(parents=["0" * 64]), "its parent 000000000000 is not in the store before it"),
    ],
    ids=["semver", "parent"],
)
def test_deep_verify_checks_what_a_version_says_of_those_before_it(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], match: str
) -> None:
    dataset_of(tmp_path, {"s": ROWS})
    dataset_of(tmp_path, {"t": ROWS})
    assert verify(open_dataset("d", tmp_path), deep=True) == []
    edited(tmp_path, 2, change)
    assert verify(open_dataset("d", tmp_path)) == []
    assert verify(open_dataset("d", tmp_path), deep=True) == [match]


def everything(root: Path, *, deep: bool = False) -> list[str]:
    return [problem for one in verify_store(root, deep=deep) for problem in one.problems]


@pytest.fixture
def life(tmp_path: Path) -> Path:
    """Two datasets, three versions, a tag and a run."""
    dataset_of(tmp_path, {"s": ROWS})
    dataset_of(tmp_path, {"t": ROWS})
    dataset_of(tmp_path, {"s": ROWS}, name="other")
    store = Store(tmp_path)
    store.tag("d", "golden", 2)
    pl.DataFrame({"loss": [1.0]}).write_ipc(tmp_path / "records.arrow")
    store.register_run("r", {}, tmp_path / "records.arrow")
    return tmp_path


def test_a_whole_store_is_verified_version_by_version(life: Path) -> None:
    for deep in (False, True):
        found = list(verify_store(life, deep=deep))
        assert [(one.name, one.seq) for one in found if one.seq] == [("d", 1), ("d", 2), ("other", 1)]
        assert everything(life, deep=deep) == []


def test_deep_verify_of_a_store_reads_each_object_once(life: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr("schemas.objects.file_sha256", lambda path: read.append(path) or file_sha256(path))
    assert everything(life, deep=True) == []
    assert sorted(read) == sorted((life / "objects").glob("*/*"))


def test_a_version_that_is_gone_and_what_is_no_version_are_found(life: Path) -> None:
    (life / "datasets/d/versions/000001.json").rename(life / "datasets/d/versions/1.json")
    assert everything(life) == [
        "dataset d: version 1 is not there; versions are never removed",
        "dataset d: versions/1.json is no version",
    ]
    assert "its parent" in everything(life, deep=True)[0]


def test_a_tag_of_a_version_that_is_not_there_is_found(life: Path) -> None:
    (life / "datasets/d/tags.json").write_text('{"golden": 7}')
    assert everything(life) == ["dataset d: tag 'golden' names version 7, which is not there"]
    (life / "datasets/d/tags.json").write_text("{")
    assert len(everything(life)) == 1


def test_a_damaged_object_or_record_of_a_run_is_found(life: Path) -> None:
    [run] = Store(life).runs()
    path = life / "objects" / run["records"][:2] / f"{run['records']}.arrow"
    flip(path, 0.5)
    [problem] = everything(life)
    assert problem.startswith("run r, records: ")
    flip(path, 0.5)
    (life / "runs/r.json").write_text("{}")
    [problem] = everything(life)
    assert "not a record of that run" in problem


def test_one_unreadable_version_does_not_hide_the_others(life: Path) -> None:
    (life / "datasets/d/versions/000001.json").write_text("{")
    [file] = [f for f in open_dataset("other", life).manifest.files if f.role == "text"]
    flip(life / file.path, 0.5)
    broken = [(one.name, one.seq) for one in verify_store(life) if one.problems]
    assert broken == [("d", 1), ("d", 2), ("other", 1)]  # the text object is one for all of them


def test_a_store_that_is_not_there_is_a_clear_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such folder"):
        list(verify_store(tmp_path / "nowhere"))


def test_each_version_is_looked_up_a_few_times_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With parents among all versions before them, 1,000 versions would be half a million look-ups."""
    versions = 8
    for n in range(versions):
        dataset_of(tmp_path, {"s": ROWS[: n + 1]})
    looked: list[str] = []

    def found(reference: str, root: Path) -> Path:
        looked.append(reference)
        return manifest_path(reference, root)

    monkeypatch.setattr("curate.verify.manifest_path", found)
    assert [problem for one in verify_store(tmp_path, deep=True) for problem in one.problems] == []
    assert len(looked) <= 3 * versions
