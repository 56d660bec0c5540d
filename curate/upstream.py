"""Rows that were edited upstream: a removed row and an added one of the same source that are near-duplicates.

A source without ids of its own gives an edited row a new id, so a new release shows up as removals and additions. Here
they are paired, each row once, the most similar first; the confidence is the Jaccard similarity of word n-grams.
"""

from dataclasses import replace

import polars as pl

from curate.dedup.band import Candidates, choose_bands, signatures
from curate.dedup.shingle import Words, jaccard, shingles, word_hashes
from curate.diff import Diff, in_order
from curate.key import key_text
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


def _texts(dataset: Dataset, ids: pl.Series) -> tuple[list[str], Words]:
    """Give the ids that were found, in order of id, and the word hashes of their whole text."""
    rows = (
        dataset.scan(["id", "messages", "context"])
        .filter(pl.col("id").is_in(ids.to_list()))
        .select("id", text=key_text(pl.concat_str([prompt_text(), response_text().fill_null("")], separator=" ")))
        .collect(engine="streaming")
        .sort("id")
    )
    return rows["id"].to_list(), word_hashes(rows["text"])


def _pairs(old: tuple[list[str], Words], new: tuple[list[str], Words]) -> list[dict[str, object]]:
    """Pair rows greedily, the most similar first; ties go to the smaller ids."""
    before = [shingles(old[1].of(i), _SEARCH.ngram) for i in range(len(old[0]))]
    after = [shingles(new[1].of(i), _SEARCH.ngram) for i in range(len(new[0]))]
    bands, rows = choose_bands(_SEARCH.threshold, _SEARCH.recall, _SEARCH.num_perm)
    index = Candidates(bands, rows, _SEARCH.num_perm)
    for number, mark in enumerate(signatures(iter(before), _SEARCH.num_perm, _SEARCH.seed)):
        index.add(number, mark)
    scored = [
        (-similarity, old[0][i], new[0][j])
        for j, mark in enumerate(signatures(iter(after), _SEARCH.num_perm, _SEARCH.seed))
        for i in (index.near(mark) if len(after[j]) else [])
        if (similarity := jaccard(before[i], after[j])) >= LEAST_CONFIDENCE
    ]
    taken: set[str] = set()
    pairs: list[dict[str, object]] = []
    for similarity, removed, added in sorted(scored):
        if removed not in taken and added not in taken:
            taken |= {removed, added}
            pairs.append({"id": removed, "match": added, "confidence": -similarity})
    return pairs
