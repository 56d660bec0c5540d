"""All changes of a diff as the page has them: the first rows as a table, the rest as data that its script shows."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
from markupsafe import Markup

from curate.diff.account import Account
from curate.diff.changes import WORDS
from curate.report.text import HIDDEN_JS
from schemas.stages import STAGES

ROWS_A_PAGE = 100
"""Changes that the table shows at once; the first of them are there without the script."""
CHANGES_CHARACTERS = 6_000_000
"""Characters of the changes that go into the file: some 30,000 rows. A browser opens the whole in a second or two."""
CHARACTERS_A_ROW = 200
"""What a change with a detail takes, packed; one without takes 110."""

MEANINGS = {
    "added": "the row was not there before",
    "removed": "the row is no longer there",
    "edited_upstream": "removed, and added with nearly the same text: its publisher changed it",
    "edited": "the same row with another text",
    "rejected": "kept before, left out now",
    "restored": "left out before, kept now",
    "rejudged": "left out in both, for another reason",
    "resplit": "kept in both, in another split",
    "rescored": "kept in both, with another quality, score or weight",
}
"""The words of a diff, as a legend."""


def data_block(value: Any) -> Markup:
    """Write JSON so that it can stand inside a `script` element: ASCII alone, and no angle bracket."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))  # noqa: S704 - made safe here


@dataclass(frozen=True)
class Choice:
    """A value that a list can be filtered by, and how many of its entries have it."""

    value: str
    count: int


def choices_of(values: Iterable[str]) -> tuple[Choice, ...]:
    """Count values, in the order of their names."""
    return tuple(Choice(value, count) for value, count in sorted(Counter(values).items()))


def stage_order(stage: str) -> tuple[int, str]:
    """Sort stages as they run, those that are unknown last."""
    return (STAGES.index(stage) if stage in STAGES else len(STAGES), stage)


CHANGE_COLUMNS = ("word", "place", "id", "source", "before", "after", "stage", "why", "detail")


def change_row(row: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give a change as the table shows it, in the order of `CHANGE_COLUMNS`, and who or what made it."""
    word, before, after, detail = row["word"], row["before"] or "", row["after"] or "", row["detail"] or ""
    fields = ", ".join(row["fields"] or ())
    if word == "edited":
        before, after, detail = "", "", detail or fields
    elif word == "edited_upstream":
        before, after = (row["id"] or "")[:12], (row["match"] or "")[:12]
        detail = f"similarity {row['confidence']:.2f}" if row["confidence"] is not None else detail
    elif word in ("rejected", "restored", "rejudged"):
        before, after = before or "kept", after or "kept"
    elif word == "added":
        after = after or "kept"
    elif word == "removed":
        before = before or "kept"
    elif word == "rescored":
        detail = detail or fields
    keys = ", ".join(row["keys"] or ())
    why = (row["cause"] or "") + (f" ({keys})" if keys else "")
    cells = (
        word,
        row["place"] or row["source"],
        row["id"],
        row["source"],
        before,
        after,
        row["stage"] or "",
        why,
        detail,
    )
    return cells, tuple(row["by"] or ())


def _fitting(frame: pl.DataFrame) -> pl.DataFrame:
    """Take as many changes as fit, of each word alike many. Reads: word."""
    left = CHANGES_CHARACTERS // CHARACTERS_A_ROW
    if frame.height <= left:
        return frame
    sizes = sorted(frame.group_by("word").len().iter_rows(), key=lambda pair: (pair[1], pair[0]))
    quota: dict[str, int] = {}
    for number, (word, rows) in enumerate(sizes):
        quota[word] = min(rows, left // (len(sizes) - number))
        left -= quota[word]
    most = pl.col("word").replace_strict(quota, return_dtype=pl.Int64)
    return frame.filter(pl.int_range(pl.len()).over("word") < most)


@dataclass(frozen=True)
class Changes:
    """The changes as the page holds them: the first rows, all that fit as data, and what can be filtered by."""

    total: int
    held: int
    first: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    data: Markup
    words: tuple[Choice, ...]
    stages: tuple[Choice, ...]
    makers: tuple[Choice, ...]
    sources: tuple[Choice, ...]


def changes_of(account: Account) -> Changes:
    """Pack the changes: a list of texts, each there once, and rows that name them by number."""
    texts: dict[str, int] = {}
    packed: list[list[Any]] = []
    first: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("word", "stage", "by", "source")}
    room = CHANGES_CHARACTERS
    frame = account.diff.changes
    for row in _fitting(frame).iter_rows(named=True):
        cells, makers = change_row(row)
        fresh = [text for text in (*cells, *makers) if text not in texts]
        room -= 60 + sum(len(text) + 3 for text in fresh)
        if room < 0:
            break
        for text in fresh:
            texts.setdefault(text, len(texts))
        packed.append([*(texts[cell] for cell in cells), [texts[maker] for maker in makers]])
        if len(first) < ROWS_A_PAGE:
            first.append((cells, makers))
        counts["word"][cells[0]] += 1
        counts["source"][cells[3]] += 1
        counts["stage"][cells[6]] += 1
        counts["by"].update(makers)
    data = data_block({"texts": list(texts), "rows": packed, "page": ROWS_A_PAGE, "hidden": HIDDEN_JS})
    words = tuple(Choice(word, counts["word"][word]) for word in (*WORDS, *MEANINGS) if counts["word"][word])
    stages = tuple(Choice(s, counts["stage"][s]) for s in sorted(counts["stage"], key=stage_order) if s)
    makers, sources = (
        tuple(Choice(value, n) for value, n in sorted(counts[name].items()) if value) for name in ("by", "source")
    )
    return Changes(frame.height, len(packed), tuple(first), data, tuple(dict.fromkeys(words)), stages, makers, sources)
