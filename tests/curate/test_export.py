"""Export: each kept row is in a file or named, a format reads its own rows back, and a target is never half full."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import polars as pl
import pytest

from curate.export import Exported, ExportFormat, export
from curate.ingest import ingest
from curate.store import Store
from schemas.config import IngestConfig
from schemas.dataset import Dataset
from schemas.errors import ConfigError
from tests.curate.conftest import DATA, chat, make_dataset, turns

FORMATS = [name for name in get_args(ExportFormat) if name not in ("dpo", "hf")]
"""dpo, pairs: tests/curate/test_preferences.py; hf, a dataset for the hub: tests/curate/publish/."""
ROWS: list[dict[str, Any]] = [
    chat("What is a fen?", "A wet meadow.", context="Fens are wet.", category="qa"),
    chat("One?", "Two.", "Three?", "Four."),
    turns(("system", "Be brief."), ("user", "Who?"), ("assistant", "Mara.")),
    turns(("user", "Add."), ("assistant", ""), ("tool", "3"), ("assistant", "3"), tools="[]"),
    chat("broken", "x", broken="ingest:wrong_type"),
    {"messages": [], "extra": "{nope", "broken": "ingest:broken_json"},
]


@pytest.fixture
def dataset(store: Store) -> Dataset:
    return make_dataset(store, {"mix": ROWS, "more": [chat("And?", "Yes.", extra='{"score": 5}')]})


def with_splits(dataset: Dataset, store: Store, *splits: list[str | None]) -> Dataset:
    files = [
        store.put(
            pl.DataFrame(
                {"verdict": None, "detail": None, "split": some},
                schema={"verdict": pl.String, "detail": pl.String, "split": pl.String},
            ),
            role="annotation",
            stage="split",
            source=shard.source,
            shard=shard.number,
        )
        for shard, some in zip(dataset.shards, splits, strict=True)
    ]
    manifest = dataset.manifest.model_copy(update={"files": (*dataset.manifest.files, *files)})
    return Dataset(manifest, dataset.root)


@pytest.fixture
def split(dataset: Dataset, store: Store) -> Dataset:
    return with_splits(dataset, store, ["train", "val", "train", None, None, None], ["test"])


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return pl.read_parquet(path).to_dicts()
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def names(done: Exported) -> list[str]:
    return [file.name for file in done.files]


@pytest.mark.parametrize("format", FORMATS)
def test_every_kept_row_is_written_or_named(dataset: Dataset, tmp_path: Path, format: ExportFormat) -> None:
    done = export(dataset, format, tmp_path / "out")
    written = sum(len(read(file)) for file in done.files if file.name != "skipped.jsonl")
    named = read(tmp_path / "out" / "skipped.jsonl") if "skipped.jsonl" in names(done) else []
    assert done.rows == written
    assert written + len(named) == 5
    assert Counter(row["reason"] for row in named) == done.skipped
    assert all(row["id"] and row["detail"] for row in named)


def test_single_turn_formats_name_what_does_not_fit(dataset: Dataset, tmp_path: Path) -> None:
    done = export(dataset, "alpaca", tmp_path / "out")
    assert done.skipped == {"several turns": 1, "system prompt": 1, "tools": 1}
    assert read(tmp_path / "out" / "all.jsonl") == [
        {"instruction": "What is a fen?", "input": "Fens are wet.", "output": "A wet meadow."},
        {"instruction": "And?", "input": "", "output": "Yes.", "score": 5},
    ]


def test_conversation_formats_hold_the_context_in_the_first_question(dataset: Dataset, tmp_path: Path) -> None:
    export(dataset, "openai", tmp_path / "out")
    assert read(tmp_path / "out" / "all.jsonl")[0] == {
        "messages": [
            {"role": "user", "content": "What is a fen?\n\nFens are wet."},
            {"role": "assistant", "content": "A wet meadow."},
        ]
    }


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_whole_records_have_all_columns(split: Dataset, tmp_path: Path, format: ExportFormat) -> None:
    done = export(split, format, tmp_path / "out")
    assert names(done) == [*(f"{name}.{format}" for name in ("test", "train", "val")), "skipped.jsonl"]
    first = read(tmp_path / "out" / f"train.{format}")[0]
    expected = split.scan([*first]).collect().to_dicts()[0]
    assert first == expected
    assert (first["split"], first["category"], first["context"]) == ("train", "qa", "Fens are wet.")


def test_a_kept_row_without_a_split_is_named(split: Dataset, tmp_path: Path) -> None:
    assert export(split, "jsonl", tmp_path / "out").skipped == {"no split": 1}


def test_only_the_wanted_splits_are_written(split: Dataset, tmp_path: Path) -> None:
    done = export(split, "sharegpt", tmp_path / "out", splits=("train",))
    assert names(done) == ["train.jsonl", "skipped.jsonl"]
    assert done.rows == 2


@pytest.mark.parametrize("format", ["jsonl", "parquet", "sharegpt"])
def test_a_split_that_is_named_twice_is_written_once(split: Dataset, tmp_path: Path, format: ExportFormat) -> None:
    assert export(split, format, tmp_path / "out", splits=("train", "train")).rows == 2


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_rejected_rows_are_in_a_file_of_their_own(dataset: Dataset, tmp_path: Path, format: ExportFormat) -> None:
    done = export(dataset, format, tmp_path / "out", include_rejected=True)
    assert done.rows == 7
    reasons = [row["reject_reason"] for row in read(tmp_path / "out" / f"rejected.{format}")]
    assert reasons == ["ingest:wrong_type", "ingest:broken_json"]


def test_a_folder_in_use_is_left_as_it_is(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(ConfigError, match=r"out: a folder with files in it.*new or empty folder.*--to"):
        export(dataset, "jsonl", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine"]
    assert not list(tmp_path.glob(".out*"))


def test_a_link_to_an_empty_folder_stays_a_link(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    done = export(dataset, "jsonl", tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert [p.name for p in (tmp_path / "disk").iterdir()] == names(done)


def test_the_folder_that_one_is_in_is_refused(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be exchanged for another of its name, and whoever is in it would see none of the files."""
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    for name in (".", "../out"):
        with pytest.raises(ConfigError, match="the folder that you are in"):
            export(dataset, "jsonl", Path(name))
    assert not list(tmp_path.rglob("*partial"))


