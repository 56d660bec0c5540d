"""A bucket and the mirror of a store: what comes is what was put, and every failure is one line."""

import hashlib
import os
from collections.abc import Generator
from pathlib import Path

import pytest

from schemas import bucket as buckets
from schemas.bucket import Bucket, aws_profile, check_url, open_bucket
from schemas.errors import ConfigError, CorruptObjectError, SftError, StoreError
from schemas.objects import file_sha256
from schemas.remote import Remote, folder_of, mirror, object_key, remote_of, shown
from tests.s3 import PAGE, S3, Blob, alone, serve

pytest.importorskip("obstore", reason="the extra `remote` is not installed")


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[S3]:
    """A bucket, and an environment in which stores are found there and nowhere else."""
    with serve() as s3:
        alone(s3, tmp_path, monkeypatch)
        yield s3


@pytest.fixture
def bucket(s3: S3) -> Bucket:
    return open_bucket("s3://b/team/p", s3.endpoint)


@pytest.fixture
def remote(s3: S3) -> Remote:  # noqa: ARG001 # the bucket is up
    found = remote_of(mirror("s3://b/team/p"))
    assert found is not None
    return found


def memory() -> Bucket:
    from obstore.store import MemoryStore

    return Bucket("memory:///", MemoryStore())


@pytest.mark.parametrize("kind", ["s3", "memory"])
def test_a_bucket_puts_lists_gets_and_deletes(kind: str, bucket: Bucket, tmp_path: Path) -> None:
    """Our small S3 and obstore's own store in memory give the same answers."""
    place = bucket if kind == "s3" else memory()
    assert place.get("a/x.json") is None
    assert place.head("a/x.json") is None
    assert place.download("a/x.json", tmp_path / "none") is None
    assert place.put_if("a/x.json", b"one", None)
    assert not place.put_if("a/x.json", b"two", None), "there is one already"
    held = place.get("a/x.json")
    assert held is not None
    assert held.body == b"one"
    assert place.put_if("a/x.json", b"three", held.version)
    assert not place.put_if("a/x.json", b"four", held.version), "it is another one by now"
    many = [f"a/{i:02}" for i in range(3 * PAGE)]
    for key in many:
        place.put_if(key, key.encode(), None)
    place.put_if("ab/beside", b"", None)
    assert [one.key for one in place.below("a")] == [*many, "a/x.json"]
    assert place.folders("") == ["a", "ab"]
    place.delete([*many, "a/never"])
    assert [(one.key, one.size) for one in place.below("a")] == [("a/x.json", 5)]


def test_a_large_object_goes_in_parts_and_comes_back_whole(s3: S3, bucket: Bucket, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(os.urandom(buckets.PART_BYTES + 12345))
    bucket.put("objects/big", big)
    assert ("POST", "team/p/objects/big") in s3.asked, "in parts"
    s3.faults.cut["team/p/objects/big"] = 3 << 20
    assert bucket.download("objects/big", tmp_path / "back") == file_sha256(big)
    assert (tmp_path / "back").read_bytes() == big.read_bytes(), "also where the line broke in the middle"
    assert s3.uploads == {}


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ([403, 403], r"store s3://b/team/p: access denied \(AccessDenied\)\. Check the credentials"),
        ([503] * 9, r"the server answered 503 \(SlowDown\)\. Try again later"),
        ([501] * 9, r"no conditional put"),
        ([301] * 9, r"the bucket lies in another region.*AWS_REGION"),
    ],
)
def test_a_refusal_is_one_line(s3: S3, bucket: Bucket, fault: list[int], told: str) -> None:
    s3.faults.status["PUT", "key"] = fault
    with pytest.raises(StoreError, match=told) as caught:
        bucket.put_if("key", b"", None)
    assert "\n" not in str(caught.value)
    assert "test-" not in str(caught.value), "no part of a credential"


def test_a_passing_fault_is_no_failure(s3: S3, bucket: Bucket) -> None:
    s3.faults.status["GET", "key"] = [503]
    assert bucket.put_if("key", b"1", None)
    assert (held := bucket.get("key")) is not None
    assert held.body == b"1"


