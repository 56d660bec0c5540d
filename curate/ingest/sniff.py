"""Which format rows have, found by reading the first of them as each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from curate.ingest.formats import FORMATS
from curate.ingest.row import RowError
from schemas.errors import InputError

SAMPLE_ROWS = 100
SAMPLE_BYTES = 8_000_000
"""Bounds of the sample: enough rows to outvote a few broken ones, in memory that does not depend on the file."""


@dataclass(frozen=True)
class Sniffed:
    """The format of a file, and the sentence that says why."""

    format: str
    why: str


def fitting(rows: Sequence[Any]) -> dict[str, int]:
    """Count the rows that each format can read, best first; formats that read none are left out."""
    counts = {name: sum(_fits(name, row) for row in rows) for name in FORMATS}
    return dict(sorted(((n, c) for n, c in counts.items() if c), key=lambda item: -item[1]))


def _fits(name: str, row: Any) -> bool:
    if not isinstance(row, dict):
        return False
    try:
        FORMATS[name].parse(row)
    except (RowError, RecursionError):
        return False
    return True


def fields_found(rows: Sequence[Any]) -> str:
    """Name the fields of the rows, those that most rows have first."""
    counts: dict[str, int] = {}
    for row in rows:
        for name in row if isinstance(row, dict) else ():
            counts[name] = counts.get(name, 0) + 1
    names = sorted(counts, key=lambda name: -counts[name])
    shown = ", ".join(repr(name[:60]) for name in names[:12])
    return (shown + (" …" if len(names) > 12 else "")) or "no objects with fields"


def sniff(rows: Sequence[Any], where: str) -> Sniffed:
    """Decide the format of a file from its first rows. Raises InputError where none, or more than one, fits best."""
    counts = fitting(rows)
    best = list(counts)[:2]
    if len(best) == 1 or (best and counts[best[0]] > counts[best[1]]):
        name = best[0]
        why = f"{where} is read as {name}: {counts[name]} of its first {len(rows)} rows have {FORMATS[name].needs}"
        return Sniffed(name, why)
    needs = "; ".join(f"{name}: {form.needs}" for name, form in FORMATS.items())
    if best:
        tied = " and ".join(name for name in counts if counts[name] == counts[best[0]])
        found = f"rows with the fields {fields_found(rows)} can be read as {tied}"
        raise InputError(where, found, "rows that fit one format best", f"name the format instead of auto ({needs})")
    raise InputError(where, f"rows with {fields_found(rows)}", f"the fields of a known format ({needs})")
