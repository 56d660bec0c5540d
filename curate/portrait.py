"""A portrait: all that a version's page, its data card and its exports say of it, counted once."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from curate.coverage import Coverage, cover
from curate.licences import Licence, licence_of, of_mix
from curate.measures import ALL, MEASURES, NUMBERS, Histogram, Measured, Shares, edges, histogram, measure, shares
from curate.samples import SampleRow, draw, sample_rows
from curate.select import TASK_SIGNALS
from curate.summary import Summary, summarise
from schemas.dataset import Dataset

KEPT = "kept"
"""The samples of rows that are kept; the others are named by the reason for which they are not."""


@dataclass(frozen=True)
class SourcePortrait:
    """One source: its rows and tokens (kept, estimated), its licence, and where it came from."""

    name: str
    format: str
    licence: Licence
    generated_by: str | None
    files: tuple[str, ...]
    rows: int
    kept: int
    tokens: int
    rejected: Mapping[str, int]


@dataclass(frozen=True)
class Portrait:
    """A version as people look at it.

    `measures`: source (or "all") -> measure -> distribution over its kept rows. `samples`: "kept", or a reason ->
    rows drawn by seed. `reviews`: what people decided, by status. `coverage` is None where signals have not run.
    """

    summary: Summary
    sources: tuple[SourcePortrait, ...]
    licence: Licence
    tokens: int
    tokens_by_split: Mapping[str, int]
    measures: Mapping[str, Mapping[str, Histogram | Shares]]
    coverage: Coverage | None
    reviews: Mapping[str, int]
    samples: Mapping[str, tuple[SampleRow, ...]]
    seed: int


def portray(dataset: Dataset, *, seed: int = 0, samples: int = 5) -> Portrait:
    """Count and measure a version, and draw `samples` rows that are kept, and as many of each reason for rejection.

    Reads: what `summarise`, `measure` and `cover` do; review_status, override; the texts of the samples.
    """
    summary, measured = summarise(dataset), measure(dataset)
    by_source = measured.tokens("source")
    licences = {source.name: licence_of(source) for source in dataset.manifest.sources}
    sources: list[SourcePortrait] = []
    for source in dataset.manifest.sources:
        count = summary.by_source.get(source.name)
        sources.append(
            SourcePortrait(
                name=source.name,
                format=source.format,
                licence=licences[source.name],
                generated_by=source.generated_by,
                files=tuple(file.uri for file in source.inputs),
                rows=count.rows if count else 0,
                kept=count.kept if count else 0,
                tokens=by_source.get(source.name, (0, 0))[1],
                rejected=count.rejected if count else {},
            )
        )
    signals = dataset.manifest.stage("signals")
    return Portrait(
        summary=summary,
        sources=tuple(sources),
        licence=of_mix(licences[name] for name in by_source),
        tokens=sum(tokens for _, tokens in by_source.values()),
        tokens_by_split={split: tokens for split, (_, tokens) in measured.tokens("split").items()},
        measures=_distributions(measured),
        coverage=cover(dataset) if signals is not None and signals.version >= TASK_SIGNALS else None,
        reviews=_reviews(dataset),
        samples=_samples(dataset, seed, samples),
        seed=seed,
    )


def _distributions(measured: Measured) -> dict[str, dict[str, Histogram | Shares]]:
    """Give every measure that is known of each source, and of all where there are several; edges are common to all."""
    sources = [*measured.sources, *([ALL] if len(measured.sources) > 1 else [])]
    at = {name: edges([measured.rows[name]]) for name in NUMBERS}
    found: dict[str, dict[str, Histogram | Shares]] = {source: {} for source in sources}
    for source in sources:
        rows = measured.of(source)
        for name in MEASURES:
            if rows[name].count():
                found[source][name] = histogram(rows[name], at[name]) if name in NUMBERS else shares(rows[name])
    return found


def _reviews(dataset: Dataset) -> dict[str, int]:
    """Count the rows that people reviewed, by status."""
    if dataset.manifest.stage("review") is None:
        return {}
    told = dataset.scan(["review_status"]).drop_nulls().collect(engine="streaming").to_series()
    return dict(shares(told).counts)


def _samples(dataset: Dataset, seed: int, rows: int) -> dict[str, tuple[SampleRow, ...]]:
    """Draw rows of each fate, kept first, then the reasons by name. Reads: id, reject_reason."""
    fate = pl.col("reject_reason").cast(pl.Categorical).alias("fate")
    fates = dataset.scan(["id", "reject_reason"]).select("id", fate).collect(engine="streaming")
    drawn = {
        KEPT if fate is None else str(fate): draw(own["id"], seed, rows)
        for (fate,), own in fates.partition_by("fate", as_dict=True).items()
    }
    read = sample_rows(dataset, (row for ids in drawn.values() for row in ids))
    order = sorted(drawn, key=lambda fate: (fate != KEPT, fate))
    return {fate: tuple(read[row] for row in drawn[fate]) for fate in order}
