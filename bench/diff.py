"""Diffs at size: two versions of up to millions of rows, with 1% of them changed in every way.

    python -m bench.diff [--rows 0.25,0.5,1,2,4] [--apart]      (millions of rows of 420 characters)

Of every thousand rows, two are edited by a stage, two rejected, one restored, one left out for another reason, one
re-split and two given another number. Every shard has some of each, so none can be skipped. By default both versions
share their text objects, as after another run of the stages. With --apart every text object is another one, as after
another ingest of all sources, and one row in a thousand goes and another comes. Each comparison runs in a process of
its own: `compare`, as every commit does it, and then `attribute`, as `sft diff` does. "cpu" is what the process used in
all, imports too: on a machine that does other things, it says more than the clock.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from bench.rows import SHARD_ROWS, conversations
from curate.stage import StageResult
from curate.store import Store
from curate.version import Draft, commit_version
from schemas.manifest import FileEntry, Source, StageEntry
from schemas.record import OVERLAY_SCHEMA, VERDICT_SCHEMA
from schemas.stages import ANNOTATION_COLUMNS, SPLITS

WORDS = (25, 50)
"""Mean words of a question and an answer, as Alpaca's."""
STAGES = ("normalize", "rules", "signals", "dedup", "score", "select", "split")
CYCLE = 1000
EDITED, REJECTED, JUDGED, RESTORED, REJUDGED, RESPLIT, QUALITY, WEIGHT, GONE = 0, 2, 3, 4, 5, 6, 7, 8, 9
"""Which rows of a thousand change how; EDITED is two of them."""


def opinions(
    frame: pl.DataFrame, first: int, *, later: bool
) -> Iterator[tuple[str, pl.DataFrame, pl.DataFrame | None]]:
    """Give what each stage says about a shard whose rows are numbered from `first`: stage, annotation, overlay.

    Reads: id, messages, context, content_hash. One row in 50 is left out, in both versions.
    """
    n = pl.int_range(first, first + frame.height, eager=True)
    rows = frame.select("id").with_columns(n=n, kind=n % CYCLE, noise=pl.col("id").hash() % 997)

    def when(*kinds: int) -> pl.Expr:
        return pl.col("kind").is_in(kinds) & pl.lit(later)

    rules = (
        pl.when(when(REJECTED) | ((pl.col("kind") == RESTORED) & (not later)) | (pl.col("kind") % 50 == 49))
        .then(pl.lit("rule:empty_response"))
        .when((pl.col("kind") == REJUDGED) & (not later))
        .then(pl.lit("rule:empty_response"))
    )
    dedup = pl.when(when(JUDGED, REJUDGED)).then(pl.lit("duplicate:near"))
    quality = (pl.col("noise") / 1000 + when(QUALITY).cast(pl.Float64) / 2).cast(pl.Float32)
    split = (pl.col("noise") % 10 - 7).clip(0, 2)
    split = pl.when(when(RESPLIT)).then((split + 1) % 3).otherwise(split)
    names = split.replace_strict(dict(enumerate(SPLITS)), return_dtype=pl.String)
    said: dict[str, dict[str, pl.Expr]] = {
        "normalize": {},
        "rules": {"verdict": rules, "detail": pl.when(rules.is_not_null()).then(pl.lit("the answer"))},
        "signals": {"quality": quality, "language": pl.lit("en")},
        "dedup": {"verdict": dedup, "detail": pl.when(dedup.is_not_null()).then(pl.lit("0.9 of its n-grams"))},
        "score": {"score": (pl.col("noise") / 997).cast(pl.Float32)},
        "select": {"weight": 1 + when(WEIGHT).cast(pl.Float32)},
        "split": {"split": names},
    }
    for stage, columns in said.items():
        schema = pl.Schema({**VERDICT_SCHEMA, **ANNOTATION_COLUMNS[stage]})
        given = [columns.get(c, pl.lit(None)).cast(dtype).alias(c) for c, dtype in schema.items()]
        overlay = edits(frame, rows) if later and stage == "normalize" else None
        yield stage, rows.with_columns(given).select(list(schema)), overlay


