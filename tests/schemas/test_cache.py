"""The user's cache lies where the environment says."""

from pathlib import Path

import pytest

from schemas.cache import user_cache


@pytest.mark.parametrize(
    ("ours", "theirs", "found"),
    [
        ("/ours", "/theirs", "/ours"),
        ("~/ours", "/theirs", "/home/me/ours"),
        ("", "/theirs", "/theirs/sft"),
        ("", "", "/home/me/.cache/sft"),
        (None, None, "/home/me/.cache/sft"),
    ],
)
def test_our_own_variable_stands_above_the_user_s_and_an_empty_one_is_none(
    monkeypatch: pytest.MonkeyPatch, ours: str | None, theirs: str | None, found: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in (("SFT_CACHE", ours), ("XDG_CACHE_HOME", theirs)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert user_cache() == Path(found)


def test_a_relative_folder_is_one_from_here_wherever_a_command_goes_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SFT_CACHE", "mine")
    assert user_cache() == tmp_path / "mine"
