"""The joined reader: text, overlays in stage order, annotations, and the outcome of it all."""

from pathlib import Path

import polars as pl
import pytest

from curate.store import Store
from curate.version import Draft
from schemas.dataset import Dataset, open_dataset
from schemas.errors import ConfigError, CorruptObjectError, StoreError
from schemas.manifest import FileEntry, digest
from schemas.record import OVERLAY_SCHEMA, TEXT_SCHEMA
from schemas.reference import read_manifest
from tests.rows import dataset_of, messages, question

ROWS = [question(f"question {i}", f"answer {i}") for i in range(10)]


def overlay(store: Store, stage: str, rows: dict[int, str]) -> FileEntry:
    frame = pl.DataFrame(
        [
            {
                "row": row,
                "messages": messages(("user", text)),
                "context": None,
                "content_hash": text,
                "before_hash": "",
                "edits": [],
            }
            for row, text in rows.items()
        ],
        schema=OVERLAY_SCHEMA,
    )
    return store.put(frame, role="overlay", stage=stage, source="s", shard=0)


def annotation(store: Store, stage: str, shard: int = 0, rows: int = 10, **columns: list[object]) -> FileEntry:
    blank = {"verdict": [None] * rows, "detail": [None] * rows}
    types = {"verdict": pl.String, "detail": pl.String, "override": pl.String}
    data = {**blank, **columns}
    frame = pl.DataFrame(data, schema={c: types[c] for c in data})
    return store.put(frame, role="annotation", stage=stage, source="s", shard=shard)


def with_files(dataset: Dataset, *files: FileEntry) -> Dataset:
    draft = Draft.of(dataset.manifest)
    return Dataset(Draft(draft.name, draft.sources, draft.stages, (*draft.files, *files)).manifest(), dataset.root)


def first_words(dataset: Dataset, before: str | None = None) -> list[str]:
    rows = dataset.scan(["messages"], before_stage=before).collect().to_series()
    return [row[0]["content"] for row in rows]


def test_overlays_apply_in_stage_order_and_a_stage_sees_only_those_before_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    dataset = dataset_of(tmp_path, {"s": ROWS})
    dataset = with_files(
        dataset, overlay(store, "review", {3: "by a person"}), overlay(store, "normalize", {3: "normal", 4: "only"})
    )
    assert first_words(dataset)[3:5] == ["by a person", "only"]
    assert first_words(dataset, "normalize")[3:5] == ["question 3", "question 4"]
    assert first_words(dataset, "rules")[3:5] == ["normal", "only"]
    assert first_words(dataset)[:3] == ["question 0", "question 1", "question 2"]


def test_rows_keep_their_order_over_shards(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, {"s": ROWS, "a": ROWS[:3]}, shard_rows=4)
    assert len(dataset.shards) == 4
    keys = dataset.scan(["source", "source_key"]).collect().rows()
    assert keys == [("a", f"k{i}") for i in range(3)] + [("s", f"k{i}") for i in range(10)]


def test_the_first_stage_that_rejected_a_row_gives_its_reason(tmp_path: Path) -> None:
    store = Store(tmp_path)
    dataset = dataset_of(tmp_path, {"s": ROWS})
    late = ["duplicate:exact", "duplicate:near", *[None] * 8]
    dataset = with_files(
        dataset,
        annotation(store, "dedup", verdict=late, detail=["d0", "d1", *[None] * 8]),
        annotation(store, "rules", verdict=["rule:x", *[None] * 9]),
    )
    view = dataset.scan(["kept", "reject_reason", "reject_detail", "stage"]).collect().rows()
    assert view[:3] == [
        (False, "rule:x", "", "rules"),
        (False, "duplicate:near", "d1", "dedup"),
        (True, None, None, None),
    ]


def test_a_persons_decision_stands_above_all(tmp_path: Path) -> None:
    store = Store(tmp_path)
    dataset = dataset_of(tmp_path, {"s": ROWS})
    dataset = with_files(
        dataset,
        annotation(store, "rules", verdict=["rule:x", "rule:x", *[None] * 8]),
        annotation(store, "review", override=["keep", "reject", "reject", *[None] * 7]),
    )
    view = dataset.scan(["kept", "reject_reason", "stage"]).collect().rows()
    assert view[:4] == [
        (True, None, None),
        (False, "review:rejected", "review"),
        (False, "review:rejected", "review"),
        (True, None, None),
    ]


