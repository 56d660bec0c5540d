"""Digests of models: the same for the same bytes, another for others, and large files are read once."""

import os
from pathlib import Path

import pytest

from train.model import digest
from train.model.digest import folder_digest, remembered_sha256

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SFT_CACHE", str(tmp_path / "cache"))
    made = tmp_path / "model"
    made.mkdir()
    for name in ("config.json", "model.safetensors", INDEX, "modeling.py", "custom_generate/generate.py", "README.md"):
        (made / name).parent.mkdir(exist_ok=True)
        (made / name).write_text(name)
    return made


@pytest.mark.parametrize(
    ("name", "code", "matters"),
    [
        ("config.json", False, True),
        ("model.safetensors", False, True),
        (INDEX, False, True),
        ("README.md", False, False),
        ("modeling.py", False, False),
        ("modeling.py", True, True),
        ("custom_generate/generate.py", False, False),
        ("custom_generate/generate.py", True, True),
    ],
)
def test_what_decides_a_model_is_in_its_digest(folder: Path, name: str, *, code: bool, matters: bool) -> None:
    before = folder_digest(folder, code=code)
    (folder / name).write_text("other")
    assert (folder_digest(folder, code=code) != before) is matters


def test_a_large_file_is_read_again_only_when_it_changed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "REMEMBERED_BYTES", 1)
    file = folder / "model.safetensors"
    before = remembered_sha256(file)
    read: list[Path] = []
    real = digest.file_sha256
    monkeypatch.setattr(digest, "file_sha256", lambda path: read.append(path) or real(path))
    assert remembered_sha256(file) == before
    assert read == []
    s = file.stat()
    file.write_text("model.SAFETENSORS")  # as long, and made to look as old
    os.utime(file, ns=(s.st_atime_ns, s.st_mtime_ns))
    assert remembered_sha256(file) != before
    assert read == [file]


def test_a_torn_memory_is_no_memory(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "REMEMBERED_BYTES", 1)
    file = folder / "model.safetensors"
    before = remembered_sha256(file)
    memory = tmp_path / "cache" / "model-digests.log"
    memory.write_text(memory.read_text()[:-9])
    assert remembered_sha256(file) == before
