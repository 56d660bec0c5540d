"""Dedup: of rows that say the same, one stays, and every other one names it.

The order of preference decides which: source priority, then fewer flags, then the longer response, then the smaller id.
All of it is known before dedup runs and none of it depends on the order of files or sources.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from curate.dedup.cluster import NONE, Rows, cluster
from curate.dedup.shingle import Words, join_words, word_hashes
from curate.key import answer_text, key_hash, key_text
from curate.stage import Note, Output, Progress, ShardOutput, Stage
from schemas.config import DedupConfig
from schemas.dataset import Dataset, Shard
from schemas.errors import ConfigError
from schemas.record import VERDICT_SCHEMA, prompt_text, turns_text
from schemas.stages import ANNOTATION_COLUMNS

_OPINION = pl.Schema({**VERDICT_SCHEMA, **ANNOTATION_COLUMNS["dedup"]})
_PREFERENCE = ("priority", "flag_count", "answer_length", "id")
_DESCENDING = (False, False, True, False)


@dataclass(frozen=True)
class Judged:
    """The judged rows of a shard. `table` has a row for each: shard, row, id, place, preference, and text hashes."""

    table: pl.DataFrame
    asked: Words
    prompt: Words
    answer: Words


def read_shard(shard: Shard, number: int, config: DedupConfig) -> Judged:
    """Read what dedup needs of one shard, and keep no text of it.

    Reads: id, source, source_file, source_row, messages, context, tools, flags, kept.
    Adds: shard, row, priority, flag_count, answer_length, prompt_key, tools_key, row_key.
    """
    columns = ["id", "source", "source_file", "source_row", "messages", "context", "tools", "flags", "kept"]
    order = {source: i for i, source in enumerate(config.source_priority)}
    frame = (
        shard.view(columns, before_stage="dedup")
        .with_row_index("row")
        .filter("kept")
        .with_columns(answer=answer_text(), prompt=prompt_text(), asked=turns_text("user"))
        .with_columns(
            pl.col("answer").str.len_chars().alias("answer_length"),
            pl.col("flags").list.len().fill_null(0).alias("flag_count"),
            pl.lit(order.get(shard.source, len(order)), pl.UInt32).alias("priority"),
            pl.lit(number, pl.UInt32).alias("shard"),
            *(key_text(pl.col(part)).alias(part) for part in ("asked", "prompt", "answer")),
        )
        .drop("messages", "context", "flags", "kept")
        .collect()
    )
    prompt, answer, tools = frame["prompt"], frame["answer"], frame["tools"].fill_null("")
    keys = [
        key_hash(prompt, tools).alias("prompt_key"),
        key_hash(tools).alias("tools_key"),
        key_hash(prompt, tools, answer).alias("row_key"),
    ]
    table = frame.drop("asked", "prompt", "answer", "tools").with_columns(keys)
    return Judged(table, word_hashes(frame["asked"]), word_hashes(prompt), word_hashes(answer))


def _take(words: Words, chosen: list[int]) -> Words:
    parts = [words.of(i) for i in chosen]
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts], dtype=np.int64)]).astype(np.int64)
    return Words(np.concatenate([np.zeros(0, np.uint64), *parts]), starts)


def judge(shards: list[Judged], config: DedupConfig, progress: Progress) -> pl.DataFrame:
    """Decide which of all rows stay.

    Reads: the tables of `read_shard`. Adds: verdict, detail, cluster_id (the kept row's id; null for a row that has no
    duplicates, which is nearly every row), duplicate_of, jaccard, conflict_id.
    """
    table = pl.concat([shard.table for shard in shards]).with_row_index("at")
    table = table.sort(_PREFERENCE, descending=_DESCENDING)
    distinct = table.unique("row_key", keep="first", maintain_order=True).with_row_index("number")
    chosen = distinct["at"].to_list()
    rows = Rows(
        *(_take(join_words([getattr(s, part) for s in shards]), chosen) for part in ("asked", "prompt", "answer")),
        prompts=distinct["prompt_key"].to_list(),
        tools=distinct["tools_key"].to_list(),
    )
    progress(table.height - len(rows))
    found = cluster(rows, config, progress)
    numbers = pl.DataFrame(
        {
            "number": np.arange(len(rows)),
            "keeper": found.keeper,
            "jaccard": found.similarity,
            "conflict": found.conflict,
        }
    ).with_columns(pl.col("number", "keeper", "conflict").cast(pl.Int64))
    place = pl.format("{} ({} {}:{})", "id", "source", "source_file", "source_row")
    names = distinct.select(pl.col("number").cast(pl.Int64), pl.col("id").alias("named"), place.alias("place"))
    firsts = distinct.select("row_key", pl.col("number").cast(pl.Int64), pl.col("id").alias("first_id"))
    near = pl.col("keeper") != NONE
    exact = pl.col("id") != pl.col("first_id")  # a copy of a near-duplicate is a near-duplicate: `near` is asked first
    kept_number = pl.when(near).then("keeper").otherwise("number")
    return (
        table.join(firsts, on="row_key", maintain_order="left")
        .join(numbers, on="number", maintain_order="left")
        .with_columns(kept_number=kept_number)
        .join(names.rename({"number": "kept_number"}), on="kept_number", maintain_order="left")
        .join(
            names.select(pl.col("number").alias("conflict"), pl.col("named").alias("conflict_id")),
            on="conflict",
            how="left",
            maintain_order="left",
        )
        .select(
            "shard",
            "row",
            verdict=pl.when(near).then(pl.lit("duplicate:near")).when(exact).then(pl.lit("duplicate:exact")),
            detail=pl.when(near)
            .then(pl.format("{} with {}", pl.col("jaccard").round(3), "place"))
            .when(exact)
            .then(pl.format("the same as {}", "place")),
            cluster_id=pl.when(pl.len().over("named") > 1).then("named"),
            duplicate_of=pl.when(near | exact).then("named"),
            jaccard=pl.when(near | exact).then("jaccard").cast(pl.Float32),
            conflict_id=pl.when(~near & ~exact).then("conflict_id"),
        )
    )


def run(dataset: Dataset, config: DedupConfig, progress: Progress) -> Iterator[Output]:
    """Find the duplicates among all rows that are kept so far."""
    sources = {shard.source for shard in dataset.shards}
    unknown = [name for name in config.source_priority if name not in sources]
    if unknown:
        raise ConfigError(
            "dedup, source_priority", f"no source is named {', '.join(unknown)}", f"one of {', '.join(sorted(sources))}"
        )
    if not dataset.shards:
        return
    shards = [read_shard(shard, number, config) for number, shard in enumerate(dataset.shards)]
    progress(dataset.rows - sum(shard.table.height for shard in shards))
    opinions = judge(shards, config, progress)
    for number, shard in enumerate(dataset.shards):
        own = opinions.filter(pl.col("shard") == number).drop("shard")
        every = pl.DataFrame({"row": pl.arange(shard.rows, dtype=pl.UInt32, eager=True)})
        annotation = every.join(own, on="row", how="left", maintain_order="left").select(list(_OPINION))
        yield ShardOutput(shard, annotation)
    yield _note(opinions)


def _note(opinions: pl.DataFrame) -> Note:
    clusters = opinions.filter(pl.col("duplicate_of").is_not_null())["cluster_id"].n_unique()
    exact, near = (int((opinions["verdict"] == f"duplicate:{how}").sum()) for how in ("exact", "near"))
    conflicts = opinions["conflict_id"].drop_nulls()
    return Note(
        f"left out as duplicates: {exact:,} exact and {near:,} near, in clusters: {clusters:,}; "
        f"conflicts (same prompt, other answer): {conflicts.n_unique():,}, rows in them: {len(conflicts):,}, all kept"
    )


STAGE = Stage("dedup", 1, DedupConfig, run)
