"""Texts: which texts of an edited row differ, and for as many rows as are shown, how, word by word."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from curate.change import FIELDS, texts_by_name, word_diff
from curate.diff.changes import Diff
from curate.diff.places import read_places, side
from curate.diff.redaction import masked_pieces, redacted
from schemas.stages import STAGES

if TYPE_CHECKING:
    from curate.diff.account import EditedRow

EDITED = ("edited_upstream", "edited")


def edited_rows(diff: Diff, limit: int) -> "tuple[tuple[EditedRow, ...], int]":
    """Give at most `limit` edited rows with their texts word by word, and how many edited rows there are.

    Where there are more, each word and stage has alike many, those with the smallest ids. By word, stage, source, id.
    What pii redacted in one version is masked in the other (`curate.diff.redaction`). `diff` is one that is attributed.
    Memory: the texts of the rows that are given; each shard is read once.
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
    places = _places(diff, chosen)
    sides = [(d, side(places, after=after)) for d, after in ((diff.before, False), (diff.after, True))]
    frames = [chosen, *(read_places(*one, ["messages", "context"]) for one in sides)]
    hidden = [redacted(*one) for one in sides]
    for row, old, new, before, after in zip(*(f.iter_rows(named=True) for f in frames), *hidden, strict=True):
        texts: list[TextChange] = []
        for where, *pair in texts_by_name(old, new):
            pieces = word_diff(*pair)
            own = pieces if where.endswith(".role") else masked_pieces(pieces, before=before, after=after)
            texts.append(TextChange(where, tuple(own)))
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
                texts=tuple(texts),
            )
        )
    return tuple(found), edited.height


def redacted_rows(diff: Diff, ids: Sequence[str], *, after: bool) -> dict[str, dict[str, Any]]:
    """Give the texts (messages, context) of those rows that pii redacted in a version, by the id of the change."""
    matches = diff.changes.filter(pl.col("word") == "edited_upstream").select("id", "match")
    own = pl.DataFrame({"id": ids}, schema={"id": pl.String}).unique(maintain_order=True)
    places = _places(diff, own.join(matches, on="id", how="left", maintain_order="left"))
    dataset = diff.after if after else diff.before
    rows = side(places, after=after).with_columns(own["id"])
    found = rows.filter(redacted(dataset, rows))
    texts = read_places(dataset, found, ["messages", "context"])
    return dict(zip(found["id"].to_list(), texts.iter_rows(named=True), strict=True))


def changed_fields(diff: Diff) -> pl.DataFrame:
    """Name the texts that differ, for every edited row. Adds: word, id, fields.

    Texts are read a shard at a time and compared by their hashes, so none stays in memory.
    """
    edited = diff.changes.filter(pl.col("word").is_in(EDITED))
    places = _places(diff, edited)
    old = _hashed(diff, side(places, after=False), after=False)
    new = _hashed(diff, side(places, after=True), after=True)
    fields = [
        list(dict.fromkeys(where for where, *_ in texts_by_name(a, b)))
        for a, b in zip(old.iter_rows(named=True), new.iter_rows(named=True), strict=True)
    ]
    return edited.select("word", "id", fields=pl.Series(fields, dtype=pl.List(pl.String)))


def _places(diff: Diff, edited: pl.DataFrame) -> pl.DataFrame:
    """Give the places of edited rows in both versions; the later one of a pair is the added row's."""
    own = edited.select("id", later=pl.coalesce("match", "id"))
    before = diff.rows.select("id", "shard", "row")
    after = diff.rows.select(pl.col("id").alias("later"), "shard_after", "row_after")
    return own.join(before, on="id", how="left", maintain_order="left").join(
        after, on="later", how="left", maintain_order="left"
    )


def _hashed(diff: Diff, places: pl.DataFrame, *, after: bool) -> pl.DataFrame:
    """Read rows with a number in place of each text that is not empty. Adds: messages, context."""
    turn = pl.element().struct
    texts = [
        pl.when(turn.field(field) != "").then(turn.field(field).hash().cast(pl.String)).alias(field) for field in FIELDS
    ]
    hashed = [
        pl.col("messages").list.eval(pl.struct(turn.field("role"), *texts)),
        pl.when(pl.col("context") != "").then(pl.col("context").hash().cast(pl.String)).alias("context"),
    ]
    dataset = diff.after if after else diff.before
    return read_places(dataset, places, ["messages", "context"], then=hashed)
