"""A small version with everything that a published dataset can have, and what its publisher says of it."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curate.publish.layout import Published, publish
from curate.store import Store
from curate.version import Draft, commit_version
from schemas.about import About
from schemas.dataset import Dataset
from schemas.manifest import Source
from tests.rows import put_source, question, staged

CALL = [{"id": "c1", "type": "function", "function": {"name": "depth", "arguments": '{"fen": 3}'}}]
TOOLS = [{"type": "function", "function": {"name": "depth", "parameters": {}}}]

ABOUT = About.model_validate(
    {
        "title": 'Fens: a "survey"\nof <b>wet</b> meadows',
        "description": "What people asked about fens.\n\n# not a heading\n- not a list",
        "creators": [{"name": "Mara: of the fen", "kind": "person", "url": "https://fen.example/mara"}],
        "url": "https://fen.example/data",
        "contact": "mara@fen.example",
        "citation": "```\n@misc{fens}\n```",
        "published": "2026-02-03",
        "keywords": ["fens", "water: fresh"],
        "intended_use": ["Small tests."],
        "limitations": ["Fens alone."],
        "biases": ["All of it is wet."],
        "sources": {
            "fens": {"kind": "public", "url": "https://fen.example/fens", "collected": "2025-11"},
            "bogs": {"kind": "synthetic"},
        },
    }
)


def rows(count: int) -> list[dict[str, Any]]:
    """Rows about fens; the first has a context."""
    asked = [question(f"How deep is fen number {i} in spring?", f"Fen {i} is {i} cm deep then.") for i in range(count)]
    asked[0]["context"] = "Fens are wet."
    return asked


def version(root: Path, sources: dict[str, Source], *, fens: int = 40) -> Dataset:
    """Commit rows of these sources."""
    store = Store(root)
    draft = Draft("wet")
    for name, source in sources.items():
        made = (
            rows(fens) if name == "fens" else [question(f"Is {n} a bog?", f"{n} is one.") for n in ("Oster", "Wester")]
        )
        draft = draft.with_source(source, put_source(store, made, name))
    return Dataset(commit_version(store, draft, None, "test").manifest, root)


SOURCES = {
    "fens": Source(name="fens", format="test", license="CC-BY-SA-4.0", terms="be kind"),
    "bogs": Source(name="bogs", format="test", license="MIT", generated_by="bog-2"),
}


@pytest.fixture(scope="session")
def wet(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A version with signals and splits."""
    dataset = version(tmp_path_factory.mktemp("wet"), SOURCES)
    for stage, settings in {"rules": {}, "pii": {}, "signals": {}, "split": {}}.items():
        dataset = staged(dataset, stage, **settings)
    return dataset


@pytest.fixture(scope="session")
def published(wet: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """It, published with everything that a person can say."""
    return publish(wet, tmp_path_factory.mktemp("published") / "out", about=ABOUT)


@pytest.fixture
def talk(tmp_path: Path) -> Dataset:
    """One row in which a tool is called, by a user with a name."""
    store = Store(tmp_path / "talk")
    files = put_source(store, [question("Depth of fen 3?", "")], "talk")
    text = pl.read_ipc(store.root / files[0].path)
    turns = [
        {"role": "user", "content": "Depth of fen 3?", "name": "mara", "tool_calls": None},
        {"role": "assistant", "content": "", "name": None, "tool_calls": json.dumps(CALL)},
        {"role": "tool", "content": "3 cm", "name": "depth", "tool_calls": None},
        {"role": "assistant", "content": "3 cm.", "name": None, "tool_calls": None},
    ]
    text = text.with_columns(
        messages=pl.Series([turns], dtype=text.schema["messages"]), tools=pl.lit(json.dumps(TOOLS))
    )
    shard = store.put(text, role="text", stage="ingest", source="talk", shard=0)
    draft = Draft("talk").with_source(Source(name="talk", format="test", license="MIT"), [shard, files[1]])
    return Dataset(commit_version(store, draft, None, "test").manifest, store.root)
