"""The layout of the hub: `datasets` reads back what was kept, in every split; bytes are the same each time."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from curate.publish import layout
from curate.publish.layout import SPLIT_NAMES, Published, publish
from curate.store import Store
from schemas.about import About
from schemas.dataset import Dataset
from schemas.errors import ConfigError
from schemas.record import record_of
from tests.curate.conftest import make_dataset
from tests.curate.publish.conftest import CALL, SOURCES, TOOLS, version
from tests.rows import dataset_of, question, staged


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """`datasets.load_dataset` of a folder, with no way to the network and a cache of its own."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    yield lambda folder: datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    datasets.enable_progress_bars()


def kept(dataset: Dataset, split: str) -> list[dict[str, Any]]:
    """The rows of a split as a trainer reads them."""
    columns = ["id", "source", "messages", "context", "tools", "category", "language", "task"]
    rows = dataset.scan([*columns, "kept", "split"]).filter(pl.col("kept") & (pl.col("split") == split)).collect()
    return [
        {name: row[name] for name in ("id", "source", "category", "context", "language", "task")}
        | {"messages": [{"role": m.role, "content": m.content} for m in record_of(row).messages]}
        for row in rows.select(columns).to_dicts()
    ]


def test_datasets_reads_the_kept_rows_of_every_split(wet: Dataset, published: Published, load: Any) -> None:
    loaded = load(published.files[0].parent)
    assert set(loaded) == set(SPLIT_NAMES.values())
    for ours, theirs in SPLIT_NAMES.items():
        columns = ("id", "source", "category", "context", "language", "task", "messages")
        assert [{name: row[name] for name in columns} for row in loaded[theirs]] == kept(wet, ours)
    assert sum(len(split) for split in loaded.values()) == published.rows == 42


@pytest.mark.realdata
def test_real_rows_come_back_as_a_trainer_reads_them(
    real_rows: dict[str, list[dict[str, Any]]], tmp_path: Path, load: Any
) -> None:
    """All of the real rows, in all splits, row by row."""
    dataset = staged(make_dataset(Store(tmp_path / "s"), real_rows), "split")
    done = publish(dataset, tmp_path / "out")
    loaded = load(tmp_path / "out")
    for ours, theirs in SPLIT_NAMES.items():
        expected = kept(dataset, ours)
        assert loaded[theirs]["id"][:] == [row["id"] for row in expected]
        assert loaded[theirs]["messages"][:] == [row["messages"] for row in expected]
    assert done.rows == sum(map(len, real_rows.values()))


def test_the_card_tells_datasets_the_features_that_it_finds(published: Published, load: Any) -> None:
    folder = published.files[0].parent
    front = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    loaded = load(folder)
    assert loaded["train"].features._to_yaml_list() == front["dataset_info"]["features"]
    assert {s["name"]: s["num_examples"] for s in front["dataset_info"]["splits"]} == {
        k: len(v) for k, v in loaded.items()
    }


def test_the_context_is_in_the_first_turn_and_beside_it(published: Published) -> None:
    files = [file for file in published.files if file.suffix == ".parquet"]
    rows = pl.concat([pl.read_parquet(file) for file in files]).filter(pl.col("context").is_not_null()).to_dicts()
    assert [row["context"] for row in rows] == ["Fens are wet."]
    assert rows[0]["messages"][0]["content"] == "How deep is fen number 0 in spring?\n\nFens are wet."


def test_tool_calls_are_of_the_form_that_chat_templates_read(talk: Dataset, tmp_path: Path, load: Any) -> None:
    publish(talk, tmp_path / "out")
    row = load(tmp_path / "out")["train"][0]
    assert row["messages"][1]["tool_calls"] == CALL
    assert row["messages"][0] == {"role": "user", "content": "Depth of fen 3?", "name": "mara", "tool_calls": None}
    assert json.loads(row["tools"]) == TOOLS


def test_conversations_without_names_and_tools_have_turns_of_role_and_content_alone(published: Published) -> None:
    schema = pl.read_parquet_schema(next(f for f in published.files if f.suffix == ".parquet"))
    assert schema["messages"] == pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
    assert "tools" not in schema
    assert "extra" not in schema
    assert "source_file" not in schema


def test_the_same_version_gives_the_same_bytes(wet: Dataset, tmp_path: Path) -> None:
    one, two = publish(wet, tmp_path / "one"), publish(wet, tmp_path / "two")
    assert [f.relative_to(tmp_path / "one") for f in one.files] == [f.relative_to(tmp_path / "two") for f in two.files]
    assert [f.read_bytes() for f in one.files] == [f.read_bytes() for f in two.files]


def test_a_split_ends_a_file_where_it_is_full(
    wet: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: Any
) -> None:
    monkeypatch.setattr(layout, "SHARD_BYTES", 1)
    monkeypatch.setattr(layout, "ROW_GROUP_BYTES", 1)
    done = publish(wet, tmp_path / "out")
    train = [f for f in done.facts.files if f.split == "train"]
    assert [f.name for f in train] == [f"data/train-{i:05d}-of-{len(train):05d}.parquet" for i in range(len(train))]
    assert len(train) > 1
    assert {name: len(rows) for name, rows in load(tmp_path / "out").items()} == done.facts.by_split


def test_a_version_without_splits_is_one_split_train(tmp_path: Path) -> None:
    done = publish(version(tmp_path / "store", SOURCES, fens=3), tmp_path / "out")
    assert done.facts.by_split == {"train": 5}


def test_only_the_splits_that_were_asked_for_are_written(wet: Dataset, tmp_path: Path) -> None:
    done = publish(wet, tmp_path / "out", splits=("val",))
    assert list(done.facts.by_split) == ["validation"]
    assert not done.facts.whole


def test_kept_rows_without_a_split_are_refused(tmp_path: Path) -> None:
    dataset = staged(dataset_of(tmp_path / "s", {"a": [question(f"{i}?", f"It is {i}.") for i in range(9)]}), "split")
    later = dataset_of(tmp_path / "s", {"b": [question("More?", "Much more.")]})
    assert later.manifest.seq == dataset.manifest.seq + 1
    with pytest.raises(ConfigError, match=r"1 kept row has no split.*sft curate split d"):
        publish(later, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_about_for_a_source_that_is_not_there_is_refused(wet: Dataset, tmp_path: Path) -> None:
    about = About.model_validate({"sources": {"ponds": {"kind": "public"}}})
    with pytest.raises(ConfigError, match=r"sources\.ponds: no such source; expected one of .*fens"):
        publish(wet, tmp_path / "out", about=about)


def test_a_folder_in_use_stays_as_it_is(wet: Dataset, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="a folder with files in it"):
        publish(wet, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_version_without_kept_rows_is_refused(tmp_path: Path) -> None:
    dataset = staged(dataset_of(tmp_path / "s", {"a": [question("Who?", "")]}), "rules")
    with pytest.raises(ConfigError, match="no kept rows to publish"):
        publish(dataset, tmp_path / "out")