def test_columns_of_a_stage_that_has_not_run_are_null(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, {"s": ROWS})
    assert dataset.scan(["split", "cluster_id", "flags"]).collect().null_count().row(0) == (10, 10, 10)


def test_a_column_that_nobody_knows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nonsense"):
        dataset_of(tmp_path, {"s": ROWS}).scan(["nonsense"])


def test_a_flipped_byte_is_found_when_the_object_is_opened(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, {"s": ROWS})
    path = tmp_path / dataset.manifest.files[0].path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(CorruptObjectError, match="sha256"):
        open_dataset("d", tmp_path).scan(["id"])


def test_a_missing_object_is_named(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, {"s": ROWS})
    (tmp_path / dataset.manifest.files[0].path).unlink()
    with pytest.raises(CorruptObjectError, match=r"missing.*[Rr]estore"):
        open_dataset("d", tmp_path).scan(["id"])


def test_a_hand_edited_manifest_is_refused(tmp_path: Path) -> None:
    dataset_of(tmp_path, {"s": ROWS})
    path = tmp_path / "datasets/d/versions/000001.json"
    path.write_text(path.read_text().replace('"format": "test"', '"format": "other"'))
    read_manifest(path)  # the format is not part of the content
    path.write_text(path.read_text().replace('"license": null', '"license": "MIT"'))
    with pytest.raises(CorruptObjectError, match="its content does not give its id"):
        read_manifest(path)


@pytest.mark.parametrize(("was", "now"), [('"seq": 1', '"seq": 9'), ('"name": "d"', '"name": "other"')])
def test_a_manifest_that_says_it_is_another_is_refused(tmp_path: Path, was: str, now: str) -> None:
    dataset_of(tmp_path, {"s": ROWS})
    path = tmp_path / "datasets/d/versions/000001.json"
    path.write_text(path.read_text().replace(was, now, 1))
    with pytest.raises(CorruptObjectError, match="it says that it is"):
        read_manifest(path)


def test_a_manifest_from_the_future_is_refused_with_a_clear_line(tmp_path: Path) -> None:
    dataset_of(tmp_path, {"s": ROWS})
    path = tmp_path / "datasets/d/versions/000001.json"
    path.write_text(path.read_text().replace('"features": []', '"features": ["quantum"]'))
    with pytest.raises(StoreError, match=r"quantum.*upgrade"):
        read_manifest(path)


def test_rows_of_another_schema_version_are_refused_with_a_clear_line(tmp_path: Path) -> None:
    dataset_of(tmp_path, {"s": ROWS})
    path = tmp_path / "datasets/d/versions/000001.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(StoreError, match=r"schema version 2.*schema version 1"):
        read_manifest(path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 3}', "\x00"])
def test_a_file_that_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(CorruptObjectError):
        open_dataset(str(path), tmp_path)


def test_a_manifest_that_climbs_out_of_the_store_is_refused(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, {"s": ROWS})
    path = tmp_path / "datasets/d/versions/000001.json"
    path.write_text(path.read_text().replace(dataset.manifest.files[0].sha256, "../../../../etc/passwd"))
    with pytest.raises(CorruptObjectError, match="sha256"):
        open_dataset("d", tmp_path)


def test_a_manifest_is_opened_by_its_path_with_its_own_store(tmp_path: Path) -> None:
    dataset_of(tmp_path / "here", {"s": ROWS})
    dataset = open_dataset(str(tmp_path / "here/datasets/d/versions/000001.json"), tmp_path / "elsewhere")
    assert dataset.rows == 10
    assert dataset.scan(list(TEXT_SCHEMA)).collect().schema == TEXT_SCHEMA


def test_only_the_columns_that_are_asked_for_are_read(tmp_path: Path) -> None:
    plan = dataset_of(tmp_path, {"s": ROWS}).scan(["id", "kept"]).explain()
    assert "messages" not in plan


def test_an_object_that_is_older_than_a_column_has_nulls_there(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, {"s": ROWS})
    dataset = with_files(dataset, annotation(Store(tmp_path), "review", override=["keep"] * 10))
    found = dataset.scan(["override", "rating", "kept"]).collect()
    assert found["override"].to_list() == ["keep"] * 10
    assert found["rating"].to_list() == [None] * 10
    assert found.schema["rating"] == pl.Float32


def test_the_digest_is_of_canonical_json() -> None:
    assert digest({"b": 1, "a": "é"}) == digest({"a": "é", "b": 1})
    assert digest([1]) != digest(["1"])
