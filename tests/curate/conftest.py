"""A small store and dataset, made from Python rows; stages run over it through `curate.stage.run_stage` alone."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curate.stage import Stage, StageResult, run_stage
from curate.store import Store
from schemas.config import Config
from schemas.dataset import Dataset
from schemas.manifest import FileEntry, Manifest, Source, manifest_id
from schemas.record import TEXT_SCHEMA, VERDICT_SCHEMA, content_hash, lineage_id
from schemas.stages import STAGES

DATA = Path(__file__).parents[2].parent / "shared" / "data"


def chat(*texts: str | None, **columns: Any) -> dict[str, Any]:
    """Give a row of user and assistant turns in alternation; further columns by name."""
    roles = ("user", "assistant")
    return turns(*((roles[i % 2], text) for i, text in enumerate(texts)), **columns)


def turns(*messages: tuple[str, str | None], **columns: Any) -> dict[str, Any]:
    """Give a row of (role, content) turns."""
    made = [{"role": role, "content": text, "name": None, "tool_calls": None} for role, text in messages]
    return {"messages": made, **columns}


def text_frame(rows: Sequence[Mapping[str, Any]], source: str) -> pl.DataFrame:
    full: list[dict[str, Any]] = []
    for i, row in enumerate(rows):
        key = row.get("source_key", str(i))
        full.append(
            {
                "id": lineage_id(source, key),
                "source": source,
                "source_key": key,
                "source_file": f"{source}.jsonl",
                "source_row": i,
                "context": None,
                "tools": None,
                "category": None,
                "extra": None,
                "content_hash": content_hash(row["messages"] or [], row.get("context")),
                **{k: v for k, v in row.items() if k != "broken"},
            }
        )
    return pl.DataFrame(full, schema=TEXT_SCHEMA)


def _manifest(sources: Sequence[str], files: Sequence[FileEntry], before: Manifest | None) -> Manifest:
    facts: dict[str, Any] = {
        "id": "",
        "name": "test",
        "seq": 1,
        "created": "2026-01-01T00:00:00+00:00",
        "message": "",
        "code_version": "0",
        "semver": "1.0.0",
        "train_visible": "",
        "sources": [Source(name=name, format="openai") for name in sorted(sources)],
        "stages": before.stages if before else (),
        "files": sorted(files, key=lambda f: f.order),
        "counts": (),
    }
    draft = Manifest.model_validate(facts)
    return draft.model_copy(update={"id": manifest_id(draft)})


def make_dataset(
    store: Store, sources: Mapping[str, Sequence[Mapping[str, Any]]], *, shard_rows: int = 1 << 30, after: Any = None
) -> Dataset:
    """Put rows by source into the store. A row with `broken` holds its ingest verdict. `after`: a dataset whose
    split ledger and stages this one goes on from."""
    files: list[FileEntry] = []
    for source, rows in sources.items():
        frame = text_frame(rows, source)
        verdicts = pl.DataFrame(
            [{"verdict": r.get("broken"), "detail": r.get("broken")} for r in rows], schema=VERDICT_SCHEMA
        )
        for number, start in enumerate(range(0, max(len(rows), 1), shard_rows)):
            place = {"stage": "ingest", "source": source, "shard": number}
            files.append(store.put(frame.slice(start, shard_rows), role="text", **place))
            files.append(store.put(verdicts.slice(start, shard_rows), role="annotation", **place))
    before = after.manifest if after else None
    if before:
        files.extend(f for f in before.files if (f.stage, f.role) == ("split", "index"))
    return Dataset(_manifest(list(sources), files, before), store.root)


def with_stage(dataset: Dataset, result: StageResult) -> Dataset:
    """Give the dataset with a finished stage in place of its earlier self."""
    m = dataset.manifest
    others = [s for s in m.stages if s.name != result.entry.name]
    stages = sorted([*others, result.entry], key=lambda s: STAGES.index(s.name))
    files = [f for f in m.files if f.stage != result.entry.name] + list(result.files)
    draft = m.model_copy(update={"stages": tuple(stages), "files": tuple(sorted(files, key=lambda f: f.order))})
    return Dataset(draft.model_copy(update={"id": manifest_id(draft)}), dataset.root)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


Apply = Callable[..., tuple[Dataset, StageResult]]


def run_on(store: Store, dataset: Dataset, stage: Stage, config: Config | None = None) -> tuple[Dataset, StageResult]:
    result = run_stage(store, dataset, stage, config or stage.config(), fresh=True)
    return with_stage(dataset, result), result


@pytest.fixture
def apply(store: Store) -> Apply:
    """Run a stage over a dataset, twice: law 3 holds in every test. Gives (dataset after, result)."""

    def run(dataset: Dataset, stage: Stage, config: Config | None = None) -> tuple[Dataset, StageResult]:
        after, result = run_on(store, dataset, stage, config)
        again, second = run_on(store, after, stage, config)
        assert [f.sha256 for f in second.files] == [f.sha256 for f in result.files]
        assert again.manifest.id == after.manifest.id
        return after, result

    return run


def view(dataset: Dataset, *columns: str) -> pl.DataFrame:
    return dataset.scan(columns).collect()


def read_jsonl(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def real_rows() -> dict[str, list[dict[str, Any]]]:
    """The real rows beside the project, by source; skips where they are absent."""
    if not (DATA / "alpaca_9k.json").exists():
        pytest.skip(f"no real data at {DATA}")
    alpaca = json.loads((DATA / "alpaca_9k.json").read_text(encoding="utf-8"))
    return {
        "alpaca": [chat(r["instruction"], r["output"], context=r["input"] or None) for r in alpaca],
        "dolly": [
            chat(r["instruction"], r["response"], context=r["context"] or None, category=r["category"])
            for r in read_jsonl("dolly_3k.jsonl")
        ],
        "openorca": [
            turns(("system", r["system_prompt"]), ("user", r["question"]), ("assistant", r["response"]))
            for r in read_jsonl("openorca_283.jsonl")
        ],
    }
