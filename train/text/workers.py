"""Processes that tokenise: each makes whole shards, so the outcome is the same whatever their number.

They are spawned, not forked (threads of torch and polars do not survive a fork), load no torch and not the script that
this process runs, and end with the process that started them: when it is done, is interrupted, or is killed.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from multiprocessing import reduction, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryFile
from types import ModuleType
from typing import Any
from weakref import finalize

from schemas.errors import ModelError
from schemas.record import Record
from train.text import cache, overlong, shard
from train.text.chat import Template
from train.text.overlong import Cut
from train.text.shard import Table
from train.text.words import Words, words_of

FEW = 16_384
"""Records below which processes are not worth their start: they take 2 s to start, and one core 2 s for so many."""


@dataclass(frozen=True, slots=True)
class Job:
    """Records to make a shard of, and the file to write. With `cut` they have `lengths` above `max_tokens`."""

    records: Iterable[Record]
    path: Path | None = None
    cut: Cut | None = None
    lengths: tuple[int, ...] = ()
    max_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Made:
    """A shard: the sha256 of the file that it was written to, or the table where there is none; `error` says why."""

    table: Table | None
    sha256: str = ""
    error: OSError | None = None


class Workers:
    """Makes shards, in processes or in this one. `count` None: as many as there are cores. Close it when done."""

    def __init__(self, template: Template, count: int | None = 0) -> None:
        self._template = template
        self._words = words_of(template)
        self._count = _cores() if count is None else count
        self._pool: ProcessPoolExecutor | None = None
        self._started: list[BaseProcess] = []
        self._others: set[BaseProcess] = set()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            for process in self._started:
                process.terminate()
            for process in self._started:
                process.join()
            self._pool = None

    def made(self, jobs: Sequence[Job], records: int) -> Iterator[Made]:
        """Make the shards of so many records, in the order of the jobs. Raises ModelError where a process dies."""
        worth = self._count > 0 and records >= FEW and len(jobs) > 1
        if not worth or (pool := self._started_pool()) is None:
            yield from (_made(job, self._template, self._words) for job in jobs)
            return
        try:
            with _undisturbed(), _without_script():
                futures: list[Future[Made]] = [pool.submit(_work, job) for job in jobs]
                others = {*self._others, *self._started}
                self._started += [process for process in multiprocessing.active_children() if process not in others]
            for future in futures:
                yield future.result()
        except BrokenProcessPool as error:
            raise ModelError(
                "tokenising",
                f"one of {self._count} worker processes died (killed, or out of memory)",
                "",
                "free some memory, or give --workers 1, or --workers 0 for none",
            ) from error

    def _started_pool(self) -> ProcessPoolExecutor | None:
        """Start the processes, once; None where the tokenizer cannot be sent to them."""
        if self._pool is None:
            if type(self._template.tokenizer).__module__ == "__main__":  # which they do not import
                return None
            try:
                tokenizer = Sent(self._template.tokenizer)
            except Exception:  # noqa: BLE001 # a tokenizer of somebody's own code: pickle raises whatever that does
                return None
            self._others = set(multiprocessing.active_children())
            self._pool = ProcessPoolExecutor(
                self._count,
                multiprocessing.get_context("spawn"),
                initializer=_begin,
                initargs=(tokenizer, self._template.name),
            )
        return self._pool


def _cores() -> int:
    """Count the cores that this process may use; not every system can say which these are."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@contextmanager
def _undisturbed() -> Generator[None]:
    """Start processes in the block: they never hear Ctrl-C, not even while they start, as the parent decides.

    A blocked signal stays blocked in what a process starts. Here SIGINT and SIGTERM wait until the block has ended, so
    that no process is half started: other threads would still take them, so blocking alone does not hold them back.
    """
    resource_tracker.ensure_running()  # which lets signals through again where it has to start
    caught: list[int] = []
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, lambda number, _: caught.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
    for number in caught[:1]:
        signal.raise_signal(number)


@contextmanager
def _without_script() -> Generator[None]:
    """Start processes in the block without the script that this process runs: they would import it, and one that does
    its work without asking for its __name__ would do all of it once more in each of them."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


class Sent:
    """A value for processes that are started: each reads its pickle from a file without a name, which outlives nobody.

    As their argument it would go through a pipe that holds 64 KiB: each would be started, and Ctrl-C heard, only once
    the one before had imported what it needs to read it.
    """

    def __init__(self, value: object) -> None:
        self._file = TemporaryFile()  # noqa: SIM115 # open as long as this lives
        self._file.write(pickle.dumps(value))
        self._file.flush()
        finalize(self, self._file.close)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object]]:
        return _received, (reduction.DupFd(self._file.fileno()),)


def _received(place: Any) -> object:
    with os.fdopen(place.detach(), "rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as pickled:
        return pickle.loads(pickled)  # noqa: S301 # what the parent wrote, where nobody else can


_OURS: list[tuple[Template, Words]] = []
"""What a worker process works with."""


def _begin(tokenizer: Any, name: str) -> None:
    """Begin a worker process: without its parent there is nothing to do."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there is a process for every core already
    threading.Thread(target=_end_with_parent, daemon=True).start()
    template = Template(tokenizer, name)
    _OURS.append((template, Words(template)))


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _work(job: Job) -> Made:
    return _made(job, *_OURS[0])


def _made(job: Job, template: Template, words: Words) -> Made:
    if job.cut:
        some = list(job.records)
        table = overlong.fitted(some, job.lengths, template, words, cut=job.cut, max_tokens=job.max_tokens)
    else:
        table = shard.tokenise(job.records, template, words)
    if job.path is None:
        return Made(table)
    try:
        return Made(None, cache.write(table, job.path))
    except OSError as error:  # no space, most likely: then in memory
        return Made(table, error=OSError(error.errno, error.strerror))
