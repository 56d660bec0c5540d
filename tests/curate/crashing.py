"""Jobs on a store, each in a process of its own that is killed where it is told to be.

One process imports everything and forks a child for each job, so that a job begins within milliseconds. A child dies by
SIGKILL before its nth call that touches the store's files (`at`), or after some seconds (`after`), wherever it is then.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from schemas.errors import SftError

ROOT = Path(__file__).parents[2]

_TOUCHES = {"open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.utime", "os.chmod", "os.listdir", "os.scandir"}


@dataclass(frozen=True)
class Job:
    """What to do with a store, and when to die."""

    store: str
    what: str
    given: tuple[Any, ...] = ()
    at: int | None = None
    after: float | None = None


@dataclass(frozen=True)
class Done:
    """What became of a job. `calls`: how often it touched the store's files; `value`: what it gave."""

    killed: bool
    calls: int = 0
    seconds: float = 0.0
    value: Any = None
    error: str | None = None


class Jobs:
    """The process that forks. Use it as a context."""

    def __enter__(self) -> "Jobs":
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.curate.crashing"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "POLARS_MAX_THREADS": "1"},
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(60)

    def run(self, *jobs: Job) -> list[Done]:
        """Run jobs side by side and wait for all of them."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([asdict(job) for job in jobs]).encode() + b"\n")
        self._process.stdin.flush()
        return [Done(**told) for told in json.loads(self._process.stdout.readline())]


# the children ---------------------------------------------------------------------------------------------------------


def _ingest(store: Any, name: str, source: str, file: str, existing: Any) -> str:
    from curate.sources import add_source
    from curate.stage import no_progress
    from schemas.config import IngestConfig

    config = IngestConfig(source=source)
    added = add_source(store, name, [file], "auto", config, existing=existing, started=lambda _what, _rows: no_progress)
    return added.commit.manifest.id


def _recipe(store: Any, name: str, tables: dict[str, Any]) -> str:
    from curate.pipeline import run_recipe
    from schemas.recipe import Recipe

    return run_recipe(store, Recipe.model_validate(tables), name=name).commit.manifest.id


def _tag(store: Any, name: str, tag: str, seq: int) -> None:
    store.tag(name, tag, seq)


def _register(store: Any, run_id: str, records: str) -> None:
    store.register_run(run_id, {"dataset": "d"}, Path(records))


def _gc(store: Any, grace_s: float) -> int:
    return len(store.remove(store.garbage(grace_s)).paths)


def _write(store: Any, name: str, writer: int, commits: int) -> list[str]:
    """Commit again and again to an own source, each time three rows more: appended, or every fifth time as one file."""
    folder = store.root.parent / f"writer{writer}"
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[str] = []
    ids: list[str] = []
    for n in range(commits):
        new = [{"instruction": f"writer {writer} asks {n}.{i}", "output": f"answer {n} {i}"} for i in range(3)]
        rows += [json.dumps(row) + "\n" for row in new]
        file = folder / f"{n}.jsonl"
        file.write_text("".join(rows[-3:] if n % 5 else rows))
        ids.append(_ingest(store, name, f"w{writer}", str(file), "append" if n % 5 else "replace"))
    return ids


def _take_up(store: Any, times: int) -> int:
    """Take up an object that is old and unnamed; count how often it is gone straight afterwards."""
    import polars as pl

    frame, lost = pl.DataFrame({"a": [1, 2, 3]}), 0
    for _ in range(times):
        path = store.root / store.put(frame, role="index", stage="dedup").path
        lost += not path.exists()
        os.utime(path, (1, 1))
    return lost


def _sweep(store: Any, times: int) -> int:
    return sum(_gc(store, 3600) for _ in range(times))


_WHAT: dict[str, Callable[..., Any]] = {
    "ingest": _ingest,
    "recipe": _recipe,
    "tag": _tag,
    "register": _register,
    "gc": _gc,
    "write": _write,
    "take up": _take_up,
    "sweep": _sweep,
}


def _die_at(root: str, at: int | None, calls: list[int]) -> None:
    """Count the calls that touch the store, and die before the one that is named."""

    def count() -> None:
        calls[0] += 1
        if calls[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _TOUCHES and str(arguments[0]).startswith(root):
            count()

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            count()
            return function(*arguments)

        return call

    os.fsync, fcntl.flock = counted(os.fsync), counted(fcntl.flock)
    sys.addaudithook(hook)


def _child(job: Job, answer: int) -> None:
    from curate.store import Store

    calls = [0]
    told: dict[str, Any]
    try:
        _die_at(job.store, job.at, calls)
        start = time.perf_counter()
        value = _WHAT[job.what](Store(Path(job.store)), *job.given)
        told = {"value": value, "seconds": time.perf_counter() - start}
    except SftError as error:
        told = {"error": f"{type(error).__name__}: {error}"}
    except Exception as error:  # noqa: BLE001 # the parent tells it
        traceback.print_exc()
        told = {"error": f"{type(error).__name__}: {error}"}
    os.write(answer, json.dumps({"killed": False, "calls": calls[0], **told}).encode())
    os._exit(0)


def _fork(job: Job) -> tuple[int, int]:
    answer, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(answer)
        os.setpgid(0, 0)
        _child(job, write)
    os.close(write)
    return child, answer


def _wait(job: Job, child: int, answer: int, began: float) -> dict[str, Any]:
    if job.after is not None:
        time.sleep(max(0.0, began + job.after - time.monotonic()))
        os.kill(child, signal.SIGKILL)  # not yet waited for, so its number is its own
    with os.fdopen(answer, "rb") as told:
        said = told.read()
    _, status = os.waitpid(child, 0)
    if said and not os.WIFSIGNALED(status):
        return json.loads(said)
    return {"killed": True}


def _serve() -> None:
    import curate.pipeline
    import curate.sources
    import curate.stages

    for name in curate.stages.PIPELINE:
        curate.stages.stage(name)
    with suppress(ModuleNotFoundError):  # pyarrow imports it at its first array, where it is installed
        import_module("pandas")
    for line in sys.stdin.buffer:
        jobs = [Job(**job) for job in json.loads(line)]
        began = time.monotonic()
        running = [(job, *_fork(job)) for job in jobs]
        told = [_wait(job, child, answer, began) for job, child, answer in running]
        sys.stdout.buffer.write(json.dumps(told).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _serve()
