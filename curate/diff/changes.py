"""What changed from one version to another, row by row, in the words of the design.

    added, removed        the id came or went                    edited     same id, other content
    rejected, restored    kept before and not now, or reverse    resplit    kept in both, other split
    rescored              kept in both, other quality or weight
    edited_upstream       a removed row and an added one that are near-duplicates, with a confidence

A row can have several words (edited and resplit). Rows that both versions keep alike are not listed.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import polars as pl

from schemas.dataset import Dataset, Shard

WORDS = ("added", "removed", "edited_upstream", "edited", "rejected", "restored", "resplit", "rescored")
Bump = Literal["major", "minor", "patch"]

_SCHEMA = pl.Schema(
    {
        "id": pl.String,
        "source": pl.String,
        "content_hash": pl.String,
        "kept": pl.Boolean,
        "stage": pl.String,
        "reject_reason": pl.String,
        "reject_detail": pl.String,
        "split": pl.String,
        "quality": pl.Float32,
        "weight": pl.Float32,
    }
)
_COLUMNS = list(_SCHEMA)
"""What is told of each row."""

_DECIDING = ("content_hash", "kept", "split", "quality", "weight")
"""What makes a row of both versions a changed one."""

_JOINED = pl.Schema({**_SCHEMA, **{f"{name}_after": dtype for name, dtype in _SCHEMA.items() if name != "id"}})


@dataclass(frozen=True)
class Diff:
    """The difference of two versions.

    `changes` has one row per row and word: word, id, source, before, after, stage, detail, match, confidence,
    kept_before, kept_after. `match` is the added row's id, for edited_upstream alone.
    """

    before: Dataset
    after: Dataset
    changes: pl.DataFrame

    @cached_property
    def counts(self) -> dict[str, int]:
        """Give the number of rows for each word, zeros included."""
        found = dict(self.changes.group_by("word").len().iter_rows())
        return {word: int(found.get(word, 0)) for word in WORDS}

    @property
    def bump(self) -> Bump:
        """The semver part that the change raises, judged over kept rows alone."""
        c = self.changes
        gone = c.filter(pl.col("word").is_in(["removed", "edited_upstream"]) & pl.col("kept_before"))
        edited = c.filter((pl.col("word") == "edited") & pl.col("kept_before") & pl.col("kept_after"))
        if gone.height or edited.height or self.counts["rejected"] or self.counts["resplit"]:
            return "major"
        came = c.filter(pl.col("word").is_in(["added", "restored"]) & pl.col("kept_after"))
        return "minor" if came.height else "patch"

    @property
    def trainer_sees_it(self) -> bool:
        """Whether a trainer would read anything else than before."""
        return self.before.manifest.train_visible != self.after.manifest.train_visible

    def to_json(self) -> dict[str, Any]:
        """Give the counts of the words and every change behind them."""
        a, b = self.before.manifest, self.after.manifest
        return {
            "before": {"name": a.name, "seq": a.seq, "id": a.id, "semver": a.semver},
            "after": {"name": b.name, "seq": b.seq, "id": b.id, "semver": b.semver},
            "same_dataset": a.name == b.name,
            "bump": self.bump if a.id != b.id else None,
            "trainer_sees_it": self.trainer_sees_it,
            "counts": self.counts,
            "changes": self.changes.drop("kept_before", "kept_after").to_dicts(),
        }


def compare(before: Dataset, after: Dataset) -> Diff:
    """Compare two versions of one dataset, or of two. Memory: the columns compared, not their text, of what differs.

    Shards whose objects both versions share are not read; those with the same text are compared side by side, and only
    what is left is matched by id. `curate.diff.upstream.pair_upstream` joins the removed and added rows that are
    near-duplicates.
    """
    old, new = ({shard.text.stem: shard for shard in dataset.shards} for dataset in (before, after))
    said = [_opinions(dataset) for dataset in (before, after)]
    beside: list[pl.LazyFrame] = []
    for text in old.keys() & new.keys():
        pair = old.pop(text), new.pop(text)
        if said[0].get(_place(pair[0])) != said[1].get(_place(pair[1])):
            mine, other = (shard.view(_COLUMNS) for shard in pair)
            other = other.rename({c: f"{c}_after" for c in _COLUMNS})
            differs = [pl.col(c).ne_missing(pl.col(f"{c}_after")) for c in _DECIDING]
            beside.append(pl.concat([mine, other], how="horizontal").filter(pl.any_horizontal(differs)))
    differing = pl.concat([pl.DataFrame(schema=_JOINED), *(f.drop("id_after") for f in pl.collect_all(beside))])
    mine, other = (
        pl.concat([pl.DataFrame(schema=_SCHEMA).lazy(), *(shard.view(_COLUMNS) for shard in shards.values())])
        for shards in (old, new)
    )
    joined = mine.join(other, on="id", how="full", suffix="_after", coalesce=True, maintain_order="left_right")
    return Diff(before, after, in_order(pl.concat([_words(differing), _words(joined.collect())])))


def _place(shard: Shard) -> tuple[str, int]:
    return shard.source, shard.number


def _opinions(dataset: Dataset) -> dict[tuple[str | None, int | None], set[tuple[str, str, str]]]:
    """Give what is said about each shard, by place: overlays and annotations."""
    said: dict[tuple[str | None, int | None], set[tuple[str, str, str]]] = {}
    for file in dataset.manifest.files:
        if file.role in ("overlay", "annotation"):
            said.setdefault((file.source, file.shard), set()).add((file.role, file.stage, file.sha256))
    return said


def _words(both: pl.DataFrame) -> pl.DataFrame:
    """Name the changes of rows that stand side by side. Reads: the columns compared, and each with `_after`."""
    came, went = pl.col("source").is_null(), pl.col("source_after").is_null()
    stays = ~came & ~went
    kept = stays & pl.col("kept") & pl.col("kept_after")
    tests: dict[str, tuple[pl.Expr, str]] = {
        "added": (came, "reject_reason"),
        "removed": (went, "reject_reason"),
        "edited": (stays & (pl.col("content_hash") != pl.col("content_hash_after")), "content_hash"),
        "rejected": (stays & pl.col("kept") & ~pl.col("kept_after"), "reject_reason"),
        "restored": (stays & ~pl.col("kept") & pl.col("kept_after"), "reject_reason"),
        "resplit": (kept & pl.col("split").ne(pl.col("split_after")), "split"),
        "rescored": (kept & _rescored(), "quality"),
    }
    return pl.concat(
        _changes(both.filter(test.fill_null(value=False)), word, column) for word, (test, column) in tests.items()
    )


def in_order(changes: pl.DataFrame) -> pl.DataFrame:
    """Put changes in the one order of a diff: by word as in `WORDS`, then source, then id."""
    order = pl.col("word").replace_strict({w: i for i, w in enumerate(WORDS)}, return_dtype=pl.UInt8)
    return changes.sort(order, "source", "id")


def _rescored() -> pl.Expr:
    """Both versions have a score, and it differs; a score that was only just computed is no change of opinion."""
    tests = [
        pl.col(c).is_not_null() & pl.col(f"{c}_after").is_not_null() & (pl.col(c) != pl.col(f"{c}_after"))
        for c in ("quality", "weight")
    ]
    return pl.any_horizontal(tests)


def _changes(rows: pl.DataFrame, word: str, column: str) -> pl.DataFrame:
    return rows.select(
        word=pl.lit(word),
        id=pl.col("id"),
        source=pl.coalesce("source", "source_after"),
        before=pl.col(column).cast(pl.String),
        after=pl.col(f"{column}_after").cast(pl.String),
        stage=pl.coalesce("stage_after", "stage")
        if word in ("rejected", "restored", "added", "removed")
        else pl.lit(None, pl.String),
        detail=pl.col("reject_detail_after"),
        match=pl.lit(None, pl.String),
        confidence=pl.lit(None, pl.Float64),
        kept_before=pl.col("kept").fill_null(value=False),
        kept_after=pl.col("kept_after").fill_null(value=False),
    )
