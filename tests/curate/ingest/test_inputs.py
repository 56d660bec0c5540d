"""What a person may name as an input, and what the rows remember of it."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from curate.ingest import Ingested, ingest
from curate.ingest.inputs import find_inputs
from curate.store import Store
from schemas.config import Format, IngestConfig
from schemas.errors import InputError
from tests.curate.ingest.conftest import alpaca, read_back, write_rows


def run(store: Store, *inputs: str, format: Format = "alpaca", base: Path | None = None) -> Ingested:
    return ingest(store, inputs, format, IngestConfig(), base=base)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    write_rows(tmp_path / "in" / "b.jsonl", [alpaca(1)])
    write_rows(tmp_path / "in" / "a.jsonl", [alpaca(2), alpaca(3)])
    write_rows(tmp_path / "in" / "deep" / "c.jsonl", [alpaca(4)])
    return tmp_path


def test_a_glob_gives_its_files_in_the_order_of_names(store: Store, folder: Path) -> None:
    found = run(store, str(folder / "in" / "**" / "*.jsonl"))
    assert [r["source_file"] for r in read_back(store, found)] == ["a.jsonl", "a.jsonl", "b.jsonl", "deep/c.jsonl"]
    assert [i.rows for i in found.source.inputs] == [2, 1, 1]


def test_the_manifest_entry_holds_the_hash_of_the_file_as_stored(store: Store, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl.gz", [alpaca(1)])
    [entry] = run(store, str(path)).source.inputs
    assert entry.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (entry.uri, entry.bytes, entry.rows) == (str(path), path.stat().st_size, 1)


def test_relative_inputs_are_looked_up_from_the_base(store: Store, folder: Path) -> None:
    found = run(store, "in/*.jsonl", "in/deep/c.jsonl", base=folder)
    assert [i.uri for i in found.source.inputs] == ["in/a.jsonl", "in/b.jsonl", "in/deep/c.jsonl"]


def test_objects_do_not_depend_on_the_folder(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 2: the same files elsewhere, named in another way, give byte-identical objects."""
    first = run(store, str(folder / "in" / "*.jsonl"))
    (folder / "in").rename(folder / "elsewhere")
    monkeypatch.chdir(folder / "elsewhere")
    second = run(store, "./a.jsonl", "../elsewhere/b.jsonl")
    assert [f.sha256 for f in first.files] == [f.sha256 for f in second.files]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["nowhere.jsonl"], "no such file"),
        (["*.nothing"], "no file matches"),
        (["in"], r"a folder.*in/\*\.jsonl"),
        (["in/a.jsonl", "in/../in/a.jsonl"], "named twice"),
        (["in/a.jsonl/x"], "not a directory"),
        (["a\0b"], "null"),
        (["x" * 5000], "too long"),
        (["nosuch://place/file"], "[Pp]rotocol"),
        ([], "none given"),
    ],
)
def test_what_cannot_be_found_is_one_line(folder: Path, given: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        find_inputs(given, folder)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_one_line(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [alpaca(1)])

    def refuse(*_args: object, **_more: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"rows\.jsonl: permission denied"):
        run(store, str(path))


# the hub --------------------------------------------------------------------------------------------------------------


class FakeHub(MemoryFileSystem):
    """Files in memory under hf://, as HfFileSystem gives them."""

    protocol = "hf"
    store: dict[str, object] = {}  # noqa: RUF012 - fsspec's own way to keep them
    pseudo_dirs: list[str] = [""]  # noqa: RUF012 - as above

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + str(path).removeprefix("hf://").strip("/")

    def glob(self, path: str, **more: Any) -> Any:
        return {name.strip("/"): info for name, info in super().glob(path, **more).items()}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[MemoryFileSystem]:
    real = fsspec.get_filesystem_class("hf")
    fsspec.register_implementation("hf", FakeHub, clobber=True)
    fs = FakeHub()
    for name, first in (("train-1.parquet", 1), ("train-2.parquet", 3), ("notes.md", 9)):
        path = write_rows(tmp_path / name.replace(".md", ".jsonl"), [alpaca(first), alpaca(first + 1)])
        fs.pipe_file(f"/datasets/me/set/{name}", path.read_bytes())
    yield fs
    FakeHub.store.clear()
    fsspec.register_implementation("hf", real, clobber=True)


@pytest.mark.usefixtures("hub")
def test_files_of_the_hub_are_read_through_fsspec(store: Store, tmp_path: Path) -> None:
    found = run(store, "hf://datasets/me/set/*.parquet", format="auto")
    local = run(store, str(tmp_path / "train-*.parquet"))
    assert [f.sha256 for f in found.files] == [f.sha256 for f in local.files]
    assert [i.sha256 for i in found.source.inputs] == [i.sha256 for i in local.source.inputs]
    assert found.source.inputs[0].uri == "hf://datasets/me/set/train-1.parquet"


@pytest.mark.usefixtures("hub")
def test_a_missing_file_of_the_hub_is_one_line(store: Store) -> None:
    with pytest.raises(InputError, match=r"hf://datasets/me/set/none\.parquet: no file matches"):
        run(store, "hf://datasets/me/set/none.parquet")


def test_an_unreachable_hub_is_one_line(store: Store, hub: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_more: object) -> None:
        raise RuntimeError("connection refused")

    monkeypatch.setattr(type(hub), "info", fail)
    with pytest.raises(InputError, match="connection refused"):
        run(store, "hf://datasets/me/set/train-1.parquet")


def test_hf_paths_lead_to_the_hubs_own_file_system() -> None:
    from huggingface_hub import HfFileSystem

    assert issubclass(fsspec.get_filesystem_class("hf"), HfFileSystem)


# shards and appending -------------------------------------------------------------------------------------------------


def test_appended_rows_have_keys_of_their_own(store: Store, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [alpaca(1), alpaca(1), alpaca(2)])
    first = run(store, str(path))
    keys = pl.read_ipc(store.root / first.files[0].path)["source_key"]
    more = ingest(store, [str(path)], "alpaca", IngestConfig(), first_shard=1, seen=keys)
    added = read_back(store, more)
    assert [r["source_key"][-2:] for r in read_back(store, first)] == ["-1", "-2", "-1"]
    assert [r["source_key"][-2:] for r in added] == ["-3", "-4", "-2"]
    assert {f.shard for f in more.files} == {1}


def test_shards_are_cut_by_rows_and_by_bytes(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [alpaca(i) for i in range(10)])
    whole = read_back(store, run(store, str(path)))
    for name, limit in (("SHARD_ROWS", 4), ("SHARD_BYTES", 300)):
        with monkeypatch.context() as patch:
            patch.setattr(f"curate.ingest.shards.{name}", limit)
            found = run(store, str(path))
        assert [f.rows for f in found.files if f.role == "text"] == [4, 4, 2]
        assert [f.shard for f in found.files] == [0, 0, 1, 1, 2, 2]
        assert read_back(store, found) == whole


def test_progress_counts_every_row(store: Store, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [alpaca(i) for i in range(5000)])
    ticks: list[int] = []
    ingest(store, [str(path)], "alpaca", IngestConfig(), progress=ticks.append)
    assert sum(ticks) == 5000
    assert len(ticks) > 2


# auto -----------------------------------------------------------------------------------------------------------------


def test_auto_says_what_it_decided_and_why(store: Store, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [alpaca(i) for i in range(3)])
    found = run(store, str(path), format="auto")
    assert (found.format, found.source.name) == ("alpaca", "alpaca")
    assert any("3 of its first 3 rows have 'instruction' and 'output'" in note for note in found.notes)


def test_auto_refuses_rows_of_no_format_and_of_two(store: Store, tmp_path: Path) -> None:
    none = write_rows(tmp_path / "none.jsonl", [{"prompt": "q"}])
    with pytest.raises(InputError, match=r"'prompt'.*alpaca: 'instruction' and 'output'"):
        run(store, str(none), format="auto")
    two = write_rows(tmp_path / "two.jsonl", [alpaca(1, response="b")])
    with pytest.raises(InputError, match="read as alpaca and dolly"):
        run(store, str(two), format="auto")


def test_the_files_of_one_source_have_one_format(store: Store, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [alpaca(1)])
    write_rows(tmp_path / "b.jsonl", [{"instruction": "q", "response": "a"}])
    with pytest.raises(InputError, match=r"b\.jsonl: its rows are dolly, those of the files before alpaca"):
        run(store, str(tmp_path / "*.jsonl"), format="auto")
