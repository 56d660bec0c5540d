"""Versions with opinions that a test names, without the stages that would have them."""

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from curate.review.responses import LEDGER, RESPONSES
from curate.stage import IndexOutput, Output, ShardOutput, Stage
from curate.store import Store
from schemas.config import Config
from schemas.dataset import Dataset
from schemas.record import VERDICT_SCHEMA
from schemas.stages import ANNOTATION_COLUMNS
from tests.curate.conftest import run_on

Opinions = Mapping[str, Mapping[str, Any]]
"""Source key (or its number) -> columns of the stage; rows that are not named have nulls."""


def with_opinion(
    store: Store, dataset: Dataset, stage: str, opinions: Opinions, settings: Mapping[str, Any] | None = None
) -> Dataset:
    """Give the dataset with a stage that says what the test wants. `settings` are its recorded configuration."""
    schema = pl.Schema({**VERDICT_SCHEMA, **ANNOTATION_COLUMNS[stage]})

    class Settings(Config):
        given: bool = True

    def run(dataset: Dataset, _config: Any, _progress: Any) -> Iterator[Output]:
        for shard in dataset.shards:
            keys = shard.view(["source_key"]).collect()["source_key"].to_list()
            rows = [dict.fromkeys(schema) | dict(opinions.get(key, {})) for key in keys]
            yield ShardOutput(shard, pl.DataFrame(rows, schema=schema))
        if stage == "review":
            yield IndexOutput(RESPONSES.to_frame(), made_from=LEDGER)

    after, _ = run_on(store, dataset, Stage(stage, 99, Settings, run), Settings())
    stages = tuple(
        s.model_copy(update={"config": dict(settings or {})}) if s.name == stage else s for s in after.manifest.stages
    )
    return Dataset(after.manifest.model_copy(update={"stages": stages}), after.root)


def with_responses(store: Store, dataset: Dataset, said: list[dict[str, Any]]) -> Dataset:
    """Give the dataset with a ledger: `id`, `content_hash`, `reviewer`, `verdict` of each response, and what else."""
    usual = {
        "review": "test",
        "status": "submitted",
        "rating": None,
        "issues": [],
        "correction": None,
        "suggested": None,
        "suggested_by": None,
        "min_submitted": 2,
        "cut": False,
        "updated_at": "2026-01-01T00:00:00",
    }
    frame = pl.DataFrame([usual | one for one in said], schema=RESPONSES)
    file = store.put(frame, role="index", stage="review", made_from=LEDGER)
    m = dataset.manifest
    return Dataset(m.model_copy(update={"files": (*m.files, file)}), dataset.root)
