"""Sources: ingest files into a dataset and commit, as a new source, in place of one, or after its rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from curate.ingest import Ingested, ingest
from curate.stage import Progress
from curate.store import Store
from curate.version import Commit, Draft, commit_work
from schemas.config import Format, IngestConfig
from schemas.dataset import Dataset
from schemas.errors import ConfigError, ConflictError
from schemas.manifest import Manifest
from schemas.reference import check_name

Started = Callable[[str, int], Progress]
"""Called with what begins and its rows (0: not known); gives what is called as rows are done."""

Existing = Literal["refuse", "replace", "append"]
"""What to do with a source that is there already."""


@dataclass(frozen=True)
class Added:
    """What was read, and what became of it."""

    ingested: Ingested
    commit: Commit


def add_source(
    store: Store,
    name: str,
    inputs: Sequence[str],
    format: Format,
    config: IngestConfig,
    *,
    existing: Existing = "refuse",
    message: str | None = None,
    started: Started,
) -> Added:
    """Ingest files as a source of a dataset and commit the version, after those that others commit meanwhile.

    Raises ConfigError when the source is there already and `existing` does not say what to do with it, ConflictError
    when somebody else writes the same source meanwhile.
    """
    check_name(name, "dataset")
    parent = store.latest(name)
    source = config.source or (format if format != "auto" else None)
    if source is not None:
        check_name(source, "source")
        _check_free(parent, source, existing)
    if existing == "append":
        if source is None:
            raise ConfigError("--append", "auto decides the source's name only while it reads", "--source with it")
        first_shard, seen = _present(store, parent, source)
    else:
        first_shard, seen = 0, pl.Series("source_key", [], dtype=pl.String)
    found = ingest(
        store, inputs, format, config, first_shard=first_shard, seen=seen, progress=started(f"ingest {source or ''}", 0)
    )
    _check_free(parent, found.source.name, existing)
    line = message or f"ingest {found.source.name}: {found.rows} rows as {found.format}"

    def added_to(version: Manifest | None) -> tuple[Draft, str, Ingested]:
        draft = Draft.of(version) if version else Draft(name)
        if existing == "append" and _rows(version, found.source.name) != _rows(parent, found.source.name):
            raise ConflictError(  # their rows have the numbers and keys that were given to ours
                f"source {found.source.name!r} of dataset {name!r}",
                "another process appended to it meanwhile",
                remedy="nothing was committed: run the command again, one after the other",
            )
        return draft.with_source(found.source, found.files, append=existing == "append"), line, found

    return Added(*commit_work(store, parent, added_to, lambda read: {f"source {read.source.name}"}, quick=True))


def _check_free(parent: Manifest | None, source: str, existing: Existing) -> None:
    if existing == "refuse" and parent is not None and parent.source(source) is not None:
        raise ConfigError(
            f"source {source!r} of dataset {parent.name!r}",
            "it is there already",
            "a new source",
            "use --replace to exchange its rows, --append to add to them, or name another --source",
        )


def _rows(version: Manifest | None, source: str) -> list[str]:
    return [f.sha256 for f in version.files if f.source == source and f.role == "text"] if version else []


def _present(store: Store, parent: Manifest | None, source: str) -> tuple[int, pl.Series]:
    """Give the number of the next shard of a source, and the keys that its rows have."""
    if parent is None or parent.source(source) is None:
        return 0, pl.Series("source_key", [], dtype=pl.String)
    shards = [shard for shard in Dataset(parent, store.root).shards if shard.source == source]
    keys = pl.concat([shard.view(["source_key"]) for shard in shards]).collect().to_series()
    return max(shard.number for shard in shards) + 1, keys
