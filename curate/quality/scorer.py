"""A scorer: something that has an opinion about rows which costs time or money, so that a text is asked about once.

`curate.quality.score` keeps what a scorer says in a ledger by content hash (`curate.quality.ledger`), asks it only
about rows that the ledger does not know, and makes the columns of the version from what is known.

    rows that are kept ──> unknown texts ──> Scorer.score ──> ledger (durable, in pieces)
                     └──────────────────── known texts ──────────┴──> Scorer.finish ──> columns
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import polars as pl

from curate.stage import Progress
from schemas.dataset import Dataset
from schemas.record import TEXT_SCHEMA

ROW_COLUMNS = ("id", "source", "content_hash", "messages", "context", "tools")
"""The columns of the rows that a scorer is asked about."""

ROW_SCHEMA = pl.Schema({name: TEXT_SCHEMA[name] for name in ROW_COLUMNS})

RETRY = "retry"
"""Column of a piece (bool, may be left out): this failure may heal, so the row is asked again in the next run."""


class Scorer(Protocol):
    """Something that scores rows: a language model's difficulty, a judge, embeddings."""

    @property
    def name(self) -> str:
        """Which kind it is: "difficulty", "judge", "embedding"."""
        ...

    @property
    def kept(self) -> pl.Schema:
        """What the ledger keeps for a text."""
        ...

    @property
    def columns(self) -> pl.Schema:
        """What the version gets; the same as `kept` unless `finish` makes one of the other."""
        ...

    @property
    def key(self) -> str:
        """Digest of all that a score depends on besides the text: weights, template, rubric, temperature."""
        ...

    @property
    def provenance(self) -> dict[str, Any]:
        """Say who scores, for the manifest and for people: `model`, digest, versions, settings.

        JSON values, the same on every machine: no paths, no addresses, no secrets.
        """
        ...

    @property
    def reads_tools(self) -> bool:
        """Whether the definitions of tools are part of the text that is scored."""
        ...

    def score(self, rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """Score rows of different texts, in pieces as they are done. Called once per shard that has unknown rows.

        Reads: ROW_COLUMNS. Gives: content_hash (as it came in), `kept`, and `retry` where a failure may heal. A row
        that failed has nulls, and the reason where there is a column for it. A row that no piece names was not scored
        (a cap was reached): it stays unknown and is asked next time. An SftError ends the run; all pieces before it
        are kept.
        """
        ...

    def finish(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Make the columns from what the ledger knows: a frame of as many rows, in the same order.

        `rows` are all rows of the dataset that are judged: id, source, content_hash, quality (null where signals has
        not run), `kept` (null where the text is unknown). Gives: `columns`; and, of a scorer that rejects, `verdict`
        and `detail`. Most scorers just select their columns: see `as_kept`.
        """
        ...

    def notes(self) -> Sequence[str]:
        """Give sentences for the person who runs it, after `finish`: what failed, what it cost."""
        ...


class Learner(Protocol):
    """Something that learns from what the version knows, cheaply enough to score every row anew: it has no ledger.

    What it learnt is a table, which the version keeps as an object of role "model", made from `key`.
    """

    @property
    def name(self) -> str:
        """Which kind it is: "reviews"."""
        ...

    @property
    def columns(self) -> pl.Schema:
        """What the version gets."""
        ...

    @property
    def key(self) -> str:
        """Digest of all that it learnt from, and how."""
        ...

    @property
    def provenance(self) -> dict[str, Any]:
        """Say what it is; see Scorer."""
        ...

    @property
    def model(self) -> pl.DataFrame:
        """What it learnt: all that is needed to score a row again."""
        ...

    def learned(self, dataset: Dataset, progress: Progress) -> pl.DataFrame:
        """Give `columns` for the rows that are kept before the score stage, in order. Calls `progress` per shard."""
        ...

    def notes(self) -> Sequence[str]:
        """Give sentences for the person who runs it: what was learnt from, and how good it is."""
        ...


def as_kept(scorer: Scorer, rows: pl.DataFrame) -> pl.DataFrame:
    """Finish a scorer whose columns are what the ledger keeps."""
    return rows.select(list(scorer.columns))
