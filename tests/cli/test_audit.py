"""What a person sees of the audit: tables, one JSON object, errors in one line."""

from pathlib import Path

import pytest

from tests.cli.conftest import Sft


@pytest.fixture
def mix(sft: Sft, alpaca: Path) -> Sft:
    sft("curate", "ingest", "alpaca", str(alpaca), "--name", "mix")
    return sft


def test_the_audit_says_what_would_be_trained(mix: Sft) -> None:
    said = mix("curate", "audit", "mix", "--tokenizer", "tiny")
    assert "40 of 40 kept rows can be trained on" in said.out
    assert "of the tokens are targets" in " ".join(said.out.split())
    assert "Rows by length" in said.out
    assert "█" in said.out
    assert "(no split)" in said.out
    assert "no chat template: using ChatML" in said.err


def test_json_has_all_of_it_and_nothing_else_on_stdout(mix: Sft) -> None:
    mix("curate", "split", "mix")
    told = mix("curate", "audit", "mix", "--tokenizer", "tiny", "--json", "--max-tokens", "20").json
    assert (told["name"], told["rows"], told["usable"], told["refused"]) == ("mix", 40, 0, {"overlong": 40})
    assert told["cut_before_stop"] == 40
    assert set(told["by_split"]) == {"train", "val", "test"}
    assert set(told["by_source"]) == {"alpaca"}
    assert len(told["refused_rows"]) == 40
    assert {"id", "source", "split", "reason", "detail", "tokens"} == set(told["refused_rows"][0])


def test_rows_names_the_first_refused_ones(mix: Sft) -> None:
    said = mix("curate", "audit", "mix", "--tokenizer", "tiny", "--max-tokens", "20", "--rows", "2")
    assert said.out.count("the context holds 20") == 2


def test_nothing_is_committed(mix: Sft) -> None:
    before = mix("log", "mix", "--json").out
    mix("curate", "audit", "mix", "--tokenizer", "tiny")
    assert mix("log", "mix", "--json").out == before


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("mix", "--tokenizer", "./nothing"), "no such folder"),
        (("nix", "--tokenizer", "tiny"), "nix"),
    ],
)
def test_bad_input_is_one_line(mix: Sft, args: tuple[str, ...], says: str) -> None:
    said = mix("curate", "audit", *args, code=2)
    assert said.err.startswith("error: ")
    assert says in said.err
    assert "Traceback" not in said.err


def test_decontaminate_needs_an_evaluation_set_and_names_what_it_found(mix: Sft, tmp_path: Path) -> None:
    assert "--eval: not given" in mix("curate", "decontaminate", "mix", code=2).err
    (tmp_path / "exam.jsonl").write_text('{"id": "q1", "question": "Which of the 7 lamps is lit?"}\n')
    said = mix("curate", "decontaminate", "mix", "--eval", "exam.jsonl")
    assert "contaminated:eval" in said.out
    assert '100% of exam q1 in the prompt: "Which of the 7 lamps is lit"' in said.err
    again = mix("curate", "decontaminate", "mix", "--eval", "exam.jsonl")
    assert "nothing has changed" in again.out
