"""Contracts of the stages together: found by name, imported when asked for, the same bytes whatever the threads."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curate.stage import Output, Progress, ShardOutput, Stage, run_stage
from curate.stages import PIPELINE, stage
from curate.store import Store
from schemas.config import Config, DedupConfig
from schemas.dataset import Dataset
from schemas.errors import ConfigError
from schemas.record import VERDICT_SCHEMA
from schemas.stages import ANNOTATION_COLUMNS, STAGES
from tests.curate.conftest import chat, make_dataset, run_on, view

ROOT = Path(__file__).parents[2]

WORDS = ["red", "green", "blue", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
ROWS = [
    chat(
        f"Tell me about {WORDS[i % 7]} and {WORDS[i % 3]}.",
        " ".join(WORDS[(i * k + i) % 13] for k in range(1, i % 40)) + (" \r\n" if i % 5 else ""),
        context="N/A" if i % 11 == 0 else None,
        source_key=f"k{i}",
    )
    for i in range(400)
]


def hashes(folder: str) -> str:
    """Run all stages over ROWS in a new store; give the hashes of all objects, one per line."""
    store = Store(Path(folder))
    dataset = make_dataset(store, {"a": ROWS[:250], "b": ROWS[250:]}, shard_rows=90)
    for name in PIPELINE:
        dataset, _ = run_on(store, dataset, stage(name))
    return "\n".join(f"{f.stage} {f.role} {f.source} {f.shard} {f.sha256}" for f in dataset.manifest.files)


def test_every_stage_of_the_pipeline_is_found_by_name_in_the_fixed_order() -> None:
    assert [stage(name).name for name in PIPELINE] == list(PIPELINE)
    assert sorted(PIPELINE, key=STAGES.index) == list(PIPELINE)
    assert set(PIPELINE) <= set(ANNOTATION_COLUMNS)


def test_an_unknown_stage_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=", ".join(PIPELINE)):
        stage("dedupe")


def test_objects_are_the_same_bytes_whatever_the_number_of_threads(tmp_path: Path) -> None:
    script = "import sys; from tests.curate.test_stages import hashes; print(hashes(sys.argv[1]))"
    printed = [
        subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / f"{threads}-{hash_seed}")],
            cwd=ROOT,
            env={"POLARS_MAX_THREADS": str(threads), "PYTHONHASHSEED": str(hash_seed), "TZ": "Asia/Tokyo"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for threads, hash_seed in ((1, 1), (2, 2))
    ]
    assert printed[0] == printed[1] == hashes(str(tmp_path / "here"))
    assert "split index" in printed[0]


def test_the_pipeline_is_all_stages_but_the_first_and_what_people_do() -> None:
    """It names them once more only because `schemas.stages` brings polars with it."""
    assert tuple(name for name in STAGES if name not in ("ingest", "review")) == PIPELINE


def test_the_pipeline_over_its_own_result_changes_nothing(store: Store) -> None:
    dataset = make_dataset(store, {"a": ROWS}, shard_rows=150)
    for name in PIPELINE:
        dataset, _ = run_on(store, dataset, stage(name))
    again = dataset
    for name in PIPELINE:
        again, _ = run_on(store, again, stage(name))
    assert again.manifest.id == dataset.manifest.id
    assert view(again, "kept").equals(view(dataset, "kept"))


def test_every_stage_reports_each_row_as_done_once(store: Store) -> None:
    dataset = make_dataset(store, {"a": ROWS, "b": [*ROWS, {"messages": None, "broken": "ingest:broken_json"}]})
    for name in PIPELINE:
        done: list[int] = []
        config = DedupConfig(guard_rows=dataset.rows) if name == "dedup" else stage(name).config()
        run_stage(store, dataset, stage(name), config, done.append, fresh=True)
        assert sum(done) == dataset.rows


@pytest.mark.parametrize("rows", [[], [{"messages": None, "broken": "ingest:broken_json"}]], ids=["empty", "broken"])
def test_every_stage_runs_where_there_is_nothing_to_judge(rows: list[dict[str, Any]], store: Store) -> None:
    dataset = make_dataset(store, {"a": rows})
    for name in PIPELINE:
        dataset, _ = run_on(store, dataset, stage(name))
    assert view(dataset, "split", "flags", "quality").null_count().sum_horizontal().item() == 3 * len(rows)


def test_stages_are_imported_when_they_are_asked_for_and_not_before() -> None:
    script = (
        "import sys, curate.stages; print([m for m in ('numpy', 'scipy', 'datasketch', 'polars') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("fails", ["writing", "judging", "Ctrl-C"])
def test_a_failure_ends_a_stage_soon_with_its_own_error_and_leaves_nothing_behind(fails: str, store: Store) -> None:
    """While shards are written by other threads: no hang, no half-written file, and nobody judges on in vain."""
    dataset = make_dataset(store, {"a": ROWS}, shard_rows=4)
    threads, judged, closed = threading.active_count(), list[int](), list[bool]()
    before = set((store.root / "cache").glob("*"))

    def run(dataset: Dataset, _config: Any, _progress: Progress) -> Iterator[Output]:
        try:
            for shard in dataset.shards:
                if shard.number == 3 and fails != "writing":
                    raise KeyboardInterrupt if fails == "Ctrl-C" else ConfigError("here", "wrong")
                judged.append(shard.number)
                rows = shard.rows - (shard.number == 3)
                yield ShardOutput(shard, pl.DataFrame([{}] * rows, schema=VERDICT_SCHEMA))
        finally:
            closed.append(True)

    expected = {"writing": AssertionError, "judging": ConfigError, "Ctrl-C": KeyboardInterrupt}[fails]
    with pytest.raises(expected, match="shard 3" if fails == "writing" else None):
        run_stage(store, dataset, Stage("normalize", 1, Config, run), Config(), fresh=True)
    assert len(judged) < 10 < len(dataset.shards)
    assert closed == [True]
    assert threading.active_count() == threads
    assert not list((store.root / "tmp").glob("*.arrow"))
    assert set((store.root / "cache").glob("*")) == before
