"""Licences: what a source may be used for, and what holds for a mix of sources."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from schemas.manifest import Source

LicenceClass = Literal["public-domain", "permissive", "share-alike", "no-derivatives", "non-commercial", "unknown"]
"""From the least to the most restrictive; what is not stated is taken for the most."""


@dataclass(frozen=True)
class Licence:
    """The terms of a source, or of a mix of them.

    `expression`: SPDX, as stated; None where nothing is. `commercial`: whether commercial use is allowed; None where it
    cannot be told. `terms`: what is stated beyond the licence, such as a provider's terms. `why`: one sentence.
    """

    expression: str | None
    kind: LicenceClass
    commercial: bool | None
    terms: tuple[str, ...]
    why: str


def licence_of(source: Source) -> Licence:
    """Read the licence of a source."""
    raise NotImplementedError


def of_mix(licences: Iterable[Licence]) -> Licence:
    """Give what holds for rows of several sources together: the most restrictive of each term."""
    raise NotImplementedError
