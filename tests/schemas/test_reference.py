"""References and manifests from people and from elsewhere: what cannot be is one clear line, at once."""

import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from curate.store import Store
from curate.verify import verify_store
from schemas import place
from schemas.dataset import open_dataset
from schemas.errors import ConfigError, CorruptObjectError, SftError, StoreError, UnknownReferenceError
from schemas.manifest import Manifest, manifest_id
from schemas.reference import dataset_names, read_manifest, read_runs, read_tags, versions_of
from tests.rows import dataset_of, question

FIRST = "datasets/d/versions/000001.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset_of(tmp_path_factory.mktemp("made"), {"s": [question("a", "b"), question("c", "d")]}).root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "store")


def rewritten(root: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change a manifest by hand, and give it the id that fits, as somebody would who knows how."""
    path = root / FIRST
    content = json.loads(path.read_bytes())
    change(content)
    with suppress(ValueError):
        content["id"] = manifest_id(Manifest.model_validate(content))
    path.write_text(json.dumps(content))
    return path


def refused(path: Path, match: str, kind: type[SftError] = StoreError) -> None:
    with pytest.raises(kind, match=match) as caught:
        read_manifest(path)
    assert "\n" not in str(caught.value)


CLIMBING = ["../../x", "/etc/passwd", "a/b", "..", "a\0b", "x" * 101, "", ".hidden", "a\nb", "a..b", "..\\x", "\u202ex"]


@pytest.mark.parametrize("name", CLIMBING)
@pytest.mark.parametrize(
    "where",
    [("name",), ("sources", 0, "name"), ("files", 0, "source"), ("files", 0, "stage"), ("files", 0, "sha256")],
    ids=lambda where: ".".join(map(str, where)),
)
def test_a_name_in_a_manifest_that_is_no_folder_name_is_refused(root: Path, where: tuple[Any, ...], name: str) -> None:
    def change(content: dict[str, Any]) -> None:
        for step in where[:-1]:
            content = content[step]
        content[where[-1]] = name

    refused(rewritten(root, change), rf"{where[-1]}: ", CorruptObjectError)


@pytest.mark.parametrize("key", ["shard", "rows", "bytes"])
@pytest.mark.parametrize("value", [-1, 1.5, "../1", [], None])
def test_a_number_in_a_manifest_that_is_none_is_refused(root: Path, key: str, value: Any) -> None:
    if (key, value) == ("shard", None):
        return
    path = rewritten(root, lambda content: content["files"][0].update({key: value}))
    refused(path, f"files.0.{key}: |does not give its id", CorruptObjectError)


def test_what_a_later_release_wrote_is_told_by_its_release_and_by_what_is_not_known(root: Path) -> None:
    """Also where it has fields that this release does not know, which would be an error of their own."""

    def change(content: dict[str, Any]) -> None:
        content.update(features=["quantum", "overlays", "warp"], code_version="9.1.0", entanglement={"a": 1})

    refused(rewritten(root, change), r"features quantum, warp, written by sft-toolkit 9\.1\.0.*[Uu]pgrade")


@pytest.mark.parametrize(("version", "release"), [(0, "0.0.3"), (7, "12.0.0")])
def test_rows_of_an_older_or_newer_schema_version_name_the_release_that_reads_them(
    root: Path, version: int, release: str
) -> None:
    path = rewritten(root, lambda content: content.update(schema_version=version, code_version=release, more=1))
    refused(path, rf"schema version {version}, written by sft-toolkit {release}; expected schema version 1\. Use the")


def test_a_stage_of_a_later_release_is_named(root: Path) -> None:
    entry = {"name": "telepathy", "version": 1, "config": {}, "reads": "0" * 64, "seconds": 0.0}
    refused(rewritten(root, lambda content: content["stages"].append(entry)), r"stages telepathy.*[Uu]pgrade")


@pytest.mark.parametrize(
    "text", ['{"a":' * 100_000, "[" * 1_000_000, '{"format": "sft-manifest/1", "schema_version": 1}']
)
def test_deeply_nested_json_is_an_error_and_no_hang(root: Path, text: str) -> None:
    (root / FIRST).write_text(text)
    refused(root / FIRST, "manifest", CorruptObjectError)


def test_a_manifest_of_a_hundred_megabytes_is_not_read(root: Path) -> None:
    with (root / FIRST).open("wb") as file:
        file.truncate(100 << 20)
    before = time.process_time()
    refused(root / FIRST, r"too large \(100 MB\).*64 MB at most")
    assert time.process_time() - before < 5  # nothing was read: a bound of another order, not a measurement


def instead(path: Path, what: str) -> None:
    """Put something else where a file was."""
    path.unlink()
    match what:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "link":
            elsewhere = path.parents[1] / "elsewhere"
            elsewhere.write_bytes(b"{}")
            path.symlink_to(elsewhere)
        case _:
            path.symlink_to(path)


KINDS = ["folder", "pipe", "link", "loop"]


@pytest.mark.parametrize("what", KINDS)
def test_what_is_no_file_where_a_manifest_was_is_told_at_once(root: Path, what: str) -> None:
    instead(root / FIRST, what)
    with pytest.raises(StoreError, match=r"not a file|directory|symbolic link"):
        open_dataset("d", root)


@pytest.mark.parametrize("what", KINDS)
def test_what_is_no_file_where_an_object_was_is_told_at_once(root: Path, what: str) -> None:
    dataset = open_dataset("d", root)
    instead(root / dataset.manifest.files[0].path, what)
    with pytest.raises(StoreError, match=r"not a file|symbolic link"):
        dataset.path(dataset.manifest.files[0])


@pytest.mark.parametrize("what", KINDS)
def test_what_is_no_file_where_tags_were_is_told_at_once(root: Path, what: str) -> None:
    Store(root).tag("d", "golden", 1)
    instead(root / "datasets/d/tags.json", what)
    with pytest.raises(StoreError, match=r"not a file|directory|symbolic link"):
        read_tags(root, "d")


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_an_object_that_was_cut_off_is_told(root: Path, cut: int) -> None:
    dataset = open_dataset("d", root)
    path = root / dataset.manifest.files[0].path
    path.chmod(0o644)
    os.truncate(path, cut)
    with pytest.raises(CorruptObjectError, match="sha256"):
        dataset.path(dataset.manifest.files[0])


@pytest.mark.parametrize("folder", ["objects", "datasets", "datasets/d", "datasets/d/versions", "objects/AB"])
def test_a_folder_that_is_a_link_is_not_followed_neither_to_read_nor_to_write(root: Path, folder: str) -> None:
    """The store itself may be one: whoever names it knows."""
    [file, *_] = open_dataset("d", root).manifest.files
    inner = folder.replace("AB", file.sha256[:2])
    outside = root.parent / "outside"
    (root / inner).rename(outside)
    (root / inner).symlink_to(outside)
    before = sorted(outside.rglob("*"))
    with pytest.raises(StoreError, match=rf"{inner} is a symbolic link"):
        open_dataset("d", root).path(file)
    with pytest.raises(StoreError, match="is a symbolic link"):
        dataset_of(root, {"s": [question("a", "b"), question("c", "d")], "t": [question("e", "f")]})
    with pytest.raises(StoreError, match="is a symbolic link"):
        Store(root).garbage(0)
    assert sorted(outside.rglob("*")) == before
    linked = root.parent / "linked"
    (root / inner).unlink()
    outside.rename(root / inner)
    linked.symlink_to(root)
    assert open_dataset("d", linked).counts() == open_dataset("d", root).manifest.counts


@pytest.mark.parametrize("name", ["gc.lock", "checked.log", "datasets/d/commit.lock", "datasets/d/tags.lock"])
def test_a_lock_or_log_that_is_a_link_changes_nothing_outside(root: Path, name: str) -> None:
    precious = root.parent / "precious"
    precious.write_text("precious")
    (root / name).unlink(missing_ok=True)
    (root / name).symlink_to(precious)
    with suppress(StoreError):
        dataset_of(root, {"t": [question("e", "f")]})
    with suppress(StoreError):
        Store(root).tag("d", "golden", 1)
    assert open_dataset("d@1", root).rows == 2
    assert precious.read_text() == "precious"


@pytest.mark.parametrize("name", ["checked.log", "gc.lock"])
def test_a_pipe_in_place_of_a_lock_or_log_hangs_nobody(root: Path, name: str) -> None:
    (root / name).unlink(missing_ok=True)
    os.mkfifo(root / name)
    assert dataset_of(root, {"t": [question("e", "f")]}).rows == 3


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "not JSON"),
        ("[1]", "not a list of tags"),
        ('{"golden": "1"}', "not a list of tags"),
        ('{"golden": true}', "not a list of tags"),
        ('{"7": 1}', "'7' is not a tag: it would name a version"),
        ('{"../x": 1}', "is not a tag"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_tags_edited_by_hand_that_cannot_be_are_told_and_numbers_still_name_versions(
    root: Path, text: str, match: str
) -> None:
    (root / "datasets/d/tags.json").write_text(text)
    with pytest.raises(StoreError, match=match):
        open_dataset("d@golden", root)
    with pytest.raises(StoreError, match=match):
        Store(root).tag("d", "other", 1)
    assert open_dataset("d@1", root).rows == open_dataset("d", root).rows == 2


def test_a_tag_that_names_a_version_that_is_not_there_says_so(root: Path) -> None:
    (root / "datasets/d/tags.json").write_text('{"golden": 9}')
    with pytest.raises(UnknownReferenceError, match=r"d@golden: version 9 is not there.*a number up to 1"):
        open_dataset("d@golden", root)


@pytest.mark.parametrize("seq", [0, 2, -1])
def test_a_version_that_is_not_there_gets_no_tag(root: Path, seq: int) -> None:
    with pytest.raises(UnknownReferenceError, match="no such version"):
        Store(root).tag("d", "golden", seq)
    assert read_tags(root, "d") == {}


@pytest.mark.parametrize("name", ["../d", "/etc", "d/../d", "a\0b", "", "x" * 4000, "d@@1", "d@1@2", "d@" + "9" * 5000])
def test_a_reference_that_cannot_be_is_one_clear_line(root: Path, name: str) -> None:
    with pytest.raises((ConfigError, UnknownReferenceError)) as caught:
        open_dataset(name, root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "file", ["1.json", "0000001.json", "000002.json.bak", "²2.json", "notes.txt", "000002.JSON", ".json"]
)
def test_a_file_that_is_not_named_as_a_version_is_none(root: Path, file: str) -> None:
    (root / "datasets/d/versions" / file).write_text("{}")
    assert versions_of(root, "d") == [1]


def test_a_folder_that_cannot_be_read_is_not_an_empty_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("schemas.place.os.listdir", denied)
    for look in (lambda: versions_of(root, "d"), lambda: dataset_names(root), lambda: read_runs(root)):
        with pytest.raises(StoreError, match="Permission denied"):
            look()


def test_a_folder_that_may_not_be_entered_is_one_clear_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_symlink", denied)
    for reference in ("d", "d@1", "d@golden"):
        with pytest.raises(StoreError, match=r"store .*: Permission denied"):
            open_dataset(reference, root)


def test_a_name_that_is_too_long_for_a_path_is_one_clear_line(root: Path) -> None:
    long = Path("a" * 5000)
    with pytest.raises(UnknownReferenceError, match="no such manifest file"):
        open_dataset(f"{long}.json", root)
    with pytest.raises(SftError, match="File name too long"):
        open_dataset("d@1", long)
    for look in (lambda: list(verify_store(long)), Store(long).garbage):
        with pytest.raises(StoreError, match="no such folder"):
            look()


def test_a_version_is_found_by_its_number_without_a_list_of_all(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log of 1,000 versions would list 1,000 names 1,000 times."""
    monkeypatch.setattr("schemas.reference.listed", lambda _folder: pytest.fail("listed the versions"))
    for reference in ("d@1", "d@01", "d@000001"):
        assert open_dataset(reference, root).manifest.seq == 1


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"run_id": "other"}', '{"run_id": "r", "objects": []}', '{"run_id": "r", "records": "../../x"}'],
)
def test_a_run_that_cannot_be_read_is_one_clear_line(root: Path, text: str) -> None:
    (root / "runs").mkdir()
    (root / "runs/r.json").write_text(text)
    with pytest.raises(CorruptObjectError, match=r"runs/r\.json"):
        Store(root).runs()


def test_the_largest_manifest_that_is_read_is_far_above_what_versions_need(root: Path) -> None:
    """A shard of 65,536 rows has about 12 objects, each one entry."""
    entry = max(len(file.model_dump_json(indent=1)) for file in open_dataset("d", root).manifest.files)
    assert place.MAX_BYTES / (entry * 12) * 65_536 > 500e6
