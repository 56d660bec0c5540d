"""`sft diff`: the verdict first, every output at once where that makes sense, exit code 1 where a gate is broken."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Said, Sft


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the store that the first test makes, and the others copy."""
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def versions(sft: Sft, tmp_path: Path, made: Path) -> Sft:
    """Two versions, mix@2 and mix@3: three rows are edited by a rule and one is left out by another; one row is new."""
    if any(made.iterdir()):
        shutil.copytree(made, tmp_path, dirs_exist_ok=True)
        return sft
    rows: list[dict[str, Any]] = [
        {
            "instruction": f"Which of the {i} lamps is lit?",
            "input": "No input" if i < 3 else "",
            "output": f"Lamp {i} is.",
        }
        for i in range(12)
    ]
    file, more = tmp_path / "a.json", tmp_path / "b.json"
    file.write_text(json.dumps([*rows, {"instruction": "Which is <b>dark</b>?", "input": "", "output": ""}]))
    more.write_text(json.dumps([{"instruction": "Which one burns?", "input": "", "output": "The one on the mole."}]))
    sft("curate", "ingest", "alpaca", str(file), "--name", "mix", "--license", "CC-BY-NC-4.0")
    sft("curate", "ingest", "alpaca", str(more), "--name", "mix", "--source", "more")
    sft("curate", "rules", "mix")
    shutil.copytree(tmp_path, made, dirs_exist_ok=True)
    return sft


def test_it_says_what_changed_and_what_made_it(versions: Sft) -> None:
    said = versions("diff", "mix@2", "mix@3")
    lines = said.out.splitlines()
    assert lines[0] == "mix@2 (1.1.0) -> mix@3 (2.0.0): a major change; a trainer does not see it"
    assert lines[1].strip() == "1 row that was kept is rejected now (by rules)."
    assert "fix:placeholder_context" in said.out
    assert "context: [-No input-]" in said.out
    assert "rule:empty_response" in said.out
    assert said.err == ""


def test_the_json_has_everything_and_nothing_else_is_on_stdout(versions: Sft) -> None:
    told = versions("diff", "mix@2", "mix@3", "--json").json
    assert {w: n for w, n in told["counts"].items() if n} == {"edited": 3, "rejected": 1}
    assert (told["after"]["kept"], told["verdict"]["bump"], told["gates"]) == (13, "major", [])
    assert {c["word"]: c["stage"] for c in told["changes"]} == {"edited": "rules", "rejected": "rules"}


def test_the_page_is_written_beside_any_other_output(versions: Sft, tmp_path: Path) -> None:
    for option in ((), ("--json",), ("--markdown",)):
        page = tmp_path / "page.html"
        said = versions("diff", "mix@2", "mix@3", "--html", str(page), *option)
        assert page.read_text().startswith("<!")
        assert "<b>dark</b>" not in page.read_text()
        assert said.err.strip() == f"wrote {page}"
        page.unlink()
    assert list(tmp_path.glob(".*.tmp")) == []


def test_a_page_that_cannot_be_written_is_one_line(versions: Sft, tmp_path: Path) -> None:
    said = versions("diff", "mix@2", "mix@3", "--html", str(tmp_path / "no" / "page.html"), code=2)
    assert said.err.startswith("error: --html")
    assert "its folder is not there" in said.err
    assert versions("diff", "mix@2", "mix@3", "--html", str(tmp_path), code=2).err.startswith("error: --html")


def test_markdown_and_json_exclude_each_other(versions: Sft) -> None:
    assert "both print on stdout" in versions("diff", "mix@2", "mix@3", "--json", "--markdown", code=2).err
    markdown = versions("diff", "mix@2", "mix@3", "--markdown").out
    assert markdown.startswith("### `mix@2` → `mix@3`: **major** change")


def test_a_broken_gate_is_exit_code_1_with_the_rule_the_value_and_the_rows(versions: Sft) -> None:
    said = versions(
        "diff", "mix@2", "mix@3", "--fail-on", "rejected(alpaca, rules) > 0", "--fail-on", "leaks > 0", code=1
    )
    assert said.err == "error: 1 of 2 gates: broken by this diff: rejected(alpaca, rules) > 0 (1)\n"
    assert "Rows that broke rejected(alpaca, rules) > 0" in said.out
    assert "alpaca:13" in said.out
    told = versions("diff", "mix@2", "mix@3", "--json", "--fail-on", "edited > 2", code=1).json
    assert [gate["broken"] for gate in told["gates"]] == [True]
    assert len(told["gates"][0]["rows"]) == 3


def test_gates_that_are_kept_are_exit_code_0(versions: Sft, tmp_path: Path) -> None:
    file = tmp_path / "gates.toml"
    file.write_text('[gates]\n"few rows go" = "removed > 2%"\n')
    said = versions("diff", "mix@2", "mix@3", "--gates", str(file), "--fail-on", "edited > 50%")
    assert "few rows go" in said.out
    file.write_text('[gates]\n"no edits" = "edited > 0"\n')
    said = versions("diff", "mix@2", "mix@3", "--gates", str(file), code=1)
    assert "no edits: edited > 0 (3)" in said.err


@pytest.mark.parametrize("rule", ["remved > 2", "removed(nobody) > 2%", "removed >"])
def test_a_slip_in_a_rule_is_one_line_and_exit_code_2(versions: Sft, rule: str) -> None:
    said = versions("diff", "mix@2", "mix@3", "--fail-on", rule, code=2)
    assert said.err.startswith(f"error: rule {rule!r}: at ")
    assert (said.err.count("\n"), said.out) == (1, "")


def test_a_version_and_itself_do_not_differ(versions: Sft) -> None:
    said = versions("diff", "mix@3", "mix", "--fail-on", "changed > 0")
    assert said.out.splitlines()[0] == "mix@3 (2.0.0) -> mix@3 (2.0.0): the same version"
    assert "Nothing differs." in said.out


def test_two_datasets_compare_and_it_says_so(versions: Sft, tmp_path: Path) -> None:
    versions("curate", "ingest", "alpaca", str(tmp_path / "a.json"), "--name", "other")
    said = versions("diff", "mix@1", "other")
    assert "mix and other are two datasets: rows are the same where their source and key are." in said.out


def test_a_reference_that_there_is_not_is_one_line(versions: Sft) -> None:
    said: Said = versions("diff", "mix@1", "mix@9", code=2)
    assert "no version '9'" in said.err


def test_a_setting_cannot_steer_the_terminal(versions: Sft) -> None:
    versions("curate", "split", "mix")
    versions("curate", "split", "mix", "--salt", "\x1b[2Jother")
    said = versions("diff", "mix@4", "mix@5")
    assert "[2Jother" in said.out
    assert "\x1b" not in said.out


def test_attribution_by_replay_says_which_key(versions: Sft) -> None:
    """With one setting that differs, the key that is named is the one that was changed."""
    versions("curate", "signals", "mix")
    versions("curate", "signals", "mix", "--good-response-words", "2")
    told = versions("diff", "mix@4", "mix@5", "--attribute", "--json").json
    assert {key for change in told["changes"] for key in change["keys"]} == {"signals.good_response_words"}
