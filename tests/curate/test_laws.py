"""The laws of the design that hold for the pipeline as a whole."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curate.pipeline import read_recipe, run_recipe
from curate.stage import run_stage
from curate.stages import PIPELINE, stage
from curate.store import Store
from curate.verify import verify
from schemas.dataset import Dataset, open_dataset
from schemas.record import TEXT_SCHEMA

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes/demo.toml"


def run_demo(root: Path) -> Dataset:
    done = run_recipe(Store(root), read_recipe(RECIPE), base=RECIPE.parent)
    return Dataset(done.commit.manifest, root)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return run_demo(tmp_path_factory.mktemp("demo"))


def objects(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((root / "objects").glob("*/*"))}


def test_law_1_rows_in_are_rows_kept_and_rejected_in_every_stage(demo: Dataset) -> None:
    counts = demo.manifest.counts
    assert [c.stage for c in counts] == ["ingest", *PIPELINE]
    assert counts[0].entered == demo.rows
    for before, count in zip([None, *counts[:-1]], counts, strict=True):
        assert count.entered == count.kept + sum(count.rejected.values())
        assert before is None or count.entered == before.kept
    rows = demo.scan(["kept", "reject_reason", "reject_detail", "stage"]).collect()
    assert rows.filter("kept").height == counts[-1].kept
    assert rows.filter(~pl.col("kept") & pl.col("reject_reason").is_null()).height == 0
    assert rows.filter(~pl.col("kept"))["reject_detail"].str.len_chars().min() > 0


def test_law_1_a_stage_keeps_ids_order_and_number_of_rows(demo: Dataset) -> None:
    ids = [demo.scan(["id"], before_stage=name).collect()["id"].to_list() for name in [*PIPELINE, None]]
    assert all(found == ids[0] for found in ids)
    assert len(set(ids[0])) == demo.rows
    for shard in demo.shards:
        assert all(pl.scan_ipc(p).select(pl.len()).collect().item() == shard.rows for p in shard.annotations.values())


@pytest.mark.parametrize(
    ("surroundings", "umask", "here"),
    [
        ({"POLARS_MAX_THREADS": "1", "TZ": "Pacific/Kiritimati", "LC_ALL": "C", "PYTHONHASHSEED": "0"}, 0o077, "."),
        ({"POLARS_MAX_THREADS": "7", "TZ": "America/St_Johns", "LC_ALL": "tr_TR.UTF-8"}, 0o000, "a folder/of its own"),
    ],
    ids=["1 thread, UTC+14, private", "7 threads, UTC-3:30, Turkish, from another folder"],
)
def test_law_2_threads_folder_time_zone_locale_umask_and_hash_seed_change_no_byte(
    demo: Dataset, tmp_path: Path, surroundings: dict[str, str], umask: int, here: str
) -> None:
    """The inputs and the recipe are copied elsewhere, the command runs as a process of its own."""
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(ROOT / "sample_data", elsewhere / "sample_data")
    shutil.copytree(ROOT / "recipes", elsewhere / "recipes")
    (elsewhere / here).mkdir(parents=True, exist_ok=True)
    recipe = os.path.relpath(elsewhere / "recipes/demo.toml", elsewhere / here)
    command = [sys.executable, "-c", "from cli.main import run; run()", "curate", "run", recipe, "--json"]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONHASHSEED", "SFT_STORE")}
    done = subprocess.run(
        command,
        cwd=elsewhere / here,
        env={**environment, "PYTHONPATH": str(ROOT), **surroundings},
        umask=umask,
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["id"] == demo.manifest.id
    assert objects(elsewhere / here / "sft-data") == objects(demo.root)


@pytest.mark.parametrize("name", PIPELINE)
def test_law_3_a_stage_run_twice_gives_the_same_objects(demo: Dataset, name: str) -> None:
    """Run anew, not taken from the cache, on the version that holds its own earlier result."""
    config = getattr(read_recipe(RECIPE), name).started_from(RECIPE.parent)
    again = run_stage(Store(demo.root), demo, stage(name), config, fresh=True)
    assert sorted(f.sha256 for f in again.files) == sorted(f.sha256 for f in demo.manifest.files_of(name))
    entry = demo.manifest.stage(name)
    assert entry is not None
    assert (again.entry.reads, again.entry.config) == (entry.reads, entry.config)


def test_law_3_a_pipeline_on_its_own_result_changes_nothing(demo: Dataset) -> None:
    done = run_recipe(Store(demo.root), read_recipe(RECIPE), base=RECIPE.parent)
    assert not done.commit.is_new
    shutil.rmtree(demo.root / "cache")
    assert not run_recipe(Store(demo.root), read_recipe(RECIPE), base=RECIPE.parent).commit.is_new


def test_law_3_what_comes_out_goes_in_again_unchanged(demo: Dataset, tmp_path: Path) -> None:
    """The kept rows, exported and curated again, lose nothing and are not edited."""
    from curate.export import export
    from curate.ingest import ingest
    from curate.stage import no_progress
    from curate.version import Draft, commit_version
    from schemas.config import IngestConfig
    from schemas.recipe import Recipe

    export(demo, "openai", tmp_path / "out", splits=None)
    store = Store(tmp_path / "store")
    found = ingest(store, [str(tmp_path / "out/*.jsonl")], "openai", IngestConfig(), progress=no_progress)
    commit_version(store, Draft("again").with_source(found.source, found.files), None, "again")
    recipe = Recipe.model_validate({name: {} for name in PIPELINE})
    again = Dataset(run_recipe(store, recipe, name="again").commit.manifest, store.root)
    kept = demo.manifest.counts[-1].kept
    assert [(c.kept, c.edited, c.rejected) for c in again.manifest.counts] == [(kept, 0, {})] * (len(PIPELINE) + 1)


def test_law_8_rows_keep_their_split_when_a_source_is_added(tmp_path: Path) -> None:
    """One source at a time, in any order, each run split again: no row that has a split ever changes it."""
    recipe = read_recipe(RECIPE)
    for order in ((2, 0, 1), (1, 2, 0)):
        store = Store(tmp_path / str(order))
        before: dict[str, str | None] = {}
        for n in range(1, 4):
            part = recipe.model_copy(update={"sources": tuple(recipe.sources[i] for i in order[:n])})
            manifest = run_recipe(store, part, base=RECIPE.parent).commit.manifest
            splits = dict(Dataset(manifest, store.root).scan(["id", "split"]).collect().iter_rows())
            assert all(splits[row] == split for row, split in before.items() if split is not None)
            before = splits
        assert verify(open_dataset("demo", store.root), deep=True) == []


def test_the_order_in_which_sources_come_in_does_not_matter_to_the_stages_before_split(tmp_path: Path) -> None:
    recipe = read_recipe(RECIPE)
    found: list[pl.DataFrame] = []
    for n, order in enumerate(((0, 1, 2), (2, 1, 0))):
        store = Store(tmp_path / str(n))
        for i in order:
            part = recipe.model_copy(update={"sources": (recipe.sources[i],), "split": None})
            run_recipe(store, part, base=RECIPE.parent)
        dataset = open_dataset("demo", store.root)
        found.append(dataset.scan(["id", "kept", "reject_reason", "cluster_id", "content_hash"]).collect())
    assert found[0].equals(found[1])


def test_the_pipeline_loses_no_text(demo: Dataset) -> None:
    """Every line of the raw files can be found again: as messages, or as it stood."""
    rows = demo.scan(list(TEXT_SCHEMA), before_stage="normalize").collect()
    assert rows.filter((pl.col("messages").list.len() == 0) & pl.col("extra").is_null()).height == 0


def planted() -> list[tuple[str, dict[str, Any]]]:
    expected = json.loads((ROOT / "sample_data/expected.json").read_text())
    return [(source, plan) for source, told in expected.items() for plan in told["planted"]]


@pytest.fixture(scope="module")
def outcome(demo: Dataset) -> dict[tuple[str, int], dict[str, Any]]:
    columns = [
        "source",
        "source_row",
        "id",
        "kept",
        "reject_reason",
        "flags",
        "duplicate_of",
        "conflict_id",
        "split",
        "extra",
    ]
    rows = demo.scan(columns).collect().to_dicts()
    edits: dict[tuple[str, int], list[str]] = {}
    for shard in demo.shards:
        places = shard.view(["source", "source_row"]).collect().rows()
        for path in shard.overlays.values():
            for row, names in pl.scan_ipc(path).select("row", "edits").collect().iter_rows():
                edits.setdefault(places[row], []).extend(names)
    return {(r["source"], r["source_row"]): {**r, "edits": edits.get((r["source"], r["source_row"]), [])} for r in rows}


@pytest.mark.parametrize(
    ("source", "plan"), planted(), ids=lambda v: v if isinstance(v, str) else f"{v['row']} {v['defect']}"
)
def test_each_planted_defect_has_the_outcome_that_was_planned(
    outcome: dict[tuple[str, int], dict[str, Any]], source: str, plan: dict[str, Any]
) -> None:
    row, expect = outcome[source, plan["row"]], dict(plan["expect"])

    def other(place: dict[str, Any]) -> dict[str, Any]:
        return outcome[place["source"], place["row"]]

    reason = expect.get("reject_reason")
    if places := expect.get("one_of"):
        assert sorted([other(p)["kept"] for p in places]) == [False, True]
        assert {other(p)["reject_reason"] for p in places} == {None, reason}
        return
    assert row["reject_reason"] == reason
    assert row["kept"] == (reason is None)
    assert sorted(row["edits"]) == sorted(expect.get("edits", []))
    if reason is None or reason.startswith("duplicate:"):
        assert sorted(row["flags"] or []) == sorted(expect.get("flags", []))
    if place := expect.get("duplicate_of_row"):
        assert row["duplicate_of"] == other(place)["id"]
    if expect.get("conflict"):
        assert row["conflict_id"] is not None
    if place := expect.get("same_split_as"):
        assert row["split"] == other(place)["split"]
    if "extra" in expect:
        assert json.loads(row["extra"]) == expect["extra"]


def test_every_row_without_a_planted_defect_is_kept_as_it_is(outcome: dict[tuple[str, int], dict[str, Any]]) -> None:
    named = {(source, plan["row"]) for source, plan in planted()}
    others = {place: row for place, row in outcome.items() if place not in named}
    assert len(others) == 114
    assert {place: row for place, row in others.items() if not row["kept"] or row["edits"] or row["flags"]} == {}
