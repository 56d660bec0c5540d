"""Opinions: what the search found, as the annotation of each shard and as a sentence for a person."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from curate.dedup.search import Found
from curate.dedup.texts import map_object
from schemas.dataset import Shard
from schemas.record import VERDICT_SCHEMA
from schemas.stages import ANNOTATION_COLUMNS

OPINION = pl.Schema({**VERDICT_SCHEMA, **ANNOTATION_COLUMNS["dedup"]})
_PLACE = ("row", "id", "place")


@dataclass(frozen=True)
class Side:
    """Shards whose rows were searched together, and the name of their version where it is another one."""

    shards: Sequence[Shard]
    version: str | None = None


def places(sides: Sequence[Side], rows: pl.Series) -> pl.DataFrame:
    """Name rows: `row`, `id`, and `place`, where a person finds it. Reads: id, source_file, source_row."""
    wanted = rows.unique().sort().alias("row")
    found = [pl.DataFrame(schema={"row": pl.UInt32, "id": pl.String, "place": pl.String})]
    first = 0
    for side in sides:
        for shard in side.shards:
            own = wanted.filter(wanted.is_between(first, first + shard.rows, closed="left"))
            if len(own):
                _, batch = map_object(shard.text)
                rows_of = pa.array((own - first).to_numpy())
                text = pl.DataFrame(pa.table(batch.select(["id", "source_file", "source_row"]).take(rows_of)))
                of = f" of {side.version}" if side.version else ""
                place = pl.format(
                    "{} ({} {}:{}{})", "id", pl.lit(shard.source), "source_file", "source_row", pl.lit(of)
                )
                named = text.select("id", place=place)
                found.append(named.insert_column(0, own))
            first += shard.rows
    return pl.concat(found, rechunk=True)


def opinions(shards: Sequence[Shard], found: Found, named: pl.DataFrame, own_rows: int) -> Iterator[pl.DataFrame]:
    """Give the annotation of each shard.

    Adds: verdict, detail, cluster_id (the kept row's id; null for a row without duplicates, which is nearly every row),
    duplicate_of, jaccard, conflict_id, answer_id (the first row of the group, also for that row itself).
    """
    of = _at(found.duplicates["of"], named)
    duplicates = found.duplicates.hstack(of.select("id", "place")).select(
        "row",
        verdict=pl.concat_str(
            pl.when(pl.col("of") >= own_rows).then(pl.lit("overlap:")).otherwise(pl.lit("duplicate:")),
            pl.when("exact").then(pl.lit("exact")).otherwise(pl.lit("near")),
        ),
        detail=pl.when("exact")
        .then(pl.format("the same as {}", "place"))
        .otherwise(pl.format("{} with {}", pl.col("jaccard").cast(pl.Float32).cast(pl.Float64).round(3), "place")),
        duplicate_of="id",
        jaccard=pl.col("jaccard").cast(pl.Float32),
    )
    parts = [
        duplicates,
        _groups(found.duplicates.filter(pl.col("of") < own_rows), named, "cluster_id"),
        _groups(found.conflicts, named, "conflict_id"),
        _groups(found.answers, named, "answer_id"),
    ]
    told = np.zeros(sum(shard.rows for shard in shards), bool)
    for part in parts:
        told[part["row"].to_numpy()] = True
    rows = np.flatnonzero(told)
    opinion = pl.concat([_spread(part.drop("row"), part["row"].to_numpy(), rows) for part in parts], how="horizontal")
    opinion = opinion.select(list(OPINION))
    first = 0
    for shard in shards:
        start, end = np.searchsorted(rows, [first, first + shard.rows])
        own = opinion.slice(start, end - start)
        yield _spread(own, rows[start:end], np.arange(first, first + shard.rows))
        first += shard.rows


def _at(rows: pl.Series, named: pl.DataFrame) -> pl.DataFrame:
    """Give the names of rows, one by one. `named` is in the order of rows."""
    return named[pl.Series(np.searchsorted(named["row"].to_numpy(), rows.to_numpy()))]


def _spread(frame: pl.DataFrame, rows: NDArray[Any], over: NDArray[Any]) -> pl.DataFrame:
    """Give a frame about some rows as one about more rows, nulls where it says nothing. Both are in order."""
    places = np.full(len(over), frame.height)
    places[np.searchsorted(over, rows)] = np.arange(frame.height)
    nothing = pl.DataFrame({name: [None] for name in frame.columns}, schema=frame.schema)
    return pl.concat([frame, nothing], rechunk=True).select(pl.all().gather(pl.Series(places)))


def _groups(links: pl.DataFrame, named: pl.DataFrame, column: str) -> pl.DataFrame:
    """Give every row of a group, its first one too, the id of that first one, in the order of rows."""
    firsts = links["of"].unique()
    members = pl.DataFrame({"row": pl.concat([links["row"], firsts]), "of": pl.concat([links["of"], firsts])})
    members = members.sort("row")
    return members.select("row", _at(members["of"], named)["id"].alias(column))


def said(found: Found, own_rows: int) -> str:
    """Tell what was found, in one sentence for each kind."""
    inside = found.duplicates.filter(pl.col("of") < own_rows)
    exact, near = inside["exact"].sum(), (~inside["exact"]).sum()
    parts = [
        f"left out as duplicates: {exact:,} exact and {near:,} near, in clusters: {inside['of'].n_unique():,}",
        f"conflicts (same prompt, other answer): {found.conflicts['of'].n_unique():,}, "
        f"rows in them: {found.conflicts.height + found.conflicts['of'].n_unique():,}, all kept",
    ]
    if found.answers.height:
        several = found.answers["of"].n_unique()
        rows = found.answers.height + several
        parts.append(f"answers given to several prompts: {several:,}, rows with them: {rows:,}, all kept")
    if outside := found.duplicates.height - inside.height:
        parts.insert(0, f"left out as in the other dataset already: {outside:,}")
    if found.capped:
        parts.append(f"rows with more look-alikes than are compared: {found.capped:,}")
    return "; ".join(parts)
