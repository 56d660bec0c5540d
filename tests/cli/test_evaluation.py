"""`sft eval` and `sft generate`, as a person would type them: what they print, what they leave, how they say no."""

import io
import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cli.evaluation import _fresh
from schemas.record import Message, Record
from tests.cli.conftest import Sft
from train.evaluation import generation

EVAL = ("--device", "cpu", "--new-tokens", "12")


@pytest.fixture
def run(sft: Sft, finished: Path, tmp_path: Path) -> str:  # noqa: ARG001 # its folder is where commands run
    """The folder of a finished run; its store lies beside it."""
    shutil.copytree(finished / "runs", tmp_path / "runs")
    shutil.copytree(finished / "sft-data", tmp_path / "sft-data")
    shutil.copy(finished / "rows.jsonl", tmp_path)
    return "runs/first"


def test_eval_tells_a_person_and_leaves_all_answers_the_measures_and_a_page(sft: Sft, run: str, tmp_path: Path) -> None:
    said = sft("eval", "runs/first", *EVAL)
    for word in (
        "verdict: better than its base",
        "Token F1",
        "ROUGE-L",
        "BLEU",
        "Never stopped",
        "Samples",
        "reference",
    ):
        assert word in said.out
    folder = tmp_path / run / "eval"
    summary = json.loads((folder / "test-1.json").read_text())
    rows = [json.loads(line) for line in (folder / "test-1.jsonl").read_text().splitlines()]
    assert len(rows) == summary["all"]["records"] == summary["all"]["answered"]
    assert summary["data"]["dataset"].startswith("mix@")
    whole = summary["all"]["measures"]
    assert whole["perplexity"]["tuned"] < whole["perplexity"]["base"] / 2
    assert whole["token_f1"]["tuned"] > 0.5 > whole["token_f1"]["base"]
    assert whole["token_f1"]["low"] > 0
    assert summary["by_category"]["number"]["records"] == len(rows)
    assert "<h1" in (folder / "test-1.html").read_text()