@pytest.mark.parametrize(
    ("format", "more", "says"),
    [
        ("xml", {}, "format 'xml': not known"),
        ("jsonl", {"splits": ("dev",)}, "split 'dev': no such split"),
        ("jsonl", {"splits": ("train",)}, "not split yet.*sft curate split"),
        ("alpaca", {"include_rejected": True}, "no place for the reason"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    dataset: Dataset, tmp_path: Path, format: Any, more: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        export(dataset, format, tmp_path / "out", **more)
    assert not (tmp_path / "out").exists()


def test_a_failure_on_the_way_leaves_nothing(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("curate.export._Files.lines", fail)
    with pytest.raises(ConfigError, match="no space left"):
        export(dataset, "jsonl", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "format"), [("alpaca_9k.json", "alpaca"), ("dolly_3k.jsonl", "dolly"), ("openorca_283.jsonl", "openorca")]
)
def test_real_rows_go_out_as_they_came_in(store: Store, tmp_path: Path, name: str, format: Any) -> None:
    """Ingest, export, ingest again: the same ids and the same text, byte for byte."""
    if not (DATA / name).exists():
        pytest.skip(f"no real data at {DATA}")
    first = ingest(store, [str(DATA / name)], format, IngestConfig())
    empty = make_dataset(store, {format: []}).manifest
    export(Dataset(empty.model_copy(update={"files": first.files}), store.root), format, tmp_path / "out")
    again = ingest(store, [str(tmp_path / "out" / "all.jsonl")], format, IngestConfig())
    columns = ["id", "source_key", "messages", "context", "category", "extra", "content_hash"]
    before, after = (pl.read_ipc(store.root / found.files[0].path).select(columns) for found in (first, again))
    assert before.equals(after)
    assert before.height == first.rows
