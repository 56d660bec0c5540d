"""Measures: what the kept rows of a version hold, as distributions that people can look at and that can be compared.

Reads: messages, context (tokens, estimated), turns, response_words, quality, language, task where the stages have run.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Histogram:
    """How many rows lie between edges: `counts[i]` in [edges[i], edges[i + 1]), the last one with its end.

    `rows` were measured, `unknown` have no value. Quartiles are of the values themselves, not of the buckets.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    rows: int
    unknown: int
    mean: float | None
    quartiles: tuple[float, float, float] | None


@dataclass(frozen=True)
class Shares:
    """How many rows have each value (a language, a task), the most frequent first."""

    counts: Mapping[str, int]
    rows: int
    unknown: int
