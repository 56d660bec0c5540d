"""Croissant: mlcroissant takes it and reads every row by it; what the specification requires is there, or named."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from curate.publish import layout
from curate.publish.croissant import CROISSANT, RAI, REQUIRED, missing_fields
from curate.publish.layout import Published, publish
from curate.store import Store
from schemas.dataset import Dataset
from tests.curate.conftest import make_dataset
from tests.curate.publish.conftest import ABOUT, SOURCES, version

pytestmark = [
    pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning"),
]
"""How mlcroissant 1.1.1 uses rdflib and pandas is out of date."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """mlcroissant logs its recommendations by absl, whose handler outlives a test's captured stderr."""
    logger = logging.getLogger("absl")
    before = logger.disabled
    logger.disabled = True
    yield
    logger.disabled = before


def described(done: Published) -> dict[str, Any]:
    return json.loads((done.files[0].parent / "croissant.json").read_text())


def opened(done: Published) -> Any:
    croissant = pytest.importorskip("mlcroissant")
    return croissant.Dataset(jsonld=str(done.files[0].parent / "croissant.json"))


def test_mlcroissant_has_no_objection(published: Published) -> None:
    issues = opened(published).metadata.issues
    assert (issues.errors, issues.warnings) == (set(), set())


def test_every_row_of_every_split_is_read_by_it(published: Published) -> None:
    dataset = opened(published)
    for split, rows in published.facts.by_split.items():
        read = list(dataset.records(split))
        assert len(read) == rows
        assert len({row[f"{split}/id"] for row in read}) == rows
        assert [turn[f"{split}/messages/role"] for turn in read[0][f"{split}/messages"]] == [b"user", b"assistant"]


def test_a_split_of_several_files_is_read_whole(wet: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "SHARD_BYTES", 1)
    monkeypatch.setattr(layout, "ROW_GROUP_BYTES", 1)
    done = publish(wet, tmp_path / "out", about=ABOUT)
    assert len(done.facts.files) > len(done.facts.by_split)
    assert missing_fields(described(done)) == []
    dataset = opened(done)
    assert {s: len(list(dataset.records(s))) for s in done.facts.by_split} == done.facts.by_split


def test_rows_with_tool_calls_are_read(talk: Dataset, tmp_path: Path) -> None:
    read = list(
        opened(publish(talk, tmp_path / "out", about=ABOUT.model_copy(update={"sources": {}}))).records("train")
    )
    assert [turn["train/messages/name"] for turn in read[0]["train/messages"]] == [b"mara", None, b"depth", None]


@pytest.mark.realdata
def test_real_rows_are_read(real_rows: dict[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    done = publish(make_dataset(Store(tmp_path / "s"), {"dolly": real_rows["dolly"]}), tmp_path / "out")
    assert sum(1 for _ in opened(done).records("train")) == len(real_rows["dolly"]) == done.rows


def test_it_says_what_it_conforms_to_and_which_version_it_is(published: Published) -> None:
    found = described(published)
    assert found["conformsTo"] == [CROISSANT, RAI]
    assert found["version"] == f"{published.facts.manifest.semver}+sha.{published.facts.manifest.id[:12]}"
    assert found["license"] == ["https://spdx.org/licenses/CC-BY-SA-4.0.html", "https://spdx.org/licenses/MIT.html"]
    assert found["datePublished"] == "2026-02-03"


def test_files_are_described_as_they_are(published: Published) -> None:
    folder = published.files[0].parent
    for file in described(published)["distribution"]:
        assert int(file["contentSize"].removesuffix(" B")) == (folder / file["contentUrl"]).stat().st_size
    assert missing_fields(described(published)) == []


def test_nothing_is_made_up_that_nobody_said(tmp_path: Path) -> None:
    done = publish(version(tmp_path / "s", SOURCES, fens=3), tmp_path / "out")
    found = described(done)
    assert not {"url", "creator", "rai:dataBiases", "rai:dataSocialImpact", "rai:personalSensitiveInformation"} & set(
        found
    )
    assert missing_fields(found) == ["url", "creator"]
    assert "croissant.json lacks what its specification requires: url, creator" in done.notices


@pytest.mark.parametrize("name", REQUIRED)
def test_each_required_field_is_missed(published: Published, name: str) -> None:
    found = described(published)
    assert name not in missing_fields(found)
    assert name in missing_fields({key: value for key, value in found.items() if key != name})


@pytest.mark.parametrize("name", ["sha256", "contentSize", "encodingFormat"])
def test_each_fact_of_a_file_is_missed(published: Published, name: str) -> None:
    found = described(published)
    del found["distribution"][0][name]
    assert missing_fields(found) == [f"{name} of {found['distribution'][0]['@id']}"]


def test_fields_need_a_type_and_record_sets_need_fields(published: Published) -> None:
    found = described(published)
    del found["recordSet"][0]["field"][0]["dataType"]
    del found["recordSet"][0]["field"][1]["subField"][0]["dataType"]
    del found["recordSet"][1]["field"]
    assert missing_fields(found) == [
        "dataType of train/id",
        "dataType of train/messages/role",
        "field of validation",
    ]


def test_on_the_hub_files_have_addresses_there(wet: Dataset, tmp_path: Path) -> None:
    done = publish(wet, tmp_path / "out", page="https://hub.example/datasets/a/b", revision="x/y")
    found = described(done)
    assert found["url"] == "https://hub.example/datasets/a/b"
    url = "https://hub.example/datasets/a/b/resolve/x%2Fy/data/train-00000-of-00001.parquet"
    assert found["distribution"][0]["contentUrl"] == url
