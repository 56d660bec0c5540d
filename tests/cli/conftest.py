"""The command line, run in this process as a person would type it."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
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
