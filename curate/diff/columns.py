"""Columns and settings that differ: what stages say of the rows that both versions have, and how they were told to."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import polars as pl

from curate.diff.account import ColumnChange, SettingChange
from curate.diff.attribution import differing_keys
from curate.diff.changes import Diff
from curate.diff.pairs import Pair
from schemas.manifest import Manifest
from schemas.stages import ANNOTATION_COLUMNS, STAGES

TEXT = ("messages", "context", "tools", "category", "extra")
"""Columns of the text that people edit or publish; the others say where a row stood."""

_INGESTED = ("tools", "category", "extra")
"""Those that no stage rewrites."""

VERSION = "version"
"""Key of a setting change that is the stage's own version: another one gives other results from the same settings."""


def column_changes(diff: Diff, paired: Iterable[Pair]) -> tuple[ColumnChange, ...]:
    """Count the rows in which a column differs, by column and source: the text's columns, then the stages'.

    A stage's columns are compared where it ran in both versions and judged the row in both; a verdict that is only
    there because the stage, or the row, is new is no difference of opinion.

    Reads: fields of the changes; the annotations that are not the same object in both.
    """
    found: Counter[tuple[str, str, str]] = Counter()
    edited = (
        diff.changes.filter(pl.col("word") == "edited").select("id", "source", "fields").explode("fields").drop_nulls()
    )
    texts = edited.with_columns(column=pl.col("fields").str.extract(r"^([a-z_]+)")).filter(
        pl.col("column").is_in(["messages", "context"])
    )
    for column, source, rows in texts.unique(["id", "column"]).group_by("column", "source").len().iter_rows():
        found["ingest", column, source] += rows
    for pair in paired:
        for stage, column, source, rows in (*_ingested(pair), *_opinions(pair)):
            found[stage, column, source] += rows
    order = {c: i for i, c in enumerate((*TEXT, "verdict", "detail"))}
    keys = sorted(
        {(stage, column) for stage, column, _ in found},
        key=lambda key: (STAGES.index(key[0]), order.get(key[1], len(order)), key[1]),
    )
    changes: list[ColumnChange] = []
    for stage, column in keys:
        by_source = {source: n for (s, c, source), n in sorted(found.items()) if (s, c) == (stage, column)}
        changes.append(ColumnChange(column, stage, sum(by_source.values()), by_source))
    return tuple(changes)


def _ingested(pair: Pair) -> Iterator[tuple[str, str, str, int]]:
    """Compare, by hash, the columns of texts that were ingested anew."""
    if pair.at is not None:
        hashes = [pl.col("source"), *(pl.col(c).hash() for c in _INGESTED)]
        yield from _differences("ingest", *pair.columns(hashes, reads=["source", *_INGESTED]))


def _opinions(pair: Pair) -> Iterator[tuple[str, str, str, int]]:
    for stage in STAGES:
        if not pair.both_ran(stage) or pair.alike(stage):
            continue
        names = {f"verdict_{stage}": "verdict", f"detail_{stage}": "detail"}
        own = [*names, *ANNOTATION_COLUMNS.get(stage, ())]
        judged = [frame["kept"] for frame in pair.columns(["kept"], before_stage=stage)]
        frames = [frame.rename(names).filter(judged[0] & judged[1]) for frame in pair.columns(["source", *own])]
        yield from _differences(stage, *frames)


def _differences(stage: str, old: pl.DataFrame, new: pl.DataFrame) -> Iterator[tuple[str, str, str, int]]:
    """Count the rows in which columns differ, by source. Reads: source, and the columns to compare."""
    columns = [c for c in old.columns if c != "source"]
    differs = old.select(pl.col("source").cast(pl.String), *(pl.Series(c, old[c].ne_missing(new[c])) for c in columns))
    for source, *counts in differs.group_by("source").agg(pl.col(columns).sum()).iter_rows():
        yield from ((stage, column, source, n) for column, n in zip(columns, counts, strict=True) if n)


def setting_changes(before: Manifest, after: Manifest) -> tuple[SettingChange, ...]:
    """Give the keys of the stages' configurations that differ, nested ones with dots.

    Of a stage that only one version has, its version alone is told: all of its settings are new or gone with it. A key
    that a release did not know yet is a difference where it is on (`differing_keys`).
    """
    differing = differing_keys(before, after)
    found: list[SettingChange] = []
    for stage in STAGES:
        old, new = before.stage(stage), after.stage(stage)
        versions = (old.version if old else None), (new.version if new else None)
        if versions[0] != versions[1]:
            found.append(SettingChange(stage, VERSION, *versions))
        if old and new:
            keys = differing.get(stage, ())
            mine, other = (dict(_flat({k: e.config[k] for k in keys if k in e.config})) for e in (old, new))
            found += [
                SettingChange(stage, key, mine.get(key), other.get(key))
                for key in sorted({*mine, *other})
                if mine.get(key) != other.get(key)
            ]
    return tuple(found)


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")  # pyright: ignore[reportUnknownArgumentType] # JSON
        else:
            yield f"{prefix}{key}", value
