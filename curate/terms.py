"""Terms: what is stated of a source (licence, terms, who wrote the answers), stated anew in a version of its own.

No row is read or changed. Stages that go by licences (`select --commercial`) are stale afterwards.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from curate.store import Store
from curate.version import Commit, Draft, commit_version
from schemas.dataset import Dataset
from schemas.errors import ConfigError
from schemas.manifest import Manifest, Source

Field = Literal["license", "terms", "generated_by"]
"""What can be stated of a source."""

_WORDS: dict[Field, str] = {"license": "licence", "terms": "terms", "generated_by": "who generated"}


@dataclass(frozen=True)
class Restated:
    """A source as it was and as it is now, and what became of the commit."""

    before: Source
    after: Source
    commit: Commit


def restate(
    store: Store,
    dataset: Dataset,
    source: str,
    stated: Mapping[Field, str],
    *,
    message: str | None = None,
    latest: Manifest | None = None,
) -> Restated:
    """State anew what holds for a source; what is not given stays, and "" takes a statement back.

    `latest` as in `commit_version`. Raises ConfigError where there is no such source, or nothing is stated.
    """
    m = dataset.manifest
    before = m.source(source)
    if before is None:
        there = ", ".join(s.name for s in m.sources)
        raise ConfigError(f"source {source!r}", f"not in {m.name}@{m.seq}", f"one of its sources ({there})")
    if not stated:
        raise ConfigError(f"source {source!r}", "nothing is stated", "--license, --terms or --generated-by")
    if odd := [words for words in stated.values() if any("\ud800" <= sign <= "\udfff" for sign in words)]:
        raise ConfigError(f"source {source!r}", f"{odd[0]!r} is not UTF-8", "words in UTF-8")
    after = before.model_copy(update={field: words.strip() or None for field, words in stated.items()})
    sources = tuple(after if s.name == source else s for s in m.sources)
    commit = commit_version(
        store, replace(Draft.of(m), sources=sources), m, message or _told(before, after), latest=latest
    )
    return Restated(before, after, commit)


def _told(before: Source, after: Source) -> str:
    pairs = [(_WORDS[field], getattr(before, field), getattr(after, field)) for field in _WORDS]
    changes = [f"{word} {old or 'not stated'} -> {new or 'not stated'}" for word, old, new in pairs if old != new]
    return f"{after.name}: {'; '.join(changes)}"
