"""The account of a diff: everything that the page, `--json` and `--markdown` say, in the order in which they say it."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

from pydantic import BaseModel

from curate.diff.changes import WORDS, Diff
from curate.licences import Licence
from curate.measures import Histogram, Shares
from curate.samples import SampleRow
from schemas.manifest import StageCount


@dataclass(frozen=True)
class Side:
    """One of the two versions, in numbers. Tokens are of the kept rows, estimated from characters."""

    name: str
    seq: int
    id: str
    semver: str
    created: str
    message: str
    rows: int
    kept: int
    tokens: int
    stages: tuple[StageCount, ...]
    stale: tuple[str, ...]
    licence: Licence


@dataclass(frozen=True)
class Verdict:
    """What the diff comes to. `sentences`: why the bump is what it is, the weightiest first."""

    same: bool
    bump: Literal["major", "minor", "patch"] | None
    trainer_sees_it: bool
    counts: Mapping[str, int]
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Transition:
    """Rows by their fate before and after: "kept", "rejected by STAGE", "not there"."""

    before: str
    after: str
    rows: int


@dataclass(frozen=True)
class ReasonChange:
    """A reason for rejection: rows that have it before and after, and how many came under it and left it."""

    stage: str
    reason: str
    sentence: str
    before: int
    after: int
    came: int
    left: int


@dataclass(frozen=True)
class ColumnChange:
    """A column whose value differs in rows that both versions have: a field of the text, or what a stage says."""

    column: str
    stage: str
    rows: int
    by_source: Mapping[str, int]


@dataclass(frozen=True)
class SettingChange:
    """A key of a stage's configuration, or its version, that differs; null where the stage or key is not there."""

    stage: str
    key: str
    before: Any
    after: Any

    @property
    def told(self) -> tuple[str, str, str]:
        """The key, before and after as people read them; a stage that only one version has has no version there."""
        if self.key == "version" and None in (self.before, self.after):
            ran, absent = "ran", "did not run"
            return ("(the stage)", absent, ran) if self.before is None else ("(the stage)", ran, absent)
        return self.key, _shown(self.before), _shown(self.after)


def _shown(value: Any) -> str:
    """Write the value of a setting; texts as they are."""
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class Maker:
    """What made changes: the stage, the rule or person (`by`), why (`cause`), by which keys; and how many rows."""

    word: str
    stage: str
    by: tuple[str, ...]
    cause: str
    keys: tuple[str, ...]
    rows: int


def makers(diff: Diff) -> tuple[Maker, ...]:
    """Count changes by what made them: in the order of the words, the most rows first."""
    counts: Counter[tuple[str, str, tuple[str, ...], str, tuple[str, ...]]] = Counter()
    for word, stage, by, cause, keys in diff.changes.select("word", "stage", "by", "cause", "keys").iter_rows():
        counts[word, stage or "", tuple(by or ()), cause or "", tuple(keys or ())] += 1
    order = sorted(counts.items(), key=lambda item: (WORDS.index(item[0][0]), -item[1], item[0]))
    return tuple(Maker(*what, rows) for what, rows in order)


@dataclass(frozen=True)
class TextChange:
    """A text that changed. `where`: "context", "messages[1] assistant". `pieces`: (same | removed | added, text)."""

    where: str
    pieces: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class EditedRow:
    """A row whose text differs: what made it, and its texts word by word. `match`, `confidence`: edited upstream."""

    id: str
    place: str
    source: str
    word: Literal["edited", "edited_upstream"]
    stage: str
    by: tuple[str, ...]
    cause: str
    match: str | None
    confidence: float | None
    texts: tuple[TextChange, ...]


@dataclass(frozen=True)
class Drift:
    """A measure of a source's kept rows, before and after (see `curate.diff.drift`).

    `statistic`: Kolmogorov-Smirnov D for histograms, total variation distance for shares, from 0 to 1. `p`: of a test
    that takes the two as samples; None where there are too few rows.
    """

    source: str
    measure: str
    before: Histogram | Shares
    after: Histogram | Shares
    test: str
    statistic: float
    p: float | None


@dataclass(frozen=True)
class ClusterChange:
    """A near-duplicate cluster that is not what it was (see `curate.diff.clusters`). `before`, `after`: its rows.

    `rows`: (id, place), some of them.
    """

    kind: Literal["born", "gone", "merged", "split", "grown", "shrunk", "changed"]
    before: int
    after: int
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class MixChange:
    """A source or a licence class in the mix: kept rows and tokens before and after."""

    name: str
    licence_before: Licence | None
    licence_after: Licence | None
    rows_before: int
    rows_after: int
    tokens_before: int
    tokens_after: int


@dataclass(frozen=True)
class Leak:
    """A near-duplicate cluster that has kept rows both in train and in an evaluation split of one version."""

    cluster: str
    rows: tuple[tuple[str, str, str], ...]
    """(id, place, split)"""


@dataclass(frozen=True)
class ReviewChange:
    """What became of a person's decision: carried over as it was, new, changed, gone, or of an earlier text (stale)."""

    id: str
    place: str
    kind: Literal["carried", "new", "changed", "gone", "stale"]
    before: str | None
    after: str | None
    reviewers: tuple[str, ...]


@dataclass(frozen=True)
class Account:
    """All that a diff says. `changes`: one row per row and word (see `curate.diff.changes.Diff`).

    `edits` holds at most `texts_limit` rows, of each stage and word alike many; `edits_total` says how many there are.
    `moves`: (split before, split after) -> rows kept in both. `clusters`: counts by kind; `cluster_examples`: some.
    `leaks`: of the later version; must be none. `reviews`: counts by kind; `review_changes`: all but the carried.
    """

    diff: Diff
    before: Side
    after: Side
    verdict: Verdict
    makers: tuple[Maker, ...]
    transitions: tuple[Transition, ...]
    reasons: tuple[ReasonChange, ...]
    settings: tuple[SettingChange, ...]
    columns: tuple[ColumnChange, ...]
    edits: tuple[EditedRow, ...]
    edits_total: int
    drift: tuple[Drift, ...]
    clusters: Mapping[str, int]
    cluster_examples: tuple[ClusterChange, ...]
    sources: tuple[MixChange, ...]
    licences: tuple[MixChange, ...]
    moves: Mapping[tuple[str, str], int]
    leaks: tuple[Leak, ...]
    reviews: Mapping[str, int]
    review_changes: tuple[ReviewChange, ...]
    samples: Mapping[str, tuple[SampleRow, ...]]
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Give all of it as plain values, on top of what `Diff.to_json` gives."""
        told = self.diff.to_json()
        rest = {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.name not in ("diff", "moves")}
        sides = {name: {**told[name], **rest.pop(name)} for name in ("before", "after")}
        moves = [{"before": a, "after": b, "rows": n} for (a, b), n in self.moves.items()]
        return {**told, **sides, **rest, "moves": moves}


def _plain(value: Any) -> Any:
    """Give dataclasses, models, mappings and tuples as JSON has them."""
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value


def account_of(diff: Diff, *, seed: int = 0, samples: int = 5, texts_limit: int = 2_000) -> Account:
    """Work out everything that is said of a diff, which is attributed already (`curate.diff.attribution`).

    Memory: some 100 bytes of each row and version; the texts of the rows that are shown, at most `texts_limit` edits
    and `samples` rows of each word.
    """
    from curate.diff.reckoning import reckon  # noqa: PLC0415 # its parts build on the types above

    return reckon(diff, seed=seed, samples=samples, texts_limit=texts_limit)
