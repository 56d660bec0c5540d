"""What an annotation stage costs: bytes written against the text's, and the columns that it reads.

Run: python -m bench.annotations [ROWS]

1,000,000 rows by default: about 3 minutes and 2 GB of disk.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from bench.rows import generated
from curate.stage import run_stage
from curate.stages import stage
from curate.store import Store
from curate.version import Draft
from schemas.dataset import Dataset, Shard
from schemas.manifest import FileEntry, Source
from schemas.record import VERDICT_SCHEMA

STAGES = ("normalize", "rules", "pii", "signals", "dedup", "score", "select", "split")


def ingested(store: Store, rows: int) -> Draft:
    files: list[FileEntry] = []
    for number, frame in enumerate(generated(rows)):
        nothing = pl.DataFrame({c: pl.Series([None] * frame.height, dtype=t) for c, t in VERDICT_SCHEMA.items()})
        files.append(store.put(frame, role="text", stage="ingest", source="generated", shard=number))
        files.append(store.put(nothing, role="annotation", stage="ingest", source="generated", shard=number))
    return Draft("bench").with_source(Source(name="generated", format="generated"), files)


def main(rows: int) -> None:
    asked: set[str] = set()
    plain_view = Shard.view

    def watched(self: Shard, columns: Sequence[str], *, before_stage: str | None = None) -> pl.LazyFrame:
        asked.update(columns)
        return plain_view(self, columns, before_stage=before_stage)

    Shard.view = watched
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        start = time.perf_counter()
        draft = ingested(store, rows)
        text = [f for f in draft.files if f.role == "text"]
        size = sum(f.bytes for f in text)
        print(f"{rows:,} rows, {size / 1e6:,.0f} MB of text objects, generated in {time.perf_counter() - start:.0f} s")
        first = pl.read_ipc(Path(folder) / text[0].path)
        share = {c: first.get_column(c).estimated_size() / first.estimated_size() for c in first.columns}
        print("| stage | seconds | rows/s | written, MB | of the text | columns read | their share of the text |")
        print("|---|---|---|---|---|---|---|")
        for name in STAGES:
            dataset = Dataset(draft.manifest(), store.root)
            asked.clear()
            known = stage(name)
            result = run_stage(store, dataset, known, known.config(), fresh=True)
            written = sum(f.bytes for f in result.files)
            read = sorted(asked & set(share))
            print(
                f"| {name} | {result.entry.seconds:.1f} | {rows / result.entry.seconds:,.0f} | {written / 1e6:,.1f} "
                f"| {written / size:.2%} | {', '.join(read)} | {sum(share[c] for c in read):.0%} |"
            )
            draft = draft.with_stage(result)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"peak memory {peak:.2f} GB, mapped files included")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
