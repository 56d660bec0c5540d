"""Attribution: which stage made a change, by what and why, from the manifests and the hashes of the row's texts.

A row's text is followed through both versions: as it was ingested, then after each stage that rewrites. An edit is of
the first stage after which the two differ; every other change is of the stage whose opinion changed. The cause is the
first of these that holds:

    source         the row came, went, or was read otherwise       review         a person decided otherwise
    stage added    the stage did not judge the row before          stage removed  it no longer does
    text           the stage judged another text                   verdict        an earlier stage left the row out in
    stage version  the stage's code is another                                    one version: this one never saw it
    configuration  settings of the stage differ: `keys`            other rows     none of these: rows around it differ

`curate.diff.replay` adds `together`: no key alone makes the change, all that differ do.
"""

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from curate.diff.changes import CHANGES, Diff, in_order
from curate.diff.places import read_overlays, read_places, side
from curate.diff.redaction import MASK
from curate.diff.texts import changed_fields
from schemas.dataset import Dataset
from schemas.manifest import Manifest
from schemas.stages import STAGES

CAUSES = (
    "source",
    "review",
    "stage added",
    "stage removed",
    "text",
    "verdict",
    "stage version",
    "configuration",
    "other rows",
    "together",
)

_NAMES = pl.List(pl.String)
_NONE = pl.lit([], _NAMES)
_JUDGED = ("rejected", "restored", "rejudged")
_PAIRED = "edited_upstream"


def attribute(diff: Diff) -> Diff:
    """Say of each change which stage made it, by what, and why: fill stage, by, cause, keys, and fields of edits.

    `by`: the reason; the names of the edits that only one version has; the reviewers; for rows that came or went "new
    source", "appended", "replaced", "source removed". Reads the rows that changed alone, and no more of their texts
    than a shard's at a time.
    """
    if not diff.changes.height:
        return diff
    rewriting = ["ingest", *(s for s in STAGES if any(s in v.overlays for d in _both(diff) for v in d.shards))]
    old = _followed(diff.before, side(diff.rows, after=False), rewriting)
    new = _followed(diff.after, side(diff.rows, after=True), rewriting)
    new = new.rename({column: f"{column}_after" for column in new.columns})
    rows = pl.concat([diff.rows.select("id"), old, new], how="horizontal")
    fields = changed_fields(diff)
    changes = (
        diff.changes.drop("by", "cause", "keys")
        .join(rows, on="id", how="left", maintain_order="left")
        .join(fields, on=["word", "id"], how="left", maintain_order="left", suffix="_of_text")
        .with_columns(stage=_stage(rewriting), fields=pl.coalesce("fields_of_text", "fields"))
        .with_columns(cause=_cause(diff, rewriting))
        .with_columns(by=_by(diff, rewriting), keys=_keys(diff), detail=_detail(rewriting))
    )
    return replace(diff, changes=in_order(changes.select(list(CHANGES))))


def differing_keys(before: Manifest, after: Manifest) -> dict[str, list[str]]:
    """Give the keys of each stage whose settings differ, by name; stages that only one version has are left out.

    A setting that a release did not know yet is one that is off.
    """
    found: dict[str, list[str]] = {}
    for entry in before.stages:
        other = after.stage(entry.name)
        if other is not None:
            old, new = entry.config, other.config
            changed = [key for key in old.keys() & new.keys() if old[key] != new[key]]
            came = [key for key in old.keys() ^ new.keys() if {**old, **new}[key]]
            found[entry.name] = sorted([*changed, *came])
    return {stage: keys for stage, keys in found.items() if keys}


def _both(diff: Diff) -> tuple[Dataset, Dataset]:
    return diff.before, diff.after


def _followed(dataset: Dataset, places: pl.DataFrame, rewriting: Sequence[str]) -> pl.DataFrame:
    """Follow the text of rows, and read what people decided about them.

    Adds: text_STAGE (hash of the text after it) and edits_STAGE for each stage that rewrites; left_out (the stage that
    left the row out, people aside), override, reviewers, corrected_by, shard.
    """
    given = ("override", "reviewers", "corrected_by")
    parts = [
        read_places(dataset, places, ["content_hash"], before_stage="ingest"),
        read_places(dataset, places, ["stage"], before_stage="review").rename({"stage": "left_out"}),
        read_places(dataset, places, given),
        places.select("shard"),
    ]
    text = parts[0].to_series()
    found = [text.alias("text_ingest").to_frame()]
    for stage in rewriting[1:]:
        overlay = read_overlays(dataset, places, stage)
        text = overlay.select(pl.coalesce("content_hash", text)).to_series()
        found.append(pl.DataFrame({f"text_{stage}": text, f"edits_{stage}": overlay["edits"]}))
    return pl.concat([*found, *parts[1:]], how="horizontal")


def _differs(column: str) -> pl.Expr:
    return pl.col(column).ne_missing(pl.col(f"{column}_after"))


def _order(column: str) -> pl.Expr:
    places = {stage: i for i, stage in enumerate(STAGES)}
    return pl.col(column).replace_strict(places, default=None, return_dtype=pl.Int16)


def _stage(rewriting: Sequence[str]) -> pl.Expr:
    """The first stage after which the text differs; a person's decision, where that differs; else as it was said."""
    texts = [pl.when(_differs(f"text_{s}")).then(pl.lit(s)) for s in rewriting]
    decided = pl.col("word").is_in(_JUDGED) & _differs("override")
    return (
        pl.when(pl.col("word") == "edited")
        .then(pl.coalesce(texts))
        .when(decided)
        .then(pl.lit("review"))
        .otherwise("stage")
    )