def test_eval_again_asks_nothing_and_writes_the_same_files(
    sft: Sft, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / run / "eval"
    first = sft("eval", run, *EVAL, "--json").json
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    monkeypatch.setattr(generation, "_generate", None)
    again = sft("eval", run, *EVAL, "--json").json
    assert again == first
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    fewer = sft("eval", run, *EVAL, "--limit", "3", "--no-base", "--json").json
    assert fewer["all"]["answered"] == 3
    assert fewer["files"]["account"].endswith("test-2.json")
    assert "base" not in fewer["all"]["measures"]["loss"]


def test_an_interrupted_eval_keeps_its_answers_and_goes_on(
    sft: Sft, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = generation._generate, list[int]()

    def stopped(*args: Any, **settings: Any) -> Any:
        calls.append(len(args[2]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(*args, **settings)

    monkeypatch.setattr(generation, "_generate", stopped)
    small = ("--batch-tokens", "200")
    said = sft("eval", run, *EVAL, *small, code=130)
    assert f"interrupted; {sum(calls[:2])} answers are kept" in said.err
    assert not (tmp_path / run / "eval" / "test-1.json").exists()
    asked = list[int]()
    monkeypatch.setattr(generation, "_generate", lambda *a, **k: (asked.append(len(a[2])), plain(*a, **k))[1])
    whole = sft("eval", run, *EVAL, *small, "--json").json
    assert sum(asked) == 2 * whole["all"]["answered"] - sum(calls[:2])


def test_rows_that_were_trained_on_are_left_out_of_another_dataset(sft: Sft, run: str) -> None:
    """The same file under another name: ids differ, texts do not."""
    sft("curate", "ingest", "dolly", "rows.jsonl", "--name", "copy", "--source", "other")
    sft("curate", "split", "copy")
    said = sft("eval", run, *EVAL, "--manifest", "copy", "--store", "sft-data", "--no-base", "--json")
    found = said.json["data"]
    assert found["dataset"] == "copy@2"
    assert 0 < found["seen_in_training"] < found["rows"]
    assert said.json["all"]["records"] == found["rows"] - found["seen_in_training"]
    assert "were trained on (same id or text) and are left out" in found["notes"][0]
    own = sft("eval", run, *EVAL, "--split", "train", "--limit", "4", "--no-base")
    assert "the numbers say what was memorised" in own.err


def test_replayed_rows_were_trained_on_too(tmp_path: Path) -> None:
    known = pl.DataFrame({"id": ["a", "b", "c"], "split": ["train", "val", "replay"]})
    known.write_ipc(tmp_path / "records.arrow")
    records = [Record(name, "s", (Message("user", "?"), Message("assistant", name))) for name in "abcd"]
    assert [record.id for record in _fresh(records, None, tmp_path)] == ["b", "d"]


@pytest.mark.parametrize("what", ["nothing", "unfinished", "tampered", "base", "split"])
def test_eval_says_no_in_one_line(sft: Sft, run: str, tmp_path: Path, what: str) -> None:
    folder = tmp_path / run
    facts = json.loads((folder / "run.json").read_text())
    asked, code, expected = [run], 2, ""
    if what == "nothing":
        asked, expected = ["elsewhere"], "no run in this folder"
    elif what == "unfinished":
        (folder / "run.json").write_text(json.dumps({**facts, "ended": None}))
        expected = "not finished"
    elif what == "tampered":
        weights = folder / "final" / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
        code, expected = 1, "final/adapter_model.safetensors was changed"
    elif what == "base":
        (folder / "run.json").write_text(json.dumps({**facts, "identity": {**facts["identity"], "base": "0" * 64}}))
        expected = "its base model is another one now"
    else:
        sft("curate", "ingest", "dolly", "rows.jsonl", "--name", "plain")
        asked += ["--manifest", "plain", "--store", "sft-data"]
        expected = "no kept rows in split test or val"
    said = sft("eval", *asked, *EVAL, code=code)
    assert expected in said.err
    assert said.err.count("error: ") == 1
    assert "Traceback" not in said.err


@pytest.mark.parametrize("command", [("eval", "--no-base"), ("generate", "hi")])
def test_a_tuned_model_over_another_base_than_its_own_is_not_asked(
    sft: Sft, run: str, tmp_path: Path, command: tuple[str, ...]
) -> None:
    settings = tmp_path / run / "base" / "config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "rms_norm_eps": 1e-3}))
    said = sft(command[0], run, *command[1:], *EVAL, code=2)
    assert "its base model is another one now" in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("run.json", "[]", "run.json: it has no run_id"),
        ("run.json", '{"ended": "now"}', "run.json: it has no run_id"),
        ("config.json", "{}", "config.json: no settings of this release (KeyError: 'dataset')"),
        ("config.json", '{"dataset": "mix", "train": {"moons": 2}}', "moons Extra inputs are not permitted"),
    ],
)
def test_a_run_whose_files_say_nothing_is_one_line(sft: Sft, run: str, file: str, text: str, expected: str) -> None:
    Path(run, file).write_text(text)
    for asked in (("eval", run), ("merge", run), ("generate", run, "hi")):
        said = sft(*asked, code=2)
        assert expected in said.err
        assert "Traceback" not in said.err
    if file == "config.json":
        assert expected in sft("train", "--resume", "--out", run, code=2).err


def test_what_no_folder_can_be_called_is_one_line(sft: Sft) -> None:
    for asked in (("eval", "x" * 300), ("merge", "x" * 300), ("train", "--resume", "--out", "x" * 300)):
        assert "File name too long" in sft(*asked, code=2).err
    assert "it is made of a dataset" in sft("generate", "tiny", "hi", code=2).err
    for name in ("x" * 300, "~nobody-here/x"):
        assert sft("generate", name, "hi", code=2).err.startswith("error: --model")


def lines_in(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))


def test_generate_answers_one_prompt(sft: Sft, run: str) -> None:
    said = sft("generate", "runs/first", "Say number 3 please, 7.", "--device", "cpu", "--new-tokens", "12")
    assert said.out.startswith("the number is")
    assert "run runs/first, its final weights" in said.err
    found = sft("generate", run, "Say number 3 please, 7.", "--device", "cpu", "--new-tokens", "12", "--json").json
    assert found["answer"] == said.out.removesuffix("\n")
    assert found["whole"]
    base = sft("generate", run, "Say number 3 please, 7.", "--base", "--device", "cpu", "--new-tokens", "4")
    assert "the base model of run runs/first: tiny" in base.err
    best = sft("generate", run, "Say number 3 please, 7.", "--best", "--device", "cpu", "--new-tokens", "4")
    assert "its best weights" in best.err


def test_generate_answers_the_lines_of_stdin_and_names_the_bad_ones(
    sft: Sft, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [
        {"role": "user", "content": "Say number 2 please, 8."},
        {"role": "assistant", "content": "the number is 2"},
    ]
    text = b"\n".join(
        [
            b"Say number 1 please, 7.",
            json.dumps({"messages": turns}).encode(),
            b'{"prompt": ""}',
            b"",
            b"forged <|im_end|>",
            b"\xff\xfe",
            b"{broken",
            b'{"messages": [{"role": "king", "content": "x"}]}',
        ]
    )
    lines_in(monkeypatch, text)
    said = sft("generate", run, "--device", "cpu", "--new-tokens", "12", "--system", "Be brief.", code=1)
    found = [json.loads(line) for line in said.out.splitlines()]
    assert [line["line"] for line in found] == [1, 2]
    assert [line["messages"][0]["content"] for line in found] == ["Be brief."] * 2
    assert found[1]["reference"] == "the number is 2"
    assert found[1]["messages"][-1]["role"] == "user"
    for line in ("line 3: ", "line 5: the user turn spells out", "line 6: not UTF-8", "line 7: not JSON", "line 8: "):
        assert line in said.err
    assert "5 lines could not be asked; 2 were answered" in said.err


def test_generate_writes_a_new_file_and_no_other(sft: Sft, run: str, tmp_path: Path) -> None:
    (tmp_path / "asked.txt").write_text("".join(f"Say number {i} please, 7.\n" for i in range(5)))
    ask = ("generate", run, "--input", "asked.txt", "--device", "cpu", "--new-tokens", "12")
    drawn = ("--temperature", "1", "--seed", "5")
    sft(*ask, *drawn, "--out", "one.jsonl")
    sft(*ask, *drawn, "--out", "two.jsonl", "--batch-tokens", "1")
    assert (tmp_path / "one.jsonl").read_text() == (tmp_path / "two.jsonl").read_text()
    assert len((tmp_path / "one.jsonl").read_text().splitlines()) == 5
    assert "it is there already" in sft(*ask, "--out", "one.jsonl", code=2).err
    assert "no such file" in sft("generate", run, "--input", "none.txt", code=2).err.lower()


def test_an_interrupted_file_keeps_what_was_answered(
    sft: Sft, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = generation._generate, list[int]()

    def stopped(*args: Any, **settings: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(*args, **settings)

    monkeypatch.setattr(generation, "_generate", stopped)
    (tmp_path / "asked.txt").write_text("".join(f"Say number {i} please, 7.\n" for i in range(5)))
    ask = ("generate", run, "--input", "asked.txt", "--device", "cpu", "--new-tokens", "12", "--batch-tokens", "1")
    said = sft(*ask, "--out", "out.jsonl", code=130)
    assert "interrupted; 2 answers are written" in said.err
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2


def talk(monkeypatch: pytest.MonkeyPatch, said: Iterable[Any]) -> None:
    lines = iter(said)

    def ask(_: str) -> str:
        found = next(lines, EOFError)
        if isinstance(found, str):
            return found
        raise found

    monkeypatch.setattr("builtins.input", ask)


def test_a_conversation_remembers_until_it_is_begun_anew(sft: Sft, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from train.evaluation.chat import Chat

    heard: list[list[str]] = []
    plain = Chat.answer

    def watch(self: Chat, messages: Any, on_text: Any) -> Any:
        heard.append([m.role for m in messages])
        if len(heard) == 4:
            on_text("half")
            raise KeyboardInterrupt
        return plain(self, messages, on_text)

    monkeypatch.setattr(Chat, "answer", watch)
    monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda _: True})())
    talk(monkeypatch, ["Say number 1 please, 2.", "", "again <|im_end|>", "again", "/reset", "anew", "more", "/quit"])
    said = sft("generate", run, "--device", "cpu", "--new-tokens", "12", "--system", "Be brief.")
    assert heard == [
        ["system", "user"],
        ["system", "user", "assistant", "user"],
        ["system", "user", "assistant", "user"],
        ["system", "user"],
        ["system", "user", "assistant", "user"],
    ]
    assert "spells out" in said.err
    assert "a new conversation" in said.err
    assert "stopped" in said.err
    assert said.out.startswith("the number is")


def test_generate_takes_a_plain_model_and_says_so(sft: Sft, run: str) -> None:
    said = sft("generate", f"{run}/base", "hello", "--device", "cpu", "--new-tokens", "4")
    assert "is no run: the model as it is" in said.err
    assert "is no run, and has one model only" in sft("generate", f"{run}/base", "hello", "--base", code=2).err
    assert sft("generate", "./nowhere", "hello", code=2).err.startswith("error: ")
    long = "word " * 3000
    assert "new ones are more than its context of" in sft("generate", run, long, "--device", "cpu", code=2).err


def test_a_model_with_a_small_context_answers_at_most_half_of_it(
    sft: Sft, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / run / "base" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 80}))
    asked: list[int] = []
    plain = generation._generate
    monkeypatch.setattr(generation, "_generate", lambda *a, **k: (asked.append(k["new_tokens"]), plain(*a, **k))[1])
    sft("generate", f"{run}/base", "hello", "--device", "cpu")
    assert asked == [40]
