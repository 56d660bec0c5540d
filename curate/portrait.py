"""A portrait: all that a version's page, its data card and its exports say of it, counted once."""

from collections.abc import Mapping
from dataclasses import dataclass

from curate.coverage import Coverage
from curate.licences import Licence
from curate.measures import Histogram, Shares
from curate.summary import Summary
from schemas.dataset import Dataset


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
class SampleRow:
    """A row as an example. `place`: SOURCE:ROW. `turns`: (role, text), the context as role "context"; long texts are cut."""

    id: str
    place: str
    kept: bool
    reason: str | None
    detail: str | None
    turns: tuple[tuple[str, str], ...]


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
    """Count and measure a version."""
    raise NotImplementedError
