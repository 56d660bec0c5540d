"""Which Argilla is spoken to: the one that is named, else the store's own, else an error that names both ways."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from curate.review import client
from curate.review.client import connect
from curate.review.connection import KEY_VARIABLE, URL_VARIABLE, connect_for
from curate.review.server import process
from schemas.errors import ConfigError, ReviewError


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """Note what is connected to, in place of it."""
    calls: list[tuple[str, str, str]] = []
    monkeypatch.setattr(client, "connect", lambda *given: calls.append(given))
    for variable in (URL_VARIABLE, KEY_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    return calls


def test_the_url_that_is_named_stands_above_the_environment(
    monkeypatch: pytest.MonkeyPatch, asked: list[tuple[str, str, str]], tmp_path: Path
) -> None:
    monkeypatch.setenv(URL_VARIABLE, "http://one.example")
    monkeypatch.setenv(KEY_VARIABLE, "key")
    connect_for(tmp_path)
    connect_for(tmp_path, "http://two.example", "team")
    assert asked == [("http://one.example", "key", "review"), ("http://two.example", "key", "team")]


def test_a_url_without_a_key_is_an_error_that_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=KEY_VARIABLE):
        connect_for(tmp_path, "http://one.example")


def test_the_store_s_own_server_is_used_where_no_other_is_named(
    monkeypatch: pytest.MonkeyPatch, asked: list[tuple[str, str, str]], tmp_path: Path
) -> None:
    """Also where it is named without a key: the store has it."""
    own = SimpleNamespace(url="http://127.0.0.1:6900/", owner=SimpleNamespace(api_key="secret"))
    monkeypatch.setattr(process, "find", lambda _home: own)
    connect_for(tmp_path)
    connect_for(tmp_path, "http://127.0.0.1:6900")
    connect_for(tmp_path, "http://localhost:6900/")
    assert {key for _, key, _ in asked} == {"secret"}
    assert [url.rstrip("/") for url, _, _ in asked] == ["http://127.0.0.1:6900"] * 2 + ["http://localhost:6900"]
    with pytest.raises(ConfigError, match=KEY_VARIABLE):
        connect_for(tmp_path, "http://other.example")


@pytest.mark.parametrize("key", ["top\nsecret", "schlüssel", "a\x00b"])
def test_what_cannot_be_a_key_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, asked: list[tuple[str, str, str]], tmp_path: Path, key: str
) -> None:
    monkeypatch.setattr("os.environ", {URL_VARIABLE: "http://one.example", KEY_VARIABLE: key})
    with pytest.raises(ConfigError, match=KEY_VARIABLE) as raised:
        connect_for(tmp_path)
    assert key not in str(raised.value)
    assert asked == []


def test_the_end_of_a_line_after_a_key_is_no_part_of_it(
    monkeypatch: pytest.MonkeyPatch, asked: list[tuple[str, str, str]], tmp_path: Path
) -> None:
    """As files written on Windows have it."""
    monkeypatch.setenv(KEY_VARIABLE, "key\r\n")
    connect_for(tmp_path, "http://one.example")
    assert asked == [("http://one.example", "key", "review")]


@pytest.mark.parametrize("url", ["http://[::1", "localhost:6900", "ftp://127.0.0.1", "http://127.0.0.1:9"])
def test_an_address_that_cannot_be_one_is_one_line(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Also behind a proxy: one stands before others' machines, and the SDK asks none."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with pytest.raises(ReviewError, match="no answer"):
        connect(url, "key", "review")


def test_without_any_server_both_ways_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"sft curate review serve, or set {URL_VARIABLE}"):
        connect_for(tmp_path)
