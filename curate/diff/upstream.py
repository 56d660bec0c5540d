"""Rows that were edited upstream: a removed row and an added one of the same source that are near-duplicates.

A source without ids of its own gives an edited row a new id, so a new release shows up as removals and additions. Here
they are paired, each row once, the most similar first; the confidence is the Jaccard similarity of word n-grams.
"""

from collections.abc import Iterator
from dataclasses import replace

import polars as pl

from curate.dedup.plain import near_duplicates
from curate.diff.changes import Diff, in_order
from curate.diff.places import read_places, side
from schemas.config import DedupConfig
from schemas.record import prompt_text, response_text

LEAST_CONFIDENCE = 0.5
"""Below this, half of the n-grams differ, and two rows are more likely two than one that was edited."""

MOST_ROWS = 200_000
"""Removed or added rows of a source whose texts are compared: 1 GB at 1,500 characters each. More of them are another
source under the same name, rather than an edited one."""

_PAIRS = pl.Schema({"id": pl.String, "match": pl.String, "confidence": pl.Float64})

_SEARCH = DedupConfig(threshold=LEAST_CONFIDENCE, ngram=2)
"""Word pairs, so that one changed word in a short row leaves most of them as they were."""


def pair_upstream(diff: Diff) -> Diff:
    """Replace removed and added changes that are near-duplicates by one `edited_upstream` change for each pair.

    `id` is the removed row's, `match` the added row's, `confidence` their similarity. Where a source has more rows on
    a side than `MOST_ROWS`, only those with equal texts are paired, and `notes` say so.
    """
    removed = diff.changes.filter(pl.col("word") == "removed")
    added = diff.changes.filter(pl.col("word") == "added")
    if not removed.height or not added.height:
        return diff
    pairs: list[pl.DataFrame] = []
    notes: list[str] = []
    for source in sorted(set(removed["source"]) & set(added["source"])):
        old, new = (
            rows.filter(pl.col("source") == source)
            .select("id")
            .join(diff.rows, on="id", maintain_order="left")
            .sort("id")
            for rows in (removed, added)
        )
        same = _same(old, new)
        pairs.append(same)
        old = old.join(same, on="id", how="anti", maintain_order="left")
        new = new.join(same, left_on="id", right_on="match", how="anti", maintain_order="left")
        if max(old.height, new.height) > MOST_ROWS:
            notes.append(
                f"source {source}: {old.height:,} removed and {new.height:,} added rows have no equal; which of them "
                f"were edited by their publisher is not looked for above {MOST_ROWS:,}"
            )
        elif old.height and new.height:
            columns = ["messages", "context"]
            texts = (
                read_places(diff.before, side(old, after=False), columns, then=[_text()]).with_columns(old["id"]),
                read_places(diff.after, side(new, after=True), columns, then=[_text()]).with_columns(new["id"]),
            )
            pairs.append(pl.DataFrame(list(_pairs(*texts)), schema=_PAIRS))
    found = pl.concat([_PAIRS.to_frame(), *pairs])
    kept_after = added.select("after", "kept_after", match="id")
    edited = (
        removed.drop("match", "confidence", "after", "kept_after")
        .join(found, on="id")
        .join(kept_after, on="match")
        .with_columns(word=pl.lit("edited_upstream"))
        .select(diff.changes.columns)
    )
    paired = (pl.col("word") == "removed") & pl.col("id").is_in(found["id"].implode())
    paired |= (pl.col("word") == "added") & pl.col("id").is_in(found["match"].implode())
    changes = in_order(pl.concat([diff.changes.filter(~paired), edited]))
    return replace(diff, changes=changes, notes=(*diff.notes, *notes))


def _text() -> pl.Expr:
    """All that is said. Reads: messages, context. Adds: text."""
    return pl.concat_str([prompt_text(), response_text().fill_null("")], separator=" ").alias("text")


def _same(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """Pair rows whose texts are equal by their hashes, each once, in order of their ids."""
    old, new = old.select("id", "content_hash"), new.select("id", content_hash="content_hash_after")
    occurrence = pl.int_range(pl.len()).over("content_hash").alias("occurrence")
    same = old.with_columns(occurrence).join(
        new.with_columns(occurrence), on=["content_hash", "occurrence"], suffix="_new"
    )
    return same.select("id", match="id_new", confidence=pl.lit(1.0)).sort("id")


def _pairs(old: pl.DataFrame, new: pl.DataFrame) -> Iterator[dict[str, object]]:
    """Pair rows greedily, the most similar first; ties go to the smaller ids. Reads: id, text.

    Every old row finds the new one that is likest. Of several that find the same one, the likest gets it, and the
    others look among what is left.
    """
    while old.height and new.height:
        found = near_duplicates(pl.concat([new["text"], old["text"]]), _SEARCH, firsts=new.height)
        if not found.height:
            return
        found = found.sort("jaccard", "row", descending=[True, False]).unique("duplicate_of", keep="first")
        taken = found["row"].cast(pl.Int64) - new.height, found["duplicate_of"]
        for row, match, confidence in zip(*taken, found["jaccard"], strict=True):
            yield {"id": old["id"][row], "match": new["id"][match], "confidence": confidence}
        old, new = (
            side.with_row_index().filter(~pl.col("index").is_in(rows.to_list())).drop("index")
            for side, rows in zip((old, new), taken, strict=True)
        )
