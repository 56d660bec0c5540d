"""`sft curate select` and `sft show --coverage`, as they are typed."""

from pathlib import Path

import pytest

from tests.cli.conftest import Sft


@pytest.fixture
def mix(sft: Sft, alpaca: Path) -> Sft:
    sft("curate", "ingest", "alpaca", str(alpaca), "--name", "mix")
    sft("curate", "signals", "mix")
    return sft


def test_select_tells_rows_tokens_cut_and_sources_and_commits(mix: Sft) -> None:
    said = mix("curate", "select", "mix", "--top", "0.25")
    assert "select: 40 rows in, 10 kept" in said.out
    assert "10 of 40 rows" in said.err
    assert "by source: alpaca 10 of 40 rows" in said.err
    assert "nothing has changed" in mix("curate", "select", "mix", "--top", "0.25").out


def test_amounts_are_typed_with_a_suffix_and_json_holds_the_counts(mix: Sft) -> None:
    found = mix("curate", "select", "mix", "--tokens", "0.2k", "--json").json
    assert found["kept"] + found["rejected"]["select:over_budget"] == 40
    assert found["committed"]


def test_the_reason_stands_in_why(mix: Sft) -> None:
    mix("curate", "select", "mix", "--rows", "1")
    told = [mix("why", "mix", f"alpaca:{row}").out for row in (1, 2)]
    assert any("select:over_budget" in text and "cut at" in text for text in told)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--top", "0.3", "--rows", "5"], "exclude each other"),
        (["--tokens", "5X"], "--tokens 5X"),
        (["--quota", "dolly=5"], "there is no source 'dolly'"),
        (["--diverse"], "sft curate score mix --embed MODEL"),
        (["--control", "random"], "control needs a budget"),
    ],
)
def test_what_cannot_be_is_one_line_and_commits_nothing(mix: Sft, options: list[str], said: str) -> None:
    failed = mix("curate", "select", "mix", *options, code=2)
    assert said in " ".join(failed.err.split())
    assert "Traceback" not in failed.err
    assert mix("log", "mix", "--json").json["versions"][0]["seq"] == 2


def test_coverage_shows_tasks_languages_lengths_and_what_is_thin(mix: Sft) -> None:
    said = mix("show", "mix", "--coverage").out
    assert "40 kept rows" in said
    assert "factual" in said
    assert "Which of the" in said
    assert "coding: none" in said
    found = mix("show", "mix", "--coverage", "--json").json
    assert found["rows"] == sum(task["rows"] for task in found["tasks"]) == 40
    assert found["languages"] == {"en": 40}


def test_coverage_before_the_signals_names_the_command(sft: Sft, alpaca: Path) -> None:
    sft("curate", "ingest", "alpaca", str(alpaca), "--name", "mix")
    assert "sft curate signals mix" in sft("show", "mix", "--coverage", code=2).err
