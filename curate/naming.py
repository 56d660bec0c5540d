"""Naming: how people name rows, and the rows that they mean.

ID             32 hex digits        SOURCE:ROW     where it stood in its source's file
FIRST LETTERS  of an id, six or more, as with git
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from schemas.dataset import Dataset, Shard
from schemas.errors import UnknownReferenceError

SHORTEST_PREFIX = 6
"""An id may be shortened to its first letters; fewer than these are refused as a likely slip."""

MOST_TOLD = 20
"""Names that an error lists; `left out` says how many more there are."""

_ID_LENGTH = 32
_HEX = frozenset("0123456789abcdef")
_DIGITS = 18
"""Digits of a row's number at most: it fits 64 bits."""


@dataclass(frozen=True)
class Named:
    """A row that somebody named: its id, where it stood, and its place in the version (shard, index in it)."""

    id: str
    source: str
    source_file: str
    source_row: int
    shard: Shard
    index: int

    @property
    def place(self) -> str:
        """Where it stood, as people name it."""
        return f"{self.source}:{self.source_row}"


def find_row(dataset: Dataset, name: str) -> Named:
    """Find one row by its name. Raises UnknownReferenceError as `find_rows`."""
    return find_rows(dataset, [name])[0]


def find_rows(dataset: Dataset, names: Sequence[str]) -> list[Named]:
    """Find rows by their names, in that order, each row once. Reads: id, source, source_file, source_row.

    Raises UnknownReferenceError that lists every name that is too short, of no row, or of more than one.
    """
    places = {name: place for name in names if (place := _place(name))}
    prefixes = {name: name.lower() for name in names if name not in places}
    found: dict[str, list[Named]] = defaultdict(list)
    usable = [p for p in prefixes.values() if SHORTEST_PREFIX <= len(p) <= _ID_LENGTH and set(p) <= _HEX]
    lengths = sorted({len(p) for p in usable})
    own = {length: [p for p in usable if len(p) == length] for length in lengths}
    by_id = pl.any_horizontal(
        pl.lit(value=False),
        *(pl.col("id").str.head(n).is_in(pl.Series(some, dtype=pl.String).implode()) for n, some in own.items()),
    )
    for shard in dataset.shards:
        rows = pl.Series([row for source, row in places.values() if source == shard.source], dtype=pl.Int64)
        wanted = by_id | pl.col("source_row").is_in(rows.implode())
        view = shard.view(["id", "source", "source_file", "source_row"]).with_row_index("index").filter(wanted)
        for hit in view.collect().iter_rows(named=True):
            row = Named(**{k: v for k, v in hit.items() if k != "index"}, shard=shard, index=int(hit["index"]))
            for key in (row.place, *(row.id[:length] for length in lengths)):
                found[key].append(row)
    meant = {name: found[_key(places[name]) if name in places else prefixes[name]] for name in names}
    if problems := [_problem(name, meant[name], is_place=name in places) for name in meant if len(meant[name]) != 1]:
        _refuse(dataset, problems)
    return list({row.id: row for (row,) in meant.values()}.values())


def _place(name: str) -> tuple[str, int] | None:
    """Read SOURCE:ROW; None for a name that is none."""
    source, colon, number = name.rpartition(":")
    is_number = number.isascii() and number.isdigit() and len(number) <= _DIGITS
    return (source, int(number)) if colon and is_number else None


def _key(place: tuple[str, int]) -> str:
    return f"{place[0]}:{place[1]}"


def _problem(name: str, rows: Sequence[Named], *, is_place: bool) -> tuple[str, str]:
    if rows:
        some = ", ".join(f"{row.id} ({row.source_file})" for row in rows[:5])
        return name, f"{len(rows)} rows go by that name: {some}"
    return name, "" if is_place or len(name) >= SHORTEST_PREFIX else "too short for an id"


def _refuse(dataset: Dataset, problems: Sequence[tuple[str, str]]) -> None:
    """Raise one error for all names that are of no row, or of several."""
    version = f"{dataset.manifest.name}@{dataset.manifest.seq}"
    expected = f"{SHORTEST_PREFIX} or more hex digits of an id, or SOURCE:ROW"
    if len(problems) == 1:
        name, what = problems[0]
        raise UnknownReferenceError(f"row {name!r}", what or f"not in {version}", expected)
    told = [f"{name} ({what})" if what else name for name, what in problems[:MOST_TOLD]]
    more = f" and {len(problems) - MOST_TOLD:,} more" if len(problems) > MOST_TOLD else ""
    raise UnknownReferenceError(
        f"{len(problems):,} names of rows", f"{', '.join(told)}{more}: of no one row in {version}", expected
    )


def unique(names: Iterable[str]) -> list[str]:
    """Give names without blanks and repetitions, in order."""
    return list(dict.fromkeys(name.strip() for name in names if name.strip()))
