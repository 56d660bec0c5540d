"""The hub: what is pushed lies there as it was written, once; and each refusal is one clear line."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download

from curate.publish.facts import Facts
from curate.publish.hub import Pushed, check_licences, dataset_repo, page_of, push
from curate.publish.layout import Published, publish
from schemas.dataset import Dataset
from schemas.errors import ConfigError, SftError, StoreError
from schemas.manifest import Source
from tests.curate.publish.conftest import ABOUT, version
from tests.hub import Hub, Repo, serve

TOKEN = "hf_only_for_this_test"  # noqa: S105 # the server takes any

Push = Callable[..., Pushed]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub on this machine, and a login to it. Files go by LFS: Xet speaks to a storage server of its own."""
    with serve() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        yield running


@pytest.fixture
def sent(hub: Hub, published: Published) -> Push:  # noqa: ARG001 # the hub must run
    """Push the version to acme/fens."""

    def call(done: Published = published, **options: object) -> Pushed:
        settings = {"private": False, "unlicensed": False, "revision": "main", "message": None} | options
        return push(done.files[0].parent, done.facts, "acme/fens", **settings)  # pyright: ignore[reportArgumentType] # by name

    return call


def test_the_files_lie_on_the_hub_as_they_were_written(
    hub: Hub, sent: Push, published: Published, tmp_path: Path
) -> None:
    done = sent()
    folder = published.files[0].parent
    names = {path.relative_to(folder).as_posix(): path for path in published.files}
    assert set(hub.repos["acme/fens"].files) == set(names)
    for name, path in names.items():
        got = hf_hub_download(
            "acme/fens", name, repo_type="dataset", endpoint=hub.url, cache_dir=tmp_path / "cache", token=TOKEN
        )
        assert Path(got).read_bytes() == path.read_bytes()
    assert done.changed
    assert done.url == page_of("acme/fens") == f"{hub.url}/datasets/acme/fens"


def test_it_is_one_commit_that_names_version_and_manifest(hub: Hub, sent: Push, published: Published) -> None:
    sent()
    assert hub.repos["acme/fens"].messages == [f"wet {published.facts.version}"]
    sent(message="again", revision="spring")
    assert "spring" in hub.repos["acme/fens"].branches


def test_the_same_version_is_not_committed_again(hub: Hub, sent: Push) -> None:
    first, again = sent(), sent()
    assert (again.changed, again.commit) == (False, first.commit)
    assert len(hub.repos["acme/fens"].messages) == 1


def test_files_of_an_earlier_version_go_and_others_stay(hub: Hub, sent: Push) -> None:
    sent()
    files = hub.repos["acme/fens"].files
    files.update({"data/train-00001-of-00002.parquet": b"old", "data/extra.csv": b"mine", "NOTES.md": b"mine"})
    done = sent(message="next")
    assert done.removed == ("data/train-00001-of-00002.parquet",)
    assert files["data/extra.csv"] == files["NOTES.md"] == b"mine"
    assert done.changed


def test_the_token_is_that_of_the_environment(hub: Hub, sent: Push) -> None:
    sent()
    assert {token for token in hub.tokens if token} == {f"Bearer {TOKEN}"}


def test_without_a_token_nothing_is_asked(hub: Hub, sent: Push, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ConfigError, match="no token; expected HF_TOKEN, or a login"):
        sent()
    assert hub.asked == []


@pytest.mark.parametrize("token", ["hf_secret\x01", "hf_secret ü", "hf secret"])
def test_a_token_that_is_none_is_not_repeated(
    hub: Hub, sent: Push, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ConfigError, match="a token with blanks or characters that no token has") as told:
        sent()
    assert "secret" not in str(told.value)
    assert hub.asked == []


def test_private_makes_it_private_and_refuses_what_is_public(hub: Hub, sent: Push) -> None:
    sent(private=True)
    assert hub.repos["acme/fens"].private
    hub.repos["acme/fens"].private = False
    with pytest.raises(ConfigError, match="public already"):
        sent(private=True)


@pytest.fixture
def unlicensed(tmp_path: Path) -> Published:
    sources = {"fens": Source(name="fens", format="test")}
    return publish(version(tmp_path / "s", sources, fens=3), tmp_path / "unlicensed")