def edits(frame: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Rewrite the last turn of two rows of a thousand."""
    chosen = rows.with_row_index("row").filter(pl.col("kind") < EDITED + 2)["row"]
    turn = pl.element().struct
    more = pl.element().struct.with_fields(content=turn.field("content") + " Indeed.")
    return frame[chosen].select(
        row=chosen,
        messages=pl.col("messages").list.eval(more),
        context="context",
        content_hash=pl.col("content_hash").str.reverse(),
        before_hash="content_hash",
        edits=pl.lit(["edit:surrounding_blanks"], pl.List(pl.String)),
    ).cast(dict(OVERLAY_SCHEMA))  # fmt: skip


def commit(store: Store, shards: Iterator[tuple[int, pl.DataFrame]], *, later: bool, texts: list[FileEntry]) -> None:
    """Commit a version. `texts`: objects of the texts, where they are in the store already, and else filled."""
    files: list[FileEntry] = []
    by_stage: dict[str, list[FileEntry]] = {stage: [] for stage in STAGES}
    fresh = not texts
    for number, (first, frame) in enumerate(shards):
        place = {"source": "generated", "shard": number}
        if fresh:
            texts.append(store.put(frame, role="text", stage="ingest", **place))
        files.append(texts[number])
        for stage, annotation, overlay in opinions(frame, first, later=later):
            by_stage[stage].append(store.put(annotation, role="annotation", stage=stage, **place))
            if overlay is not None:
                by_stage[stage].append(store.put(overlay, role="overlay", stage=stage, **place))
    parent = store.latest("bench")
    draft = (Draft.of(parent) if parent else Draft("bench")).with_source(Source(name="generated", format="x"), files)
    for stage, made in by_stage.items():
        entry = StageEntry(
            name=stage,
            version=1,
            config={"threshold": 0.8 if later else 0.9, "salt": "b" if later else "a"},
            reads="0" * 64,
        )
        draft = draft.with_stage(StageResult(entry, tuple(made)))
    commit_version(store, draft, parent, "bench")


def generated(rows: int, *, later: bool, apart: bool) -> Iterator[tuple[int, pl.DataFrame]]:
    """Give (number of its first row, shard). Where texts are apart, one row of a thousand goes and another comes."""
    for number, planted in enumerate(conversations(rows, words=WORDS, duplicates=0.0, system=0.0)):
        frame = planted.frame
        if apart and later:
            n = pl.int_range(frame.height, eager=True) + number * SHARD_ROWS
            other = pl.when(n % CYCLE == GONE).then(pl.col("id").str.reverse()).otherwise("id")
            frame = frame.with_columns(id=other)
        yield number * SHARD_ROWS, frame


def measure(root: str) -> None:
    """Be the child process that compares, and tell what it took as JSON."""
    from curate.diff.attribution import attribute
    from curate.diff.changes import compare
    from schemas.dataset import open_dataset

    before, after = open_dataset("bench@1", Path(root)), open_dataset("bench@2", Path(root))
    start = time.perf_counter()
    diff = compare(before, after)
    compared = time.perf_counter()
    found = attribute(diff)
    used = resource.getrusage(resource.RUSAGE_SELF)
    told = {
        "compare_s": compared - start,
        "attribute_s": time.perf_counter() - compared,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_gb": used.ru_maxrss / 1e6,
        "counts": found.counts,
        "changes": found.changes.height,
    }
    print(json.dumps(told))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="0.25,0.5,1", help="millions of rows, separated by commas")
    parser.add_argument("--apart", action="store_true", help="the versions share no text object")
    given = parser.parse_args()
    kind = "no text shared" if given.apart else "texts shared"
    print(f"{'rows':>10} {'changes':>8} {'compare':>9} {'attribute':>9} {'both':>8} {'cpu':>8} {'peak':>8}   {kind}")
    for millions in map(float, given.rows.split(",")):
        rows = round(millions * 1e6)
        with tempfile.TemporaryDirectory() as folder:
            texts: list[FileEntry] = []
            for later in (False, True):
                shards = generated(rows, later=later, apart=given.apart)
                commit(Store(Path(folder)), shards, later=later, texts=[] if given.apart else texts)
            command = [sys.executable, "-c", f"from bench.diff import measure; measure({folder!r})"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        told = json.loads(done.stdout)
        seconds = [told["compare_s"], told["attribute_s"]]
        words = ", ".join(f"{n:,} {word}" for word, n in told["counts"].items() if n)
        print(
            f"{rows:>10,} {told['changes']:>8,} {seconds[0]:>7.1f} s {seconds[1]:>7.1f} s {sum(seconds):>6.1f} s"
            f" {told['cpu_s']:>6.1f} s"
            f" {told['peak_gb']:>5.2f} GB   {words}",
            flush=True,
        )


if __name__ == "__main__":
    main()