def test_no_server_no_bucket_no_answer(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match=r"the server cannot be reached.*AWS_ENDPOINT_URL"):
        open_bucket("s3://b/p", "http://127.0.0.1:1").get("key")
    with pytest.raises(StoreError, match=r"the server cannot be reached"):
        open_bucket("s3://b/p", "http://nowhere.invalid").get("key")
    gone = open_bucket("s3://gone/p", s3.endpoint)
    for call in (lambda: gone.below("objects"), lambda: gone.put_if("key", b"", None), lambda: gone.get("key")):
        with pytest.raises(StoreError, match=r"store s3://gone/p: no such bucket\. Make it, or check the name"):
            call()
    monkeypatch.setattr(buckets, "READ_S", 0.05)
    monkeypatch.setattr(buckets, "RETRIES", 0)
    s3.faults.slow_s = 0.5
    with pytest.raises(StoreError, match=r"no answer within 0\.05 s|no answer"):
        open_bucket("s3://b/p", s3.endpoint).get("key")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://b/p",
        "s3://",
        "s3:///p",
        "s3://b/../p",
        "s3://b/a b",
        "s3://key:secret@b/p",
        "s3://b/p?X-Amz-Signature=secret",
        "az://b/p#secret",
        "s3://b:99/p",
        "S3//b",
        "s3://[b/p",
    ],
)
def test_a_url_that_is_no_place_for_a_store_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "endpoint", ["http://user:secret@127.0.0.1:1", "user:secret@host", "http://[secret", "secret", "http://h/\nsecret"]
)
@pytest.mark.usefixtures("s3")
def test_a_server_that_is_no_plain_address_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(ConfigError, match=r"^AWS_ENDPOINT_URL: not the plain address") as told:
        mirror("s3://b/p")
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"])
@pytest.mark.usefixtures("s3")
def test_a_key_with_a_line_end_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "hidden\r")
    with pytest.raises(ConfigError, match=f"^{name}: a key with") as told:
        mirror("s3://b/p")
    assert "hidden" not in str(told.value)


@pytest.mark.parametrize("key", ["objects//x", "objects/../x", "objects/\x1bx"])
def test_a_key_that_no_path_can_have_is_told(s3: S3, bucket: Bucket, key: str) -> None:
    s3.blobs[f"team/p/{key}"] = Blob(b"")
    with pytest.raises(StoreError, match="Remove that object") as told:
        bucket.below("objects")
    assert str(told.value).isprintable()


def test_a_url_has_one_way_of_writing() -> None:
    assert check_url("s3://b/p/") == check_url("s3://b//p") == "s3://b/p"
    assert check_url("gs://b") == "gs://b"


def test_keys_come_from_the_files_of_amazons_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environment names none: by profile, with the region; a broken file is told without its lines."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".aws"
    folder.mkdir()
    (folder / "credentials").write_text(
        "[default]\naws_access_key_id = A\naws_secret_access_key = S\n"
        "[work]\naws_access_key_id = W\naws_secret_access_key = T\naws_session_token = U\n"
    )
    (folder / "config").write_text(
        "[default]\nregion = eu-west-1\n[profile work]\nregion = eu-north-1\ns3 =\n  a = b\n"
    )
    assert aws_profile({}) == {"access_key_id": "A", "secret_access_key": "S", "region": "eu-west-1"}
    work = {"access_key_id": "W", "secret_access_key": "T", "session_token": "U", "region": "eu-north-1"}
    assert aws_profile({"AWS_PROFILE": "work"}) == work
    assert aws_profile({"AWS_ACCESS_KEY_ID": "X", "AWS_REGION": "r"}) == {}
    (folder / "credentials").write_text("aws_secret_access_key = secret\n")
    with pytest.raises(ConfigError, match="not a file of profiles") as caught:
        aws_profile({})
    assert "secret\n" not in str(caught.value)
    assert "= secret" not in str(caught.value)


