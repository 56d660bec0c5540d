"""A version in numbers: rows, kept, rejected by reason, by source, by split, and what is stale."""

from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from schemas.dataset import Dataset
from schemas.manifest import StageCount


@dataclass(frozen=True)
class SourceCount:
    """Rows of one source: all of them, those kept, and the others by reason."""

    rows: int
    kept: int
    rejected: dict[str, int]


@dataclass(frozen=True)
class Summary:
    """What `sft show` says about a version."""

    name: str
    seq: int
    id: str
    semver: str
    created: str
    message: str
    rows: int
    kept: int
    rejected: dict[str, int]
    by_source: dict[str, SourceCount]
    by_split: dict[str, int]
    stages: tuple[StageCount, ...]
    flags: dict[str, int]
    stale: list[str]

    def to_json(self) -> dict[str, Any]:
        """Give the summary as plain values."""
        return {**asdict(self), "stages": [count.model_dump() for count in self.stages]}


def summarise(dataset: Dataset) -> Summary:
    """Count a version's rows. Reads: source, kept, reject_reason, split, flags."""
    rows = dataset.scan(["source", "kept", "reject_reason", "split", "flags"]).collect(engine="streaming")
    kept = rows.filter("kept")
    sources = {str(name): part for (name,), part in sorted(rows.partition_by("source", as_dict=True).items())}
    m = dataset.manifest
    return Summary(
        name=m.name,
        seq=m.seq,
        id=m.id,
        semver=m.semver,
        created=m.created,
        message=m.message,
        rows=rows.height,
        kept=kept.height,
        rejected=_counts(rows.get_column("reject_reason")),
        by_source={
            name: SourceCount(part.height, int(part["kept"].sum()), _counts(part["reject_reason"]))
            for name, part in sources.items()
        },
        by_split=_counts(kept.get_column("split")),
        stages=m.counts,
        flags=_counts(kept.get_column("flags").explode(empty_as_null=True)),
        stale=dataset.stale(),
    )


def _counts(values: pl.Series) -> dict[str, int]:
    """Count values, most frequent first, ties by name; nulls are left out."""
    counts = values.drop_nulls().alias("value").value_counts(name="n").sort("n", "value", descending=[True, False])
    return {str(value): int(n) for value, n in counts.iter_rows()}
