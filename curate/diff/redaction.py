"""Redaction: what the stage pii took out of a row in one version is not shown by way of the other.

Diffs are passed around, so a row's text in one version is shown only as far as its redacted text in the other has the
same words; all else of it is masked, whatever stage or publisher made it differ. That hides more than was redacted,
and nothing less. The placeholders themselves (`<EMAIL_1>`) stay, and what has neither letters nor digits.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from curate.change import changed_texts, word_diff
from curate.diff.places import read_overlays
from schemas.dataset import Dataset
from schemas.reasons import REASONS

MASK = "[redacted]"

_KINDS = "|".join(name.removeprefix("redact:").upper() for name in REASONS if name.startswith("redact:"))
_PLACEHOLDER = re.compile(rf"(<(?:{_KINDS})(?:_[0-9]{{1,4}})?>)")
_WORDS = re.compile(r"\S(?:.*\S)?", re.DOTALL)


def redacted(dataset: Dataset, places: pl.DataFrame) -> pl.Series:
    """Say whether pii redacted the rows at places (shard, row); false where there is no such row."""
    edits = read_overlays(dataset, places, "pii")["edits"]
    return edits.list.eval(pl.element().str.starts_with("redact:")).list.any().fill_null(value=False)


def mask(text: str) -> str:
    """Put `MASK` in place of the words before, between and after placeholders: how many there were cannot be seen."""
    parts = _PLACEHOLDER.split(text)  # every second one is a placeholder
    parts[::2] = (_WORDS.sub(MASK, part) if any(map(str.isalnum, part)) else part for part in parts[::2])
    return "".join(parts)


def masked_pieces(pieces: Iterable[tuple[str, str]], *, before: bool, after: bool) -> list[tuple[str, str]]:
    """Mask what only one version has where the other redacted the row. `before`, `after`: which of them redacted it."""
    hidden = {"removed": after, "added": before}
    return [(kind, mask(text) if hidden.get(kind) else text) for kind, text in pieces]


def masked_row(row: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Give a row as it may be shown where `other` is the same row in a version that redacted it.

    Its detail, which may quote it, and what it was before it was read are left out.
    Reads: messages, context; of `row` reject_detail and extra too.
    """
    turns: list[dict[str, Any]] = [dict(m) for m in row["messages"] or ()]
    shown = {**row, "messages": turns, "extra": None, "reject_detail": row["reject_detail"] and MASK}
    for text in changed_texts(row, other):
        if not text.before:
            continue
        pieces = masked_pieces(word_diff(text.before, text.after), before=False, after=True)
        said = "".join(piece for kind, piece in pieces if kind != "added")
        if text.turn is None:
            shown["context"] = said
        else:
            turns[text.turn][text.field] = said
    return shown
