"""Which Argilla is spoken to: the one that is named, else the store's own, else an error that names both ways."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from curate.review import client
from curate.review.connection import KEY_VARIABLE, URL_VARIABLE, connect_for
from curate.review.server import process
from schemas.errors import ConfigError


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
    assert asked == [("http://127.0.0.1:6900", "secret", "review")] * 2
    with pytest.raises(ConfigError, match=KEY_VARIABLE):
        connect_for(tmp_path, "http://other.example")


def test_without_any_server_both_ways_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"sft curate review serve, or set {URL_VARIABLE}"):
        connect_for(tmp_path)
