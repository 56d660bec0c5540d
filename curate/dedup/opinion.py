"""Opinions: what the search found, as the annotation of each shard and as a sentence for a person."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from curate.dedup.search import Found
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
                text = pl.scan_ipc(shard.text).select("id", "source_file", "source_row").collect()
                of = f" of {side.version}" if side.version else ""
                place = pl.format(
                    "{} ({} {}:{}{})", "id", pl.lit(shard.source), "source_file", "source_row", pl.lit(of)
                )
                named = text[(own - first).cast(pl.UInt32)].select("id", place=place)
                found.append(named.insert_column(0, own))
            first += shard.rows
    return pl.concat(found)


def opinions(shards: Sequence[Shard], found: Found, named: pl.DataFrame, own_rows: int) -> Iterator[pl.DataFrame]:
    """Give the annotation of each shard.

    Adds: verdict, detail, cluster_id (the kept row's id; null for a row without duplicates, which is nearly every row),
    duplicate_of, jaccard, conflict_id, answer_id (the first row of the group, also for that row itself).
    """
    duplicates = (
        found.duplicates.join(named.rename({"row": "of"}), on="of", maintain_order="left")
        .with_columns(elsewhere=pl.col("of") >= own_rows)
        .select(
            "row",
            verdict=pl.concat_str(
                pl.when("elsewhere").then(pl.lit("overlap:")).otherwise(pl.lit("duplicate:")),
                pl.when("exact").then(pl.lit("exact")).otherwise(pl.lit("near")),
            ),
            detail=pl.when("exact")
            .then(pl.format("the same as {}", "place"))
            .otherwise(pl.format("{} with {}", pl.col("jaccard").cast(pl.Float32).cast(pl.Float64).round(3), "place")),
            duplicate_of="id",
            jaccard=pl.col("jaccard").cast(pl.Float32),
        )
    )
    clusters, conflicts, answers = (
        _groups(links, named, column)
        for links, column in (
            (found.duplicates.filter(pl.col("of") < own_rows), "cluster_id"),
            (found.conflicts, "conflict_id"),
            (found.answers, "answer_id"),
        )
    )
    parts = [duplicates, clusters, conflicts, answers]
    opinion = pl.concat([part.select("row") for part in parts]).unique().sort("row")
    for part in parts:
        opinion = opinion.join(part, on="row", how="left", maintain_order="left")
    opinion = opinion.select("row", *OPINION)
    first = 0
    for shard in shards:
        start, end = opinion["row"].search_sorted(pl.Series([first, first + shard.rows], dtype=pl.UInt32))
        said = np.full(shard.rows, -1)
        said[opinion["row"][start:end].to_numpy() - first] = np.arange(start, end)
        places = pl.Series(said).replace(-1, None)
        yield opinion.select(pl.col(list(OPINION)).gather(places))
        first += shard.rows


def _groups(links: pl.DataFrame, named: pl.DataFrame, column: str) -> pl.DataFrame:
    """Give every row of a group, its first one too, the id of that first one."""
    members = pl.concat([links.select("row", "of"), links.select(pl.col("of").alias("row"), "of").unique()])
    ids = named.select(pl.col("row").alias("of"), pl.col("id").alias(column))
    return members.join(ids, on="of", maintain_order="left").select("row", column)


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
