"""Licences, the log as a graph, a row's life, and restoring rows, as they are typed."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Sft


@pytest.fixture
def mix(sft: Sft, tmp_path: Path) -> Sft:
    """A dataset of one source whose first row is a placeholder, and whose second one commands the terminal."""
    rows = [
        {"instruction": "Which lamp is it?", "input": "", "output": "N/A"},
        {"instruction": "Show \x1b[2J and \u202eback", "input": "no input", "output": "It is shown here as it stands."},
        *({"instruction": f"Which is lamp {n}?", "input": "", "output": f"Lamp {n} is by door {n}."} for n in range(9)),
    ]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    sft("curate", "ingest", "alpaca", str(path), "--name", "mix", "--license", "MIT")
    sft("curate", "rules", "mix")
    return sft


def test_a_licence_that_spdx_does_not_know_is_told_and_no_error(sft: Sft, alpaca: Path) -> None:
    said = sft("curate", "ingest", "alpaca", str(alpaca), "--name", "mix", "--license", "bogus terms")
    assert "licence: 'bogus terms' is no SPDX identifier" in said.err
    said = sft("curate", "ingest", "alpaca", str(alpaca), "--name", "mix", "--license", "Apache 2", "--source", "b")
    assert "licence: 'Apache 2' was taken for Apache-2.0" in said.err


def test_show_tells_the_licence_of_each_source_and_of_the_kept_rows_together(mix: Sft) -> None:
    assert "The kept rows together: MIT (permissive). MIT allows commercial use" in mix("show", "mix").out
    shown = mix("show", "mix", "--json").json
    assert (shown["licence"]["kind"], shown["licences"]["alpaca"]["commercial"]) == ("permissive", True)


def test_a_licence_is_stated_anew_and_the_selection_that_goes_by_it_is_stale(mix: Sft) -> None:
    assert "10 kept" in mix("curate", "select", "mix", "--commercial").out
    said = mix("curate", "licence", "mix", "alpaca", "--license", "cc by nc 4.0", "--terms", "OpenAI terms")
    assert "alpaca: CC-BY-NC-4.0 (non-commercial). CC-BY-NC-4.0 allows no commercial use." in said.out
    assert "stale now, as they read what was changed: select" in said.err
    again = mix("curate", "licence", "mix", "alpaca", "--terms", "OpenAI terms", "--json").json
    assert (again["committed"], again["licence"]["terms"]) == (False, ["OpenAI terms"])
    said = mix("curate", "select", "mix", "--commercial")
    assert "licence: 10 rows of alpaca are left out: CC-BY-NC-4.0 allows no commercial use." in said.err
    assert "0 kept" in said.out
    assert "select:licence" in said.out


def test_the_log_is_a_graph_with_branches_and_runs(mix: Sft, tmp_path: Path) -> None:
    mix("curate", "signals", "mix@1", "-m", "a look at the first")
    mix("tag", "mix@2", "golden")
    run = {"run_id": "first", "dataset": "mix", "seq": 2, "loss_first": 2.5, "loss_last": 1.25}
    (tmp_path / "sft-data/runs").mkdir()
    (tmp_path / "sft-data/runs/first.json").write_text(json.dumps(run))
    lines = mix("log", "mix").out.splitlines()[1:]
    shapes = [
        "*   @3  3.0.0 major ",
        "| * @2  2.0.0 major ",
        "| |     trained by run first: loss 2.500 -> 1.250",
        "|/",
        "*   @1  1.0.0 first",
    ]
    assert all(line.startswith(shape) for line, shape in zip(lines, shapes, strict=True)), lines
    assert "a look at the first [signals]" in lines[0]
    assert "(golden) rules" in lines[1]
    versions = mix("log", "mix", "--json").json["versions"]
    assert [(v["seq"], v["parents"], v["children"]) for v in versions] == [(3, [1], []), (2, [1], []), (1, [], [2, 3])]
    assert versions[1]["runs"][0]["run_id"] == "first"
    assert all(len(line) <= 100 for line in lines)


def test_the_log_names_a_version_that_cannot_be_read_and_draws_the_others(mix: Sft, tmp_path: Path) -> None:
    (tmp_path / "sft-data/datasets/mix/versions/000002.json").write_text("{")
    said = mix("log", "mix", code=1)
    assert "1 version of mix" in said.out
    assert "cannot be read: manifest" in said.err


def test_why_tells_a_life_and_its_versions_and_commands_no_terminal(mix: Sft) -> None:
    text = mix("why", "mix", "alpaca:2").out
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "Show ␛[2J and \ufffdback" in text
    assert "context: [-no input-]" in text
    assert "license MIT" in text
    assert text.rstrip().splitlines()[-3:][0] == "Through the versions"
    assert text.rstrip().endswith("edited (rules)")


def test_restore_keeps_rows_tells_it_everywhere_and_is_taken_back(mix: Sft, tmp_path: Path) -> None:
    said = mix("curate", "restore", "mix", "alpaca:1", "--by", "anna", "--because", "fair enough")
    assert "1 rows restored" not in said.out
    assert "1 row restored" in said.out
    assert "rule:placeholder_response" in said.out
    assert "committed mix@3" in said.out
    assert "sft diff mix@2 mix" in said.out
    assert "kept (restored by anna: fair enough)" in mix("why", "mix", "alpaca:1").out
    (tmp_path / "rows.txt").write_text("alpaca:1  # the placeholder\n\nalpaca:2\n")
    again = mix("curate", "restore", "mix", "--from", "rows.txt", "--json").json
    assert (again["committed"], again["restored"]) == (False, [])
    assert [row["why"] for row in again["left"]] == ["is kept already", "is kept already"]
    undone = mix("curate", "restore", "mix", "alpaca:1", "--undo", "--json").json
    assert (undone["committed"], undone["undone"][0]["source_row"]) == (True, 1)
    assert mix("show", "mix", "--json").json["kept"] == 10


def test_rows_are_read_from_stdin(mix: Sft, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("alpaca:1\n"))
    assert mix("curate", "restore", "mix", "-", "--json").json["restored"][0]["source_row"] == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["mix"], "no row is named"),
        (["mix", "alpaca:1", "alpaca:77"], "row 'alpaca:77': not in mix@2"),
        (["mix", "--from", "nowhere.txt"], "--from nowhere.txt: No such file or directory"),
        (["mix", "alpaca:1", "--undo", "--by", "anna"], "--undo takes no --by"),
        (["nope", "alpaca:1"], "dataset 'nope'"),
    ],
)
def test_what_is_typed_wrong_is_one_line_and_commits_nothing(mix: Sft, words: list[str], told: str) -> None:
    said = mix("curate", "restore", *words, code=2)
    assert told in said.err
    assert "Traceback" not in said.err
    assert len(mix("log", "mix", "--json").json["versions"]) == 2
