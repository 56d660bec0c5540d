"""`--store s3://…`: every command as with a folder, from two machines."""

from collections.abc import Generator
from pathlib import Path

import pytest

from schemas import remote
from tests.cli.conftest import Sft
from tests.s3 import S3, Blob, alone, serve

pytest.importorskip("obstore", reason="the extra `remote` is not installed")


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sft: Sft) -> Generator[S3]:  # noqa: ARG001 # it clears SFT_STORE
    with serve() as s3:
        alone(s3, tmp_path, monkeypatch)
        yield s3


def test_the_commands_work_on_a_store_in_object_storage(
    sft: Sft, s3: S3, alpaca: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFT_STORE", "s3://b/team")
    monkeypatch.setattr(remote, "FRESH_S", 0.0)  # each command is a process of its own; here they share one
    said = sft("curate", "ingest", "alpaca", str(alpaca), "--name", "d")
    assert "committed d@1" in said.out
    assert "sft-data" not in said.out
    assert not (tmp_path / "sft-data").exists()
    first = sft("show", "d", "--json").json
    monkeypatch.setenv("SFT_CACHE", str(tmp_path / "another machine"))
    assert sft("show", "d", "--json").json == first
    sft("curate", "rules", "d")
    sft("tag", "d", "golden")
    assert "team/datasets/d/tags.json" in s3.blobs
    monkeypatch.setenv("SFT_CACHE", str(tmp_path / "cache"))
    log = sft("log", "d", "--json").json
    assert [version["seq"] for version in log["versions"]] == [2, 1]
    assert sft("show", "d@golden", "--json").json["seq"] == 2
    assert sft("verify", "d", "--deep", "--json").json["ok"]
    assert sft("diff", "d@1", "d@2", "--json").json
    assert "alpaca" in sft("why", "d", "alpaca:1").out
    sft("export", "d", "--format", "openai", "--to", str(tmp_path / "out"))
    stray = f"team/objects/ab/{'ab' * 32}.arrow"
    s3.blobs[stray] = Blob(b"stray", 0.0)
    assert f"s3://b/{stray}" in sft("gc", "--dry-run", "--json").json["files"]
    sft("gc")
    assert stray not in s3.blobs


def test_next_commands_name_the_url(sft: Sft, s3: S3, alpaca: Path) -> None:
    said = sft("curate", "ingest", "alpaca", str(alpaca), "--name", "d", "--store", "s3://b/team/")
    assert "--store s3://b/team" in said.out
    assert s3.keys("team/datasets/") == ["team/datasets/d/versions/000001.json"]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://gone/p", r"error: store s3://gone/p: no such bucket. Make it, or check the name"),
        ("ftp://b/p", r"error: store ftp://b/p: not a place for a store"),
        ("s3://key:secret@b/p", r"error: store s3://…: a URL with more than a place in it"),
    ],
)
@pytest.mark.usefixtures("s3")
def test_a_url_that_leads_nowhere_is_one_line(sft: Sft, url: str, told: str) -> None:
    said = sft("show", "d", "--store", url, code=2)
    assert said.err.startswith(told)
    assert said.err.count("\n") == 1
    assert "secret" not in said.err