def test_requests_are_signed_by_the_profile(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    (tmp_path / "home/.aws").mkdir(parents=True)
    (tmp_path / "home/.aws/credentials").write_text("[default]\naws_access_key_id=file-key\naws_secret_access_key=s\n")
    open_bucket("s3://b/p", s3.endpoint).below("objects")
    assert s3.signed_by == {"file-key"}


def test_a_mirror_is_one_folder_for_each_url_and_server(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder and file:// are themselves; the mirror goes on working by its path, with the server it was made for."""
    here = mirror("s3://b/p")
    assert mirror("s3://b/p/") == here != mirror("s3://b/q")
    assert folder_of("some/folder") == Path("some/folder")
    assert folder_of("file:///some/folder") == Path("/some/folder")
    assert remote_of(Path("some/folder")) is None
    assert shown(here) == "s3://b/p"
    assert shown(Path("some/folder")) == "some/folder"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    other = mirror("s3://b/r")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    assert mirror("s3://b/r") != other
    with pytest.raises(ConfigError, match=r"mirror of s3://b/r at http://127\.0\.0\.1:1"):
        remote_of(other)


@pytest.mark.usefixtures("s3")
def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_spec(_name: str) -> None:
        return None

    monkeypatch.setattr(buckets, "find_spec", no_spec)
    with pytest.raises(ConfigError, match=r"obstore is not installed.*pip install 'sft-toolkit\[remote\]'"):
        mirror("s3://b/p")
    assert not (Path(os.environ["SFT_CACHE"]) / "stores").exists()


def put_object(s3: S3, content: bytes, name: str | None = None) -> str:
    found = name or hashlib.sha256(content).hexdigest()
    s3.blobs[f"team/p/{object_key(found)}"] = Blob(content)
    return found


def test_an_object_is_fetched_once_and_checked(s3: S3, remote: Remote) -> None:
    sha256 = put_object(s3, b"some rows")
    remote.hold(sha256)
    remote.hold(sha256)
    assert (remote.root / object_key(sha256)).read_bytes() == b"some rows"
    assert len([key for method, key in s3.asked if method == "GET" and sha256 in key]) == 1
    assert list((remote.root / "tmp").iterdir()) == []


def test_an_object_with_other_bytes_is_refused(s3: S3, remote: Remote) -> None:
    """It is asked for twice, since a line can go wrong; then it is the storage. Nothing of it stays here."""
    sha256 = put_object(s3, b"other bytes", name="ab" * 32)
    with pytest.raises(CorruptObjectError, match=r"object objects/ab/.* in s3://b/team/p: its bytes have the sha256"):
        remote.hold(sha256)
    assert not (remote.root / object_key(sha256)).exists()
    with pytest.raises(CorruptObjectError, match="missing"):
        remote.hold("cd" * 32)


def test_a_bad_download_is_fetched_again(s3: S3, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = put_object(s3, b"some rows")
    download = Bucket.download
    seen: list[str] = []

    def bad_once(self: Bucket, key: str, to: Path) -> str | None:
        seen.append(key)
        if len(seen) == 1:
            to.write_bytes(b"sone rows")
            return file_sha256(to)
        return download(self, key, to)

    monkeypatch.setattr(Bucket, "download", bad_once)
    remote.hold(sha256)
    assert len(seen) == 2
    assert (remote.root / object_key(sha256)).read_bytes() == b"some rows"


def test_keys_that_are_no_names_of_ours_are_left_alone(s3: S3, remote: Remote) -> None:
    """A bucket is anybody's: nothing is written outside the mirror, whatever its keys are called."""
    for key in (
        "datasets/a b/versions/000001.json",
        "datasets/d/versions/1.json",
        "datasets/d/versions/x/000001.json",
        "datasets/d/versions/0000001.json",
        "runs/..x/a.json",
        "runs/.hidden.json",
    ):
        s3.blobs[f"team/p/{key}"] = Blob(b"{}")
    assert remote.datasets() == ["d"]
    assert remote.versions("d") == []
    assert remote.versions("../d") == []
    remote.bring_runs()
    assert not (remote.root / "runs").exists()


def test_a_mirror_that_came_from_elsewhere_is_not_followed(s3: S3, tmp_path: Path) -> None:
    """Else somebody's folder would have us send signed requests to a server of his choice."""
    (tmp_path / "gift").mkdir()
    (tmp_path / "gift/remote.json").write_text(f'{{"url": "s3://b/gift", "endpoint": "{s3.endpoint}"}}')
    with pytest.raises(ConfigError, match=r"not one of this machine's.*Name the store by its URL"):
        remote_of(tmp_path / "gift")
    assert s3.asked == []


def test_a_small_file_that_is_not_small_is_refused(s3: S3, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "MAX_BYTES", 10)
    s3.blobs["team/p/runs/r.json"] = Blob(b"more than that")
    with pytest.raises(StoreError, match=r"runs/r\.json in s3://b/team/p: too large"):
        bucket.get("runs/r.json")


@pytest.mark.usefixtures("s3")
def test_a_damaged_mirror_says_what_to_remove() -> None:
    root = mirror("s3://b/damaged")
    (root / "remote.json").write_text("{")
    with pytest.raises(SftError, match=r"remote\.json: not what it was written as.*Remove the mirror"):
        remote_of(root)