def test_rows_without_a_licence_become_public_only_by_will(hub: Hub, sent: Push, unlicensed: Published) -> None:
    with pytest.raises(ConfigError, match=r"no licence is stated for fens.*--unlicensed"):
        check_licences(unlicensed.facts, private=False, unlicensed=False)
    hub.repos["acme/fens"] = Repo(private=False)
    with pytest.raises(ConfigError, match="no licence is stated for fens"):
        sent(unlicensed)
    assert hub.repos["acme/fens"].files == {}
    sent(unlicensed, unlicensed=True)
    assert hub.repos["acme/fens"].files
    hub.repos["acme/fens"] = Repo(private=True)
    assert sent(unlicensed).changed


@pytest.mark.parametrize(
    ("refused", "line"),
    [
        (("repos/create", 401, ""), "401, the token is not accepted"),
        (("repos/create", 403, ""), "403, the token may not write there"),
        (("preupload", 403, ""), "403, the token may not write there"),
        (("preupload", 404, "RepoNotFound"), "404, not there"),
        (("commit/main", 412, ""), "412, somebody else committed meanwhile"),
        (("info/lfs", 403, ""), "403, the token may not write there"),
        (("/lfs/", 400, ""), "400 of the hub"),
        (("validate-yaml", 400, ""), "the push failed (Invalid metadata in README.md)"),
    ],
)
def test_a_refusal_is_one_line(hub: Hub, sent: Push, refused: tuple[str, int, str], line: str) -> None:
    part, status, code = refused
    hub.refuse[part] = (status, code)
    with pytest.raises(SftError) as told:
        sent()
    assert line in str(told.value)
    assert "acme/fens" in str(told.value)
    assert "\n" not in str(told.value)
    assert TOKEN not in str(told.value)


def test_a_repository_of_another_kind_is_told(hub: Hub, sent: Push) -> None:
    hub.repos["acme/fens"] = Repo(private=False)
    hub.refuse["api/datasets/acme/fens"] = (404, "RepoNotFound")
    with pytest.raises(StoreError, match="there, but not as a dataset"):
        sent()


def test_a_hub_that_is_not_there_is_told(published: Published, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serve() as gone:
        pass
    monkeypatch.setenv("HF_ENDPOINT", gone.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(StoreError, match=f"{gone.url} cannot be reached"):
        push(published.files[0].parent, published.facts, "acme/fens", private=False, unlicensed=False, revision="main")


def test_what_the_hub_says_of_the_card_is_told(hub: Hub, sent: Push) -> None:
    hub.warns.append("empty metadata")
    assert "empty metadata" in "".join(sent().remarks)


def test_a_password_in_the_address_of_the_hub_is_not_told(
    published: Published, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with serve() as gone:
        pass
    host = gone.url.partition("://")[2]
    monkeypatch.setenv("HF_ENDPOINT", f"http://mara:p@ss@{host}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert page_of("acme/fens") == f"{gone.url}/datasets/acme/fens"
    with pytest.raises(StoreError, match="cannot be reached") as told:
        push(published.files[0].parent, published.facts, "acme/fens", private=False, unlicensed=False, revision="main")
    assert "p@ss" not in str(told.value)


@pytest.mark.parametrize("name", ["acme/fens", "datasets/acme/fens"])
def test_a_dataset_is_named_with_its_owner(name: str) -> None:
    assert dataset_repo(name) == "acme/fens"


@pytest.mark.parametrize(
    "name", ["fens", "spaces/acme/fens", "models/acme/fens", "acme/fens--x", "a/b/c", "", "acme/ü"]
)
def test_other_names_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(ConfigError) as told:
        dataset_repo(name)
    assert "\n" not in str(told.value)
    assert "OWNER/NAME" in str(told.value)


def test_an_upload_that_was_cut_off_goes_on(hub: Hub, sent: Push, published: Published) -> None:
    """The commit fails after the files went up: pushed again, they are not sent a second time."""
    hub.refuse["commit/main"] = (412, "")
    with pytest.raises(StoreError):
        sent()
    hub.refuse.clear()
    hub.asked.clear()
    sent()
    assert not [path for method, path in hub.asked if method == "PUT"]
    assert len(hub.repos["acme/fens"].files) == len(published.files)


def test_everything_stated_is_for_the_same_page_the_same(wet: Dataset, sent: Push, tmp_path: Path, hub: Hub) -> None:
    """Made anew in another folder, the version is still the one that lies there."""
    page = page_of("acme/fens")
    made: list[Facts] = []
    for name in ("one", "two"):
        done = publish(wet, tmp_path / name, about=ABOUT, page=page)
        made.append(done.facts)
        sent(done)
    assert len(hub.repos["acme/fens"].messages) == 1
