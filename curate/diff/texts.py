"""Texts: which texts of an edited row differ, and for as many rows as are shown, how, word by word."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from curate.change import changed_texts, word_diff
from curate.diff.changes import Diff
from curate.diff.places import read_places, side
from schemas.stages import STAGES

if TYPE_CHECKING:
    from curate.diff.account import EditedRow

EDITED = ("edited_upstream", "edited")

BATCH_ROWS = 256
"""Rows whose texts are held at a time: 16 MB where each is as long as ingest reads by default is never met."""


def edited_rows(diff: Diff, limit: int) -> "tuple[tuple[EditedRow, ...], int]":
    """Give at most `limit` edited rows with their texts word by word, and how many edited rows there are.

    Where there are more, each word and stage has alike many, those with the smallest ids. By word, stage, source, id.
    `diff` is one that is attributed.
    """
    from curate.diff.account import EditedRow, TextChange  # noqa: PLC0415 # account is made of this

    edited = diff.changes.filter(pl.col("word").is_in(EDITED))
    order = pl.col("stage").replace_strict({s: i for i, s in enumerate(STAGES)}, default=None, return_dtype=pl.UInt8)
    chosen = (
        edited.sort("id")
        .with_columns(turn=pl.int_range(pl.len()).over("word", "stage"))
        .sort("turn", "word", order, "id", descending=[False, True, False, False])
        .head(limit)
        .sort("word", order, "source", "id", descending=[True, False, False, False])
    )
    found: list[EditedRow] = []
    for batch in chosen.iter_slices(BATCH_ROWS):
        for row, old, new in _texts(diff, batch):
            texts = tuple(TextChange(where, tuple(word_diff(*pair))) for where, *pair in differing(old, new))
            found.append(
                EditedRow(
                    id=row["id"],
                    place=row["place"],
                    source=row["source"],
                    word=row["word"],
                    stage=row["stage"],
                    by=tuple(row["by"]),
                    cause=row["cause"],
                    match=row["match"],
                    confidence=row["confidence"],
                    texts=texts,
                )
            )
    return tuple(found), edited.height


def changed_fields(diff: Diff) -> pl.DataFrame:
    """Name the texts that differ, for every edited row. Adds: word, id, fields.

    Texts are read a shard at a time and compared by their hashes, so none stays in memory.
    """
    edited = diff.changes.filter(pl.col("word").is_in(EDITED))
    places = _places(diff, edited)
    old = _hashed(diff, side(places, after=False), after=False)
    new = _hashed(diff, side(places, after=True), after=True)
    fields = [
        list(dict.fromkeys(where for where, *_ in differing(a, b))) or ["messages"]  # a name or a call of a tool
        for a, b in zip(old.iter_rows(named=True), new.iter_rows(named=True), strict=True)
    ]
    return edited.select("word", "id", fields=pl.Series(fields, dtype=pl.List(pl.String)))


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Give what differs as (where, before, after): "messages[1] assistant", "messages[0].role", "context".

    Reads: messages, context.
    """
    for text in changed_texts(before, after):
        if text.turn is None:
            yield "context", text.before, text.after
            continue
        if text.roles[0] and text.roles[1] and text.roles[0] != text.roles[1]:
            yield f"messages[{text.turn}].role", *text.roles
        if text.before != text.after:
            yield f"messages[{text.turn}] {text.roles[0] or text.roles[1]}", text.before, text.after


def _places(diff: Diff, edited: pl.DataFrame) -> pl.DataFrame:
    """Give the places of edited rows in both versions; the later one of a pair is the added row's."""
    own = edited.select("id", later=pl.coalesce("match", "id"))
    before = diff.rows.select("id", "shard", "row")
    after = diff.rows.select(pl.col("id").alias("later"), "shard_after", "row_after")
    return own.join(before, on="id", how="left", maintain_order="left").join(
        after, on="later", how="left", maintain_order="left"
    )


def _texts(diff: Diff, edited: pl.DataFrame) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    places = _places(diff, edited)
    old = read_places(diff.before, side(places, after=False), ["messages", "context"])
    new = read_places(diff.after, side(places, after=True), ["messages", "context"])
    yield from zip(*(frame.iter_rows(named=True) for frame in (edited, old, new)), strict=True)


def _hashed(diff: Diff, places: pl.DataFrame, *, after: bool) -> pl.DataFrame:
    """Read rows with a number in place of each text that is not empty. Adds: messages (role, content), context."""
    turn = pl.element().struct
    content = pl.when(turn.field("content") != "").then(turn.field("content").hash().cast(pl.String))
    hashed = [
        pl.col("messages").list.eval(pl.struct(turn.field("role"), content.alias("content"))),
        pl.when(pl.col("context") != "").then(pl.col("context").hash().cast(pl.String)).alias("context"),
    ]
    dataset = diff.after if after else diff.before
    return read_places(dataset, places, ["messages", "context"], then=hashed)
