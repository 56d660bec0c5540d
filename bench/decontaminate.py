"""Decontamination: rows per second against many evaluation items, beside a plain-Python set of n-grams.

    python -m bench.decontaminate [--rows 500000] [--items 100000]

Rows of Alpaca's length and items of 25 words in the mean are drawn from one vocabulary by Zipf's law; every hundredth
row gets an item planted in its prompt, so that what is found can be counted. The baseline is what is usually written: a
dict of the items' 8-grams, and the share of an item's words that the shared ones cover. It runs on fewer rows, as it is
slow. Ours compiles its kernels once for each machine: a run over a few rows does that first.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from bench.rows import conversations
from curate.stage import run_stage
from curate.stages import stage
from curate.store import Store
from curate.version import Draft
from schemas.config import DecontaminateConfig
from schemas.dataset import Dataset
from schemas.manifest import FileEntry, Source
from schemas.record import VERDICT_SCHEMA

ALPACA_WORDS = (25, 50)
"""Mean words of question and answer: 420 characters a row."""
ITEM_WORDS = (20, 1)
PLANTED_EVERY = 100
NGRAM, COVERAGE = 8, 0.5
BASELINE_ROWS = 20_000
WARM_ROWS = 1_000


def items_of(count: int) -> list[str]:
    frames = (planted.frame for planted in conversations(count, seed=7, duplicates=0.0, words=ITEM_WORDS, system=0.0))
    return [text for frame in frames for text in frame["messages"].list.first().struct.field("content")]


def rows_of(count: int, items: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Give shards of rows; the prompt of every hundredth begins with an item in capitals."""
    at = 0
    for planted in conversations(count, seed=1, duplicates=0.0, words=ALPACA_WORDS, system=0.0):
        frame = planted.frame
        chosen = [
            items[(at + i) % len(items)].upper() + " " if i % PLANTED_EVERY == 0 else "" for i in range(frame.height)
        ]
        messages = frame.select("messages", extra=pl.Series(chosen)).with_row_index("row").explode("messages")
        content = pl.col("messages").struct.field("content")
        is_user = pl.col("messages").struct.field("role") == "user"
        said = pl.when(is_user).then(pl.col("extra") + content).otherwise(content)
        whole = messages.with_columns(pl.col("messages").struct.with_fields(said.alias("content")))
        grouped = whole.group_by("row", maintain_order=True).agg("messages")
        yield frame.with_columns(grouped["messages"])
        at += frame.height


def stored(store: Store, frames: Iterator[pl.DataFrame]) -> Dataset:
    files: list[FileEntry] = []
    for number, frame in enumerate(frames):
        nothing = pl.DataFrame({c: pl.Series([None] * frame.height, dtype=t) for c, t in VERDICT_SCHEMA.items()})
        files.append(store.put(frame, role="text", stage="ingest", source="generated", shard=number))
        files.append(store.put(nothing, role="annotation", stage="ingest", source="generated", shard=number))
    draft = Draft("bench").with_source(Source(name="generated", format="generated"), files)
    return Dataset(draft.manifest(), store.root)


def ours(store: Store, dataset: Dataset, file: Path) -> tuple[float, float, int]:
    """Give seconds, seconds of all cores (for a machine that does other work, too), and how many rows were found."""
    known = stage("decontaminate")
    start, worked = time.perf_counter(), time.process_time()
    result = run_stage(store, dataset, known, DecontaminateConfig(eval=(str(file),)), fresh=True)
    seconds, work = time.perf_counter() - start, time.process_time() - worked
    return seconds, work, sum(n for f in result.files for n in (f.statistics or {}).values())


def plain(dataset: Dataset, items: Sequence[str], rows: int) -> tuple[float, float, int]:
    """Give seconds to index the items, seconds to search `rows` rows, and how many were found, in plain Python."""
    start = time.perf_counter()
    owners: dict[str, list[int]] = {}
    lengths: list[int] = []
    for i, item in enumerate(items):
        words = _words(item)
        lengths.append(len(words))
        for k in range(len(words) - NGRAM + 1):
            owners.setdefault(" ".join(words[k : k + NGRAM]), []).append(i)
    indexed = time.perf_counter()
    turns = dataset.scan(["messages"]).head(rows).collect()["messages"].to_list()
    searched = time.perf_counter()
    found = 0
    for messages in turns:
        shared: dict[int, set[int]] = {}
        for message in messages:
            words = _words(message["content"])
            for k in range(len(words) - NGRAM + 1):
                for i in owners.get(" ".join(words[k : k + NGRAM]), ()):
                    shared.setdefault(i, set()).update(range(k, k + NGRAM))
        found += any(len(places) >= COVERAGE * lengths[i] for i, places in shared.items())
    return indexed - start, time.perf_counter() - searched, found


def _words(text: str) -> list[str]:
    kept = "".join(c if c.isalnum() or c.isspace() else " " for c in text.lower())
    return kept.split()


def main(rows: int, items: int) -> None:
    texts = items_of(items)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        file = Path(folder) / "items.jsonl"
        file.write_text("".join(json.dumps({"question": text}) + "\n" for text in texts))
        few = Path(folder) / "few.jsonl"
        few.write_text("".join(json.dumps({"question": text}) + "\n" for text in texts[:100]))
        warm = stored(store, rows_of(WARM_ROWS, texts))
        ours(store, warm, few)
        before_rows, before_work, _ = ours(store, warm, file)
        dataset = stored(store, rows_of(rows, texts))
        size = sum(f.bytes for f in dataset.manifest.files if f.role == "text")
        words = np.mean([len(_words(text)) for text in texts])
        print(f"{rows:,} rows, {size / 1e6:,.0f} MB; {items:,} items of {words:.0f} words")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        seconds, work, found = ours(store, dataset, file)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        planted = sum(len(range(0, f.rows, PLANTED_EVERY)) for f in dataset.manifest.files if f.role == "text")
        print("| | seconds | of all cores | rows/s | rows found |")
        print("|---|---|---|---|---|")
        speed = f"{rows / seconds:,.0f}"
        print(f"| ours, whole stage | {seconds:.1f} | {work:.1f} | {speed} | {found:,} ({planted:,} planted) |")
        rest, work = seconds - before_rows, work - before_work
        print(f"| of it, items read and indexed | {before_rows:.1f} | {before_work:.1f} | | |")
        print(f"| of it, rows searched | {rest:.1f} | {work:.1f} | {rows / rest:,.0f} | |")
        some = min(rows, BASELINE_ROWS)
        indexing, searching, hits = plain(dataset, texts, some)
        speed = some / searching
        plainly = f"{indexing:.1f} + {searching:.1f}"
        print(f"| plain Python, {some:,} rows | {plainly} | {plainly} | {speed:,.0f} | {hits:,} |")
        print(f"peak memory {peak:.2f} GB ({before:.2f} GB before ours), mapped files included")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--items", type=int, default=100_000)
    given = parser.parse_args()
    main(given.rows, given.items)
