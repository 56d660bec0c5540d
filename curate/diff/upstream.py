"""Rows that were edited upstream: a removed row and an added one of the same source that are near-duplicates.

A source without ids of its own gives an edited row a new id, so a new release shows up as removals and additions. Here
they are paired, each row once, the most similar first; the confidence is the Jaccard similarity of word n-grams.
"""

from collections.abc import Iterator
from dataclasses import replace

import polars as pl

from curate.dedup.plain import near_duplicates
from curate.diff.changes import Diff, in_order
from schemas.config import DedupConfig
from schemas.dataset import Dataset
from schemas.record import prompt_text, response_text

LEAST_CONFIDENCE = 0.5
"""Below this, half of the n-grams differ, and two rows are more likely two than one that was edited."""

_SEARCH = DedupConfig(threshold=LEAST_CONFIDENCE, ngram=2)
"""Word pairs, so that one changed word in a short row leaves most of them as they were."""


def pair_upstream(diff: Diff) -> Diff:
    """Replace removed and added changes that are near-duplicates by one `edited_upstream` change for each pair.

    `id` is the removed row's, `match` the added row's, `confidence` their similarity.
    """
    removed = diff.changes.filter(pl.col("word") == "removed")
    added = diff.changes.filter(pl.col("word") == "added")
    if not removed.height or not added.height:
        return diff
    pairs: list[dict[str, object]] = []
    for source in sorted(set(removed["source"]) & set(added["source"])):
        old = _texts(diff.before, removed.filter(pl.col("source") == source)["id"])
        new = _texts(diff.after, added.filter(pl.col("source") == source)["id"])
        pairs += _pairs(old, new)
    if not pairs:
        return diff
    found = pl.DataFrame(pairs, schema={"id": pl.String, "match": pl.String, "confidence": pl.Float64})
    kept_after = added.select(pl.col("id").alias("match"), "after", "kept_after")
    edited = (
        removed.drop("match", "confidence", "after", "kept_after")
        .join(found, on="id")
        .join(kept_after, on="match")
        .with_columns(word=pl.lit("edited_upstream"))
        .select(diff.changes.columns)
    )
    paired = (pl.col("word") == "removed") & pl.col("id").is_in(found["id"].to_list())
    paired |= (pl.col("word") == "added") & pl.col("id").is_in(found["match"].to_list())
    return replace(diff, changes=in_order(pl.concat([diff.changes.filter(~paired), edited])))


def _texts(dataset: Dataset, ids: pl.Series) -> pl.DataFrame:
    """Give the rows that were found, in order of id. Reads: id, messages, context. Adds: text, all that is said."""
    return (
        dataset.scan(["id", "messages", "context"])
        .filter(pl.col("id").is_in(ids.to_list()))
        .select("id", text=pl.concat_str([prompt_text(), response_text().fill_null("")], separator=" "))
        .collect(engine="streaming")
        .sort("id")
    )


def _pairs(old: pl.DataFrame, new: pl.DataFrame) -> Iterator[dict[str, object]]:
    """Pair rows greedily, the most similar first; ties go to the smaller ids.

    Equal texts first, then every old row finds the new one that is likest. Of several that find the same one, the
    likest gets it, and the others look among what is left.
    """
    occurrence = pl.int_range(pl.len()).over("text").alias("occurrence")
    same = old.with_columns(occurrence).join(
        new.with_columns(occurrence), on=["text", "occurrence"], suffix="_new", maintain_order="left"
    )
    for row, match in same.select("id", "id_new").iter_rows():
        yield {"id": row, "match": match, "confidence": 1.0}
    old = old.join(same, on="id", how="anti", maintain_order="left")
    new = new.join(same, left_on="id", right_on="id_new", how="anti", maintain_order="left")
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
