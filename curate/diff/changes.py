"""What changed from one version to another, row by row, in the words of the design.

    added, removed        the id came or went                    edited     same id, other content
    rejected, restored    kept before and not now, or reverse    rejudged   left out by both, for another reason
    resplit               kept in both, other split              rescored   kept in both, other quality, score or weight
    edited_upstream       a removed row and an added one that are near-duplicates, with a confidence

A row can have several words (edited and resplit). Rows that both versions keep alike are not listed. `compare` says
what is different; `curate.diff.attribution.attribute` says what made it so.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import polars as pl

from curate.diff.places import NUMBERS, changed_places, read_places, rescored, side, tests
from schemas.dataset import Dataset
from schemas.stages import STAGES

WORDS = ("added", "removed", "edited_upstream", "edited", "rejected", "restored", "rejudged", "resplit", "rescored")
Bump = Literal["major", "minor", "patch"]

CHANGES = pl.Schema(
    {
        "word": pl.String,
        "id": pl.String,
        "source": pl.String,
        "place": pl.String,
        "before": pl.String,
        "after": pl.String,
        "stage": pl.String,
        "by": pl.List(pl.String),
        "cause": pl.String,
        "keys": pl.List(pl.String),
        "fields": pl.List(pl.String),
        "detail": pl.String,
        "match": pl.String,
        "confidence": pl.Float64,
        "kept_before": pl.Boolean,
        "kept_after": pl.Boolean,
    }
)
"""One row per row and word. place: SOURCE:ROW, where the row stood in its file. before, after: what the word is about,
the reason, the hash of the text, the split, the numbers; null is kept, or no such row. stage: whose opinion or text
changed. detail: the evidence of the later version. match, confidence: the added row of edited_upstream, and how alike
they are. by, cause, keys: see `curate.diff.attribution`. fields: the texts or columns that differ (messages[1]
assistant, context; split; quality, weight …)."""

ROWS = pl.Schema(
    {
        "id": pl.String,
        **dict.fromkeys(("shard", "row", "shard_after", "row_after"), pl.UInt32),
        "content_hash": pl.String,
        "content_hash_after": pl.String,
    }
)
"""Every row that is in the changes, once: where it stands in the versions, and what its text is."""

_TOLD = pl.Schema(
    {
        **dict.fromkeys(("id", "source"), pl.String),
        "source_row": pl.Int64,
        **dict.fromkeys(("content_hash", "reject_reason", "reject_detail", "stage", "split"), pl.String),
        **dict.fromkeys(NUMBERS, pl.Float32),
    }
)
"""What is read of each row that differs."""


@dataclass(frozen=True)
class Diff:
    """The difference of two versions: `changes` (`CHANGES`), the `rows` that they are about (`ROWS`), and `notes`,
    sentences on what could not be told."""

    before: Dataset
    after: Dataset
    changes: pl.DataFrame
    rows: pl.DataFrame
    notes: tuple[str, ...] = ()

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
        came = c.filter(pl.col("word").is_in(["added", "restored", "edited_upstream"]) & pl.col("kept_after"))
        return "minor" if came.height else "patch"

    @property
    def trainer_sees_it(self) -> bool:
        """Whether a trainer would read anything else than before."""
        return self.before.manifest.train_visible != self.after.manifest.train_visible

    @property
    def same_dataset(self) -> bool:
        """Whether both are versions of one dataset; of two, rows are the same where source and key are."""
        return self.before.manifest.name == self.after.manifest.name

    def to_json(self) -> dict[str, Any]:
        """Give the counts of the words and every change behind them."""
        a, b = self.before.manifest, self.after.manifest
        return {
            "before": {"name": a.name, "seq": a.seq, "id": a.id, "semver": a.semver},
            "after": {"name": b.name, "seq": b.seq, "id": b.id, "semver": b.semver},
            "same_dataset": self.same_dataset,
            "bump": self.bump if a.id != b.id else None,
            "trainer_sees_it": self.trainer_sees_it,
            "counts": self.counts,
            "notes": list(self.notes),
            "changes": self.changes.drop("kept_before", "kept_after").to_dicts(),
        }


def compare(before: Dataset, after: Dataset) -> Diff:
    """Compare two versions of one dataset, or of two. No text is read.

    Shards whose objects both versions share are not read; those with the same text are compared side by side, and only
    what is left is matched by id. Memory: what is told of the rows that differ, and 90 bytes of each that is matched.
    `curate.diff.upstream.pair_upstream` joins the removed and added rows that are near-duplicates.
    """
    places = changed_places(before, after)
    old = read_places(before, side(places, after=False), list(_TOLD)).cast(_TOLD)
    new = read_places(after, side(places, after=True), list(_TOLD)).cast(_TOLD)
    new = new.rename({c: f"{c}_after" for c in _TOLD})
    both = pl.concat([places, old, new], how="horizontal").with_columns(id=pl.coalesce("id", "id_after"))
    return Diff(before, after, in_order(_words(both)), both.select(list(ROWS)).sort("id"))


def in_order(changes: pl.DataFrame) -> pl.DataFrame:
    """Put changes in the one order of a diff: by word as in `WORDS`, then source, then id."""
    order = pl.col("word").replace_strict({w: i for i, w in enumerate(WORDS)}, return_dtype=pl.UInt8)
    return changes.sort(order, "source", "id")


def _words(both: pl.DataFrame) -> pl.DataFrame:
    """Name the changes of rows that stand side by side. Reads: id, `_TOLD` with `_after`, and the places."""
    reason, new_reason = pl.col("reject_reason"), pl.col("reject_reason_after")
    first_number = pl.coalesce(pl.when(rescored(column)).then(pl.lit(stage)) for column, stage in NUMBERS.items())
    about: dict[str, tuple[pl.Expr, pl.Expr, pl.Expr]] = {
        "added": (reason, new_reason, pl.lit("ingest")),
        "removed": (reason, new_reason, pl.lit("ingest")),
        "edited": (pl.col("content_hash"), pl.col("content_hash_after"), pl.lit(None, pl.String)),
        "rejected": (reason, new_reason, pl.col("stage_after")),
        "restored": (reason, new_reason, pl.col("stage")),
        "rejudged": (reason, new_reason, _earlier("stage", "stage_after")),
        "resplit": (pl.col("split"), pl.col("split_after"), pl.lit("split")),
        "rescored": (_numbers(""), _numbers("_after"), first_number),
    }
    came, went = pl.col("row").is_null(), pl.col("row_after").is_null()
    fits = {"added": came, "removed": went, **{word: test & ~came & ~went for word, test in tests().items()}}
    scored = pl.concat_list(pl.when(rescored(c)).then(pl.lit(c)) for c in NUMBERS).list.drop_nulls()
    none = pl.lit([], pl.List(pl.String))
    fields = {"resplit": pl.lit(["split"], pl.List(pl.String)), "rescored": scored}
    named = [
        both.filter(fits[word].fill_null(value=False)).select(
            word=pl.lit(word),
            id=pl.col("id"),
            source=pl.coalesce("source", "source_after"),
            place=_place(),
            before=before.cast(pl.String),
            after=after.cast(pl.String),
            stage=stage,
            by=none,
            cause=pl.lit(None, pl.String),
            keys=none,
            fields=fields.get(word, none),
            detail=pl.col("reject_detail_after"),
            match=pl.lit(None, pl.String),
            confidence=pl.lit(None, pl.Float64),
            kept_before=pl.col("row").is_not_null() & pl.col("reject_reason").is_null(),
            kept_after=pl.col("row_after").is_not_null() & pl.col("reject_reason_after").is_null(),
        )
        for word, (before, after, stage) in about.items()
    ]
    return pl.concat([CHANGES.to_frame(), *named])


def _place() -> pl.Expr:
    number = pl.coalesce("source_row", "source_row_after")
    return pl.format("{}:{}", pl.coalesce("source", "source_after"), number)


def _earlier(one: str, other: str) -> pl.Expr:
    """Give the stage that comes first: where it left the row out, the later one never judged it."""
    order = {stage: i for i, stage in enumerate(STAGES)}
    places = [pl.col(c).replace_strict(order, default=None, return_dtype=pl.UInt8) for c in (one, other)]
    return pl.when(places[0] <= places[1]).then(pl.col(one)).otherwise(pl.col(other))


def _numbers(end: str) -> pl.Expr:
    """Tell the numbers that differ, as "quality 0.71, weight 2.0"."""
    return pl.concat_str(
        [pl.when(rescored(c)).then(pl.format(f"{c} {{}}", pl.col(f"{c}{end}").fill_null(1.0))) for c in NUMBERS],
        separator=", ",
        ignore_nulls=True,
    )
