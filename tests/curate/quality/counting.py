"""A scorer for tests: it counts how often it is asked about each text, and stops where it is told to."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from curate.quality.scorer import ROW_SCHEMA


class KilledError(Exception):
    """Stands for whatever ends a process in the middle of its work."""


@dataclass
class CountingScorer:
    """Scores a text by the characters of its last turn, as `judge`; two rows to a piece."""

    key: str = "characters/1"
    name: str = "judge"
    reads_tools: bool = True
    kept: pl.Schema = field(default_factory=lambda: pl.Schema({"judge": pl.Float32, "judge_error": pl.String}))
    columns: pl.Schema = field(default_factory=lambda: pl.Schema({"judge": pl.Float32, "judge_error": pl.String}))
    asked: Counter[str] = field(default_factory=Counter[str])
    killed_after: int | None = None
    capped_after: int | None = None
    fails: str | None = None
    """Texts that hold this fail; the failure may heal."""

    @property
    def provenance(self) -> dict[str, Any]:
        return {"model": "counting", "settings": {"key": self.key}}

    def score(self, rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
        assert rows.schema == ROW_SCHEMA
        for piece in rows.iter_slices(2):
            if self.killed_after is not None and self.asked.total() >= self.killed_after:
                raise KilledError
            if self.capped_after is not None and self.asked.total() >= self.capped_after:
                return
            said = [turns[-1]["content"] for turns in piece["messages"]]
            self.asked.update(said)
            failed = [self.fails is not None and self.fails in text for text in said]
            yield pl.DataFrame(
                {
                    "content_hash": piece["content_hash"],
                    "judge": [None if f else float(len(t)) for f, t in zip(failed, said, strict=True)],
                    "judge_error": ["out of order" if f else None for f in failed],
                    "retry": failed,
                },
                schema={"content_hash": pl.String, **self.kept, "retry": pl.Boolean},
            )

    def finish(self, rows: pl.DataFrame) -> pl.DataFrame:
        return rows.select(list(self.columns))

    def notes(self) -> Sequence[str]:
        return [f"{self.asked.total()} asked"]