def _cause(diff: Diff, rewriting: Sequence[str]) -> pl.Expr:
    """Reads: stage (as attributed) and the columns of `_followed`."""
    old, new = (dataset.manifest for dataset in _both(diff))
    settings = pl.col("stage").is_in(list(differing_keys(old, new)))
    versions = [s.name for s in old.stages if (o := new.stage(s.name)) and o.version != s.version]
    was, now = (_judges(d, column) for d, column in zip(_both(diff), ("shard", "shard_after"), strict=True))
    seen = [(_order(c) >= _order("stage")).fill_null(value=True) for c in ("left_out", "left_out_after")]
    sources = pl.col("word").is_in(["added", "removed", _PAIRED]) | (pl.col("stage") == "ingest")
    reads_all = pl.col("stage").is_in(["split", "review"])
    review = pl.col("stage") == "review"
    return (
        pl.when(sources)
        .then(pl.lit("source"))
        .when(~review & now & ~was)
        .then(pl.lit("stage added"))
        .when(~review & was & ~now)
        .then(pl.lit("stage removed"))
        .when((pl.col("stage") == "split") & settings)  # then all rows are dealt anew, and else none moves
        .then(pl.lit("configuration"))
        .when(_text_differs(rewriting))
        .then(pl.lit("text"))
        .when(review)
        .then(pl.lit("review"))
        .when(~reads_all & (seen[0] != seen[1]))
        .then(pl.lit("verdict"))
        .when(pl.col("stage").is_in(versions))
        .then(pl.lit("stage version"))
        .when(settings)
        .then(pl.lit("configuration"))
        .otherwise(pl.lit("other rows"))
    )


def _judges(dataset: Dataset, shard: str) -> pl.Expr:
    """Whether the stage says anything about the rows of the shard."""
    by_stage = {s: [i for i, held in enumerate(dataset.shards) if s in held.annotations] for s in STAGES}
    tests = [(pl.col("stage") == s) & pl.col(shard).is_in(numbers) for s, numbers in by_stage.items() if numbers]
    return pl.any_horizontal(pl.lit(value=False), *tests).fill_null(value=False)


def _text_differs(rewriting: Sequence[str]) -> pl.Expr:
    """Whether the text that the stage was given differs."""
    tests: list[pl.Expr] = []
    for stage in STAGES[1:]:
        last = [s for s in rewriting if STAGES.index(s) < STAGES.index(stage)][-1]
        tests.append((pl.col("stage") == stage) & _differs(f"text_{last}"))
    return pl.any_horizontal(tests)


def _keys(diff: Diff) -> pl.Expr:
    keys = differing_keys(diff.before.manifest, diff.after.manifest)
    named = [
        pl.when((pl.col("cause") == "configuration") & (pl.col("stage") == stage)).then(
            pl.lit([f"{stage}.{key}" for key in of_stage], _NAMES)
        )
        for stage, of_stage in keys.items()
    ]
    return pl.coalesce([*named, _NONE])


def _by(diff: Diff, rewriting: Sequence[str]) -> pl.Expr:
    """Reads: word, source, stage (as attributed), before, after, and the columns of `_followed`."""
    word, review = pl.col("word"), pl.col("stage") == "review"
    edits, new_edits = (
        pl.coalesce(
            [pl.when(pl.col("stage") == s).then(f"edits_{s}{end}") for s in rewriting[1:]] or [_NONE]
        ).fill_null(_NONE)
        for end in ("", "_after")
    )
    only_one = edits.list.set_symmetric_difference(new_edits).list.sort()
    reviewers = pl.coalesce("reviewers_after", "reviewers").cast(_NAMES)
    correctors = pl.coalesce("corrected_by_after", "corrected_by").cast(_NAMES)
    reason = pl.when(word == "restored").then("before").otherwise("after")
    return pl.coalesce(
        pl.when(word.is_in(["added", "removed", _PAIRED])).then(_sources(diff)),
        pl.when(word.is_in(_JUDGED) & review).then(reviewers),
        pl.when(word.is_in(_JUDGED)).then(pl.concat_list(reason)),
        pl.when((word == "edited") & (pl.col("stage") == "ingest")).then(pl.lit(["replaced"], _NAMES)),
        pl.when((word == "edited") & review).then(correctors),
        pl.when((word == "edited") & (only_one.list.len() > 0)).then(only_one),
        pl.when(word == "edited").then(new_edits),
        _NONE,
    )


def _detail(rewriting: Sequence[str]) -> pl.Expr:
    """The evidence of the later version, which may quote its text: not where pii redacted another text in the earlier.

    Reads: detail, and the columns of `_followed`.
    """
    if "pii" not in rewriting:
        return pl.col("detail")
    was_redacted = pl.col("edits_pii").list.eval(pl.element().str.starts_with("redact:")).list.any()
    quotes = was_redacted.fill_null(value=False) & _differs(f"text_{rewriting[-1]}") & pl.col("detail").is_not_null()
    return pl.when(quotes).then(pl.lit(MASK)).otherwise("detail")


def _sources(diff: Diff) -> pl.Expr:
    """What became of the row's source."""
    held = [{s.source for s in dataset.shards} for dataset in _both(diff)]
    texts = [{(s.source, s.text.stem) for s in dataset.shards} for dataset in _both(diff)]
    exchanged = {source for source, _ in texts[0] - texts[1]}
    gone, new = sorted(held[0] - held[1]), sorted(held[1] - held[0])
    appended = sorted(held[0] & held[1] - exchanged)
    became = (
        pl.when(pl.col("source").is_in(gone))
        .then(pl.lit("source removed"))
        .when(pl.col("source").is_in(new))
        .then(pl.lit("new source"))
        .when(pl.col("source").is_in(appended))
        .then(pl.lit("appended"))
        .otherwise(pl.lit("replaced"))
    )
    return pl.concat_list(became)
