"""`sft curate review push` as a person types it."""

from pathlib import Path

import pytest

from tests.cli.conftest import Sft


@pytest.fixture
def mix(sft: Sft, alpaca: Path, monkeypatch: pytest.MonkeyPatch) -> Sft:
    for variable in ("ARGILLA_API_URL", "ARGILLA_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    sft("curate", "ingest", "alpaca", str(alpaca), "--name", "mix")
    return sft


PUSH = ("curate", "review", "push", "mix")


def test_a_dry_run_shows_what_would_be_sent_and_needs_no_server(mix: Sft) -> None:
    said = mix(*PUSH, "--select", "random", "--n", "5", "--dry-run")
    assert "nothing was sent" in said.out
    assert "lamps is lit" in said.out
    assert "drawn by chance" in said.out


def test_a_dry_run_as_json_has_all_cards_and_the_guidelines(mix: Sft) -> None:
    found = mix(*PUSH, "--select", "random", "--n", "5", "--dry-run", "--json").json
    assert found["chosen"] == len(found["cards"]) == 5
    assert found["by_source"] == {"alpaca": {"found": 40, "chosen": 5}}
    assert "lamps" in found["cards"][0]["fields"]["conversation"][0][1]
    assert found["guidelines"]


def test_without_a_server_both_ways_to_one_are_named(mix: Sft) -> None:
    said = mix(*PUSH, code=2)
    assert said.err.startswith("error: Argilla: none runs")
    assert "sft curate review serve" in said.err
    assert "ARGILLA_API_URL" in said.err


def test_a_server_that_is_down_is_one_line(mix: Sft, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGILLA_API_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ARGILLA_API_KEY", "key")
    assert "no answer" in mix(*PUSH, code=2).err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--select", "best"), "no such choice"),
        (("--select", "cluster"), "sft curate dedup mix"),
        (("--source", "dolly"), "one of alpaca"),
        (("--blind", "--refresh"), "--dataset"),
        (("--n", "0"), "--n"),
        (("--guidelines", "none.md"), "none.md"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_sent(mix: Sft, options: tuple[str, ...], said: str) -> None:
    found = mix(*PUSH, *options, "--dry-run", code=2)
    assert said in found.err
    assert "Traceback" not in found.err
