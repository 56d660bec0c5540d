"""Samples: rows drawn as examples, the same for the same seed, with their texts."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from curate.select import chance
from schemas.dataset import Dataset

MOST_CHARACTERS = 2_000
"""Characters of a turn that an example shows: a screen of text."""

_READS = ("id", "source", "source_row", "messages", "context", "extra", "kept", "reject_reason", "reject_detail")


@dataclass(frozen=True)
class SampleRow:
    """A row as an example. `place`: SOURCE:ROW. `turns`: (role, text), long ones cut; "context" is a role here."""

    id: str
    place: str
    kept: bool
    reason: str | None
    detail: str | None
    turns: tuple[tuple[str, str], ...]


def draw(ids: pl.Series, seed: int, rows: int) -> list[str]:
    """Draw rows by a hash of seed and id: their order, and other rows, change nothing about a row's chance."""
    own = ids.unique().sort()
    return own.gather(np.argsort(chance(own, seed), kind="stable")[:rows]).to_list()


def sample_rows(
    dataset: Dataset, ids: Iterable[str], then: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
) -> dict[str, SampleRow]:
    """Read rows as examples, by id; those that are not in the version are left out. `then`: what is made of each row.

    Reads: id, source, source_row, messages, context, extra, kept, reject_reason, reject_detail.
    """
    wanted = pl.Series(sorted(set(ids)), dtype=pl.String).implode()
    found: dict[str, SampleRow] = {}
    for shard in dataset.shards if len(wanted[0]) else ():
        rows = shard.view(_READS).filter(pl.col("id").is_in(wanted)).collect()
        found |= {row["id"]: _sample(then(row) if then else row) for row in rows.iter_rows(named=True)}
    return found


def _sample(row: Mapping[str, Any]) -> SampleRow:
    turns = [(m["role"] or "", _turn(m)) for m in row["messages"] or ()]
    if row["context"]:
        asked = next((n for n, (role, _) in enumerate(turns, 1) if role == "user"), len(turns))
        turns.insert(asked, ("context", row["context"]))  # what the first question works on
    if not turns and row["extra"]:
        turns.append(("as it stood", row["extra"]))
    return SampleRow(
        id=row["id"],
        place=f"{row['source']}:{row['source_row']}",
        kept=row["kept"],
        reason=row["reject_reason"],
        detail=row["reject_detail"],
        turns=tuple((role, _cut(text)) for role, text in turns),
    )


def _turn(message: Mapping[str, Any]) -> str:
    return "\n".join(text for text in (message["content"], message["tool_calls"]) if text)


def _cut(text: str) -> str:
    if len(text) <= MOST_CHARACTERS:
        return text
    return f"{text[:MOST_CHARACTERS]} … {len(text) - MOST_CHARACTERS:,} more characters"
