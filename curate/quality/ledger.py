"""The ledger of a scorer: what it said about each text, so that no text is asked about twice.

What is known comes from two places: the index objects that the version's own score stage left, and the store's memory
of this scorer, which every dataset of the store shares. While rows are scored, pieces go to the store as objects, and
their list is remembered under the scorer's key: a process that is killed loses the pieces of the last seconds.

    Scorer.score ─ pieces ─> rows in memory ─ every few seconds ─> segment objects + cache/KEY.json that lists them
                                                                     (many small segments are joined into one)

Another key (another model, template or rubric) is another ledger.
"""

import fcntl
import os
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import polars as pl

from curate.quality.scorer import RETRY, Scorer
from curate.store import Store
from schemas.dataset import Dataset
from schemas.errors import ConflictError, StoreError
from schemas.manifest import FileEntry, digest
from schemas.record import check_schema

FLUSH_S = 5.0
"""Seconds of work that a kill may cost. Writing a segment takes a few hundredths of one."""

FLUSH_ROWS = 5_000
"""Rows that are held in memory before they are written, where they come faster than that."""

SEGMENTS = 32
"""Segments that are listed before they are joined into one."""

TEXT = "content_hash"
"""The column that names a text."""


def index_schema(scorer: Scorer) -> pl.Schema:
    """Give the columns of the ledger, and of the index objects of a version."""
    return pl.Schema({TEXT: pl.String(), **scorer.kept})


class Ledger:
    """What one scorer has said so far. Use it within `open_ledger`, which lets one process at a time write to it."""

    def __init__(self, store: Store, dataset: Dataset, scorer: Scorer, lock: Path) -> None:
        self._store, self._scorer, self._lock = store, scorer, lock
        self._schema = index_schema(scorer)
        self._key = digest(["scores", scorer.name, scorer.key])
        self._pieces: list[pl.DataFrame] = []
        self._flushed = time.monotonic()
        remembered = store.recall(self._key, partly=True)
        self._segments = list(remembered[0]) if remembered else []
        self.lost = remembered[1].get("segments", 0) - len(self._segments) if remembered else 0
        """Segments that were damaged or gone: what they held, and the version does not, is asked again."""
        own = [f for f in dataset.manifest.files_of("score") if f.role == "index" and f.made_from == scorer.key]
        parts = [pl.read_ipc(dataset.path(file)) for file in own]
        parts += [pl.read_ipc(store.root / file.path) for file in self._segments]
        self._lasting = self._joined(parts)
        self._passing: list[pl.DataFrame] = []

    @property
    def known(self) -> pl.DataFrame:
        """What is known of each text: content_hash and the scorer's `kept`; failures of this run included."""
        return self._joined([self._lasting, *self._pieces, *self._passing])

    def unknown(self, texts: pl.DataFrame) -> pl.DataFrame:
        """Give the rows whose text has no entry, each text once, in order. Reads: content_hash."""
        known = pl.concat([part.select(TEXT) for part in (self._lasting, *self._pieces, *self._passing)])
        new = texts.join(known, on=TEXT, how="anti", maintain_order="left")
        return new.unique(TEXT, keep="first", maintain_order=True)

    def add(self, piece: pl.DataFrame) -> None:
        """Take in a piece of scores; it is on disk a few seconds later, or after `flush`."""
        failed = pl.col(RETRY).fill_null(value=False) if RETRY in piece.columns else pl.lit(value=False)
        check_schema(piece.drop(RETRY, strict=False).schema, self._schema, f"scores of {self._scorer.name}")
        for rows, held in ((piece.filter(failed), self._passing), (piece.filter(~failed), self._pieces)):
            if rows.height:
                held.append(rows.select(list(self._schema)))
        held = sum(rows.height for rows in self._pieces)
        if held >= FLUSH_ROWS or time.monotonic() - self._flushed >= FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write what is held in memory: as an object, then into the list that the store remembers."""
        self._flushed = time.monotonic()
        with suppress(OSError):
            os.utime(self._lock)  # gc removes what is older than a day, and a run may take longer
        if not self._pieces:
            return
        fresh = self._joined(self._pieces)
        self._lasting = self._joined([self._lasting, fresh])
        if len(self._segments) >= SEGMENTS:
            self._segments, fresh = [], self._lasting
        self._segments.append(self._put(fresh))
        facts = {**self._scorer.provenance, "scorer": self._scorer.name, "segments": len(self._segments)}
        self._store.remember(self._key, self._segments, facts)
        self._pieces = []

    def index(self, texts: pl.Series) -> pl.DataFrame:
        """Give the entries of some texts, sorted: what a version keeps. Failures that may heal are not in it."""
        asked = texts.unique().sort().to_frame(TEXT)
        said = pl.concat([part.join(asked, on=TEXT, how="semi") for part in (self._lasting, *self._pieces)])
        return self._joined([said]).sort(TEXT)

    def _put(self, frame: pl.DataFrame) -> FileEntry:
        return self._store.put(frame, role="index", stage="score", made_from=self._scorer.key)

    def _joined(self, parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
        whole = pl.concat([self._schema.to_frame(), *parts])
        return whole.unique(TEXT, keep="first", maintain_order=True)


@contextmanager
def open_ledger(store: Store, dataset: Dataset, scorer: Scorer) -> Generator[Ledger]:
    """Open a scorer's ledger for writing; whatever happens, what it has taken in is on disk afterwards.

    Raises ConflictError where another process writes to it: both would ask, and pay, for the same rows.
    """
    path = store.root / "tmp" / f"{digest(['scores', scorer.name, scorer.key])}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # It is not removed: whoever waits for it would hold a lock on nothing. gc does so when it is old.
        file = path.open("w")
    except OSError as error:
        found = error.strerror or str(error)
        raise StoreError(f"store {store.root}", found, "a place to write to", "check who owns it") from error
    with file as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError(
                f"scores of {scorer.name} in store {store.root}",
                "another process is asking the same scorer",
                remedy="wait until it is done: its scores are then known here too",
            ) from error
        ledger = Ledger(store, dataset, scorer, path)
        try:
            yield ledger
        finally:
            ledger.flush()
