"""What cleaning costs: the rules against reading and re-writing the same rows, each rule's part, and every stage.

Run: python -m bench.cleaning [--rows N] [--times N] [FORMAT:FILE ...]

Without files, generated rows alone (200,000 by default: a minute). With files, such as alpaca:alpaca_data.json, these
first, read N times over: in a small file, what a shard costs whatever its size stands out. Times are the best of three;
a rule's own time is that of its test over the facts, which all rules share, each rule by itself, so that together they
take longer than the stage, which works on several at a time.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl

from bench.rows import generated
from curate.ingest import ingest
from curate.rules import list_rules, rules_for
from curate.rules.facts import facts
from curate.rules.rule import Rule
from curate.stage import no_progress, run_stage
from curate.stages import PIPELINE, stage
from curate.store import Store
from curate.version import Draft
from schemas.config import DedupConfig, IngestConfig, RulesConfig
from schemas.dataset import Dataset
from schemas.manifest import FileEntry, Source
from schemas.record import TEXT_SCHEMA, VERDICT_SCHEMA

COLUMNS = ["messages", "context", "content_hash"]
LIMIT = 20
"""Times the reading and re-writing of the same rows that the stage may take."""


def best(work: Callable[[], object], times: int = 3) -> float:
    """Give the shortest time of some runs, in seconds."""
    taken: list[float] = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def of_files(store: Store, named: list[str], times: int) -> Dataset:
    draft = Draft("bench")
    for one in named:
        kind, _, path = one.partition(":")
        again = [store.root.parent / f"{i}-{Path(path).name}" for i in range(times)]
        for copy in again:
            shutil.copyfile(path, copy)
        found = ingest(store, [str(copy) for copy in again], kind, IngestConfig(), progress=no_progress)
        draft = draft.with_source(found.source, found.files)
    return Dataset(draft.manifest(), store.root)


def of_generated(store: Store, rows: int) -> Dataset:
    files: list[FileEntry] = []
    for number, frame in enumerate(generated(rows, source="alpaca")):
        nothing = pl.DataFrame({c: pl.Series([None] * frame.height, dtype=t) for c, t in VERDICT_SCHEMA.items()})
        files.append(store.put(frame, role="text", stage="ingest", source="alpaca", shard=number))
        files.append(store.put(nothing, role="annotation", stage="ingest", source="alpaca", shard=number))
    return Dataset(Draft("bench").with_source(Source(name="alpaca", format="alpaca"), files).manifest(), store.root)


def copied(dataset: Dataset, folder: Path, kind: str) -> float:
    """Time reading and re-writing of all rows, as Arrow or as JSON Lines."""
    paths = [shard.text for shard in dataset.shards]
    if kind == "JSON Lines":
        for i, path in enumerate(paths):
            pl.read_ipc(path).write_ndjson(folder / f"{i}.jsonl")

        def work() -> None:
            for i in range(len(paths)):
                pl.read_ndjson(folder / f"{i}.jsonl", schema=TEXT_SCHEMA).write_ndjson(folder / "copy")
    else:

        def work() -> None:
            for path in paths:
                pl.read_ipc(path).write_ipc(folder / "copy")

    return best(work)


def table(title: str, dataset: Dataset, folder: Path) -> None:
    """Print what the stage costs, and each rule."""
    config = RulesConfig()
    rules = list_rules(config)
    formats = {source.name: source.format for source in dataset.manifest.sources}
    frames = [
        (rules_for(s.source, formats[s.source], rules, config), s.view(COLUMNS).with_row_index("row").collect())
        for s in dataset.shards
    ]
    known = stage("rules")
    plain = {kind: copied(dataset, folder, kind) for kind in ("Arrow", "JSON Lines")}
    whole = best(lambda: run_stage(Store(dataset.root), dataset, known, known.config(), fresh=True))
    read = [(chosen, facts(frame.lazy()).collect()) for chosen, frame in frames]
    own = {
        rule.name: best(lambda rule=rule: [_test(rule, frame) for chosen, frame in read if rule in chosen])
        for rule in rules
    }
    shared = best(lambda: [facts(frame.lazy()).collect() for _, frame in frames])
    rows, size = dataset.rows, sum(f.bytes for f in dataset.manifest.files if f.role == "text")
    print(f"\n{title}: {rows:,} rows, {size / 1e6:,.0f} MB, {os.cpu_count()} cores\n")
    print("| what | ms | rows/s | share of the stage |\n|---|---|---|---|")

    def line(what: str, seconds: float) -> None:
        print(f"| {what} | {seconds * 1e3:,.1f} | {rows / seconds:,.0f} | {seconds / whole:.1%} |")

    for kind, seconds in plain.items():
        line(f"reading and re-writing, {kind}", seconds)
    line("**the stage, with its objects written**", whole)
    line("facts that all rules share", shared)
    for name, seconds in sorted(own.items(), key=lambda item: -item[1]):
        line(name, seconds)
    for kind, seconds in plain.items():
        print(
            f"\nThe stage takes {whole / seconds:.1f} times as long as reading and re-writing the rows as {kind}",
            end="",
        )
    print(f" (at most {LIMIT}).")


def stages(dataset: Dataset) -> None:
    """Print what each stage costs, one after the other, each on what the ones before it left."""
    print("\n| stage, with its objects written | ms | rows/s |\n|---|---|---|")
    store, draft = Store(dataset.root), Draft.of(dataset.manifest)
    for name in PIPELINE:
        if name == "decontaminate":  # it searches for nothing without an evaluation: bench.decontaminate
            continue
        now, known = Dataset(draft.manifest(), dataset.root), stage(name)
        config = DedupConfig(guard_rows=now.rows) if name == "dedup" else known.config()
        result = run_stage(store, now, known, config, fresh=True)
        seconds = best(lambda now=now, known=known, config=config: run_stage(store, now, known, config, fresh=True))
        draft = draft.with_stage(result)
        print(f"| {name} | {seconds * 1e3:,.1f} | {now.rows / seconds:,.0f} |")


def _test(rule: Rule, frame: pl.DataFrame) -> pl.DataFrame:
    return frame.lazy().select(rule.matches).collect()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=200_000, help="generated rows; 0 for none")
    parser.add_argument("--times", type=int, default=1, help="how often each file is read")
    parser.add_argument("files", nargs="*", metavar="FORMAT:FILE", help="real rows")
    given = parser.parse_args()
    for title, make in (
        ("Rows of files", (lambda store: of_files(store, given.files, given.times)) if given.files else None),
        ("Generated rows", (lambda store: of_generated(store, given.rows)) if given.rows else None),
    ):
        if make is not None:
            with tempfile.TemporaryDirectory() as folder:
                dataset = make(Store(Path(folder) / "store"))
                table(title, dataset, Path(folder))
                stages(dataset)


if __name__ == "__main__":
    main()
