"""Verify recomputes what a manifest claims, and finds what does not hold."""

import os
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from curate.store import Store
from curate.verify import verify
from curate.version import Draft
from schemas.dataset import Dataset, open_dataset
from schemas.manifest import manifest_id
from schemas.record import VERDICT_SCHEMA
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
