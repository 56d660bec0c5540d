"""Worker processes: what they hear, what they import, and that none outlives the process that started it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from schemas.record import Record
from tests.train.text.styles import STYLES, tokenizer_of
from train.text import workers
from train.text.chat import Template
from train.text.workers import Job, Workers

ROOT = Path(__file__).parents[3]
DEADLINE_S = 300

SCRIPT = """
from pathlib import Path
from tests.train.text.test_workers import work_until_killed
Path("starts").open("a").write("once\\n")
work_until_killed()
"""
"""A script of somebody who has not heard of __name__."""


@dataclass
class Waiting:
    """Records whose reading says which process reads them, and never comes to an end."""

    file: Path

    def __iter__(self) -> Iterator[Record]:
        self.file.write_text(f"{os.getpid()}\n")
        time.sleep(10 * DEADLINE_S)
        return iter(())


def work_until_killed() -> None:
    workers.FEW = 1
    with Workers(Template(tokenizer_of(STYLES[0], "byte-level"), "test"), 2) as started:
        list(started.made([Job(Waiting(Path(f"{i}.pid").absolute())) for i in range(2)], 2))


def pids_in(folder: Path) -> list[int]:
    return [int(text) for file in folder.glob("*.pid") if (text := file.read_text()).endswith("\n")]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def test_workers_of_a_script_without_a_main_guard_do_not_run_it_and_end_when_it_is_killed(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script = subprocess.Popen([sys.executable, "script.py"], cwd=tmp_path, env=environment)
    until = time.monotonic() + DEADLINE_S
    try:
        while len(pids_in(tmp_path)) < 2:
            assert script.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        script.kill()
        script.wait()
        while any(map(is_alive, pids_in(tmp_path))):
            assert time.monotonic() < until
            time.sleep(0.01)
    finally:
        script.kill()
        script.wait()
        for pid in filter(is_alive, pids_in(tmp_path)):
            os.kill(pid, signal.SIGKILL)
    assert (tmp_path / "starts").read_text() == "once\n"


def test_what_is_started_never_hears_ctrl_c_and_who_starts_it_hears_it_when_all_have_started() -> None:
    blocked = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
    said: list[str] = []

    def start() -> None:
        with workers._undisturbed():
            signal.raise_signal(signal.SIGINT)
            said.append(subprocess.check_output([sys.executable, "-c", blocked], text=True))

    found = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            start()
        assert said == ["True\n"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, found)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
