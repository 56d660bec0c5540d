"""Rows given to the rules, and what they say."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import pytest

from curate.rules import STAGE
from curate.rules.rule import Example
from curate.store import Store
from schemas.config import RulesConfig
from schemas.dataset import Dataset
from schemas.manifest import manifest_id
from tests.curate.conftest import make_dataset, run_on, view


def row(example: Example) -> dict[str, Any]:
    return {"messages": example.messages, "context": example.context}


def of_formats(dataset: Dataset) -> Dataset:
    """Give the dataset with the name of each source for its format."""
    m = dataset.manifest
    sources = tuple(source.model_copy(update={"format": source.name}) for source in m.sources)
    draft = m.model_copy(update={"sources": sources})
    return Dataset(draft.model_copy(update={"id": manifest_id(draft)}), dataset.root)


class Said:
    """What the rules said about rows of several sources: per source a list of names, in the order of the rows."""

    def __init__(
        self, store: Store, sources: Mapping[str, Sequence[Example]], config: RulesConfig | None = None
    ) -> None:
        rows = {name: [row(example) for example in examples] for name, examples in sources.items()}
        self.dataset, self.result = run_on(store, of_formats(make_dataset(store, rows)), STAGE, config)
        self.names: dict[str, list[list[str]]] = {}
        self.details: dict[str, list[str | None]] = {}
        for shard in self.dataset.shards:
            overlay = shard.overlays.get("rules")
            edits = dict(pl.read_ipc(overlay).select("row", "edits").iter_rows()) if overlay else {}
            found = shard.view(["verdict_rules", "flags", "detail_rules"]).collect().rows()
            self.names[shard.source] = [
                [*edits.get(i, []), *([verdict] if verdict else []), *(flags or [])]
                for i, (verdict, flags, _) in enumerate(found)
            ]
            self.details[shard.source] = [detail for *_, detail in found]

    def texts(self, *columns: str) -> pl.DataFrame:
        return view(self.dataset, *columns)


@pytest.fixture(scope="module")
def module_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("rules"))
