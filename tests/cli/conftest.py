"""The command line, run in this process as a person would type it."""

import fcntl
import io
import json
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Sft = Callable[..., Said]


@pytest.fixture
def sft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Sft:
    """Run `sft ARGS…` in an empty folder of its own; `code=` is the exit code that is expected."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SFT_STORE", raising=False)

    def call(*args: str, code: int = 0) -> Said:
        from cli import render
        from cli.main import run

        render.console.cache_clear()
        monkeypatch.setattr(sys, "argv", ["sft", *args])
        capfd.readouterr()
        found = 0
        try:
            run()
        except SystemExit as stop:
            found = stop.code if isinstance(stop.code, int) else 0
        said = Said(found, *capfd.readouterr())
        assert said.code == code, f"sft {' '.join(args)}\n{said.out}\n{said.err}"
        return said

    return call


TRAIN = (
    *("train", "--manifest", "mix", "--model", "tiny", "--out", "runs/first"),
    *("--max-steps", "16", "--eval-every", "8", "--batch", "4", "--lr", "5e-3"),
    *("--samples", "1", "--sample-tokens", "4", "--device", "cpu"),
)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows.jsonl, a store with the dataset mix, and the finished run runs/first, for tests to copy.

    It is made once, by the first worker that asks; said.json holds what the training printed.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has a folder of its own in that of the session
        folder = folder.parent
    folder /= "finished"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "said.json").is_file():
            said = _train_once(folder)
            (folder / "said.json").write_text(json.dumps(asdict(said)))
    return folder


def _train_once(folder: Path) -> Said:
    from cli import render
    from cli.main import app
    from train.model import tiny

    rows = [
        {"instruction": f"Say number {i % 6} please, {i}.", "response": f"the number is {i % 6}", "category": "number"}
        for i in range(160)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(out), redirect_stderr(err):
        patched.chdir(folder)
        patched.delenv("SFT_STORE", raising=False)
        patched.setattr(tiny, "PRETRAIN_STEPS", 10)
        for command in (
            ("curate", "ingest", "dolly", "rows.jsonl", "--name", "mix"),
            ("curate", "split", "mix"),
            TRAIN,
        ):
            render.console.cache_clear()
            app(command, standalone_mode=False)
    render.console.cache_clear()
    return Said(0, out.getvalue(), err.getvalue())


@pytest.fixture
def alpaca(tmp_path: Path) -> Path:
    """A small Alpaca file with one row that lacks its output."""
    rows = [
        {
            "instruction": f"Which of the {i} lamps is lit?",
            "input": "",
            "output": f"Lamp number {i} is lit until {i} o'clock.",
        }
        for i in range(40)
    ]
    path = tmp_path / "alpaca_data.json"
    path.write_text(json.dumps([*rows, {"instruction": "Why?", "input": ""}]))
    return path
