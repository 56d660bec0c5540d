"""Processes that tokenise: each makes whole shards, so the outcome is the same whatever their number.

They are spawned, not forked (threads of torch and polars do not survive a fork), load no torch, and end with the
process that started them: when it is done, is interrupted, or is killed.
"""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from transformers import PreTrainedTokenizerBase

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
        self._count = len(os.sched_getaffinity(0)) if count is None else count
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
            try:
                pickle.dumps(self._template.tokenizer)
            except Exception:  # noqa: BLE001 # a tokenizer of somebody's own code: pickle raises whatever that does
                return None
            self._others = set(multiprocessing.active_children())
            self._pool = ProcessPoolExecutor(
                self._count,
                multiprocessing.get_context("spawn"),
                initializer=_begin,
                initargs=(self._template.tokenizer, self._template.name),
            )
        return self._pool


_OURS: list[tuple[Template, Words]] = []
"""What a worker process works with."""


def _begin(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Begin a worker process: the parent decides about Ctrl-C, and without it there is nothing to do."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there is a process for every core already
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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
