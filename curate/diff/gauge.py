"""Gauges: what each word of a gate counts, what its percentage is of, and which rows stand behind it."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any, NoReturn

import polars as pl

from curate.diff.account import Account, MixChange
from curate.diff.changes import WORDS
from curate.licences import CLASSES
from curate.measures import MEASURES
from schemas.errors import ConfigError
from schemas.manifest import Manifest
from schemas.reasons import REASONS
from schemas.stages import STAGES

BUMPS = ("none", "patch", "minor", "major")
"""The parts of a version number, by weight; none: the versions are the same."""

CHANGED = "changed"
"""Counts rows with any of the diff's words."""

_TOLD = ("id", "source", "place", "word", "stage", "by", "before", "after", "detail")
"""What is told of a row that broke a gate."""


@dataclass(frozen=True)
class Argument:
    """A name in a rule, and the character at which it stands."""

    name: str
    at: int


@dataclass(frozen=True)
class Reading:
    """What a word counts in a diff, and the rows behind it."""

    value: float
    found: pl.DataFrame | None = None
    listed: tuple[Mapping[str, Any], ...] = ()
    word: str = ""

    @property
    def plain(self) -> float | None:
        """The value as JSON has it; None for what is infinitely many times as much as before."""
        return self.value if isfinite(self.value) else None

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """Give the rows behind the value."""
        yield from self.listed
        if self.found is not None:
            yield from self.found.select(c for c in _TOLD if c in self.found.columns).iter_rows(named=True)

    def shown(self, *, percent: bool) -> str:
        """Write the value as people do."""
        if self.word:
            return self.word
        if not isfinite(self.value):
            return "more than there was before (none)"
        if percent:
            return f"{self.value:,.1f}%" if abs(self.value) >= 1_000 else f"{self.value:.4g}%"
        return f"{self.value:,.0f}" if float(self.value).is_integer() else f"{self.value:.4g}"


@dataclass(frozen=True)
class Gauge:
    """A word: what it counts, the kinds of names that it takes, its units (n: a number, %: a percentage), and what its
    percentage is of.
    """

    counts: str
    names: tuple[str, ...]
    units: str
    percent_of: str
    read: Callable[["Asked"], Reading]


@dataclass(frozen=True)
class Asked:
    """What a rule asks for: a word, its names by kind, whether it wants a percentage, and which way it compares."""

    account: Account
    word: str
    names: Mapping[str, tuple[str, ...]]
    percent: bool
    sign: str

    def chosen(self, kind: str) -> Sequence[str]:
        """Give the names of one kind; none: all are meant."""
        return self.names.get(kind, ())


def read_gauge(
    account: Account, word: str, arguments: Sequence[Argument], *, percent: bool, sign: str, where: str
) -> Reading:
    """Read a word off a diff. Raises ConfigError that names what is known, where an argument is not."""
    gauge = GAUGES[word]
    known = {kind: _NAMES[kind](account) for kind in gauge.names}
    names: dict[str, tuple[str, ...]] = {}
    for argument in arguments:
        kind = next((kind for kind in gauge.names if _is(argument.name, kind, known[kind])), None)
        if kind is None:
            _refuse(where, word, argument, known)
        names[kind] = (*names.get(kind, ()), argument.name)
    return gauge.read(Asked(account, word, names, percent, sign))


def _is(name: str, kind: str, known: Sequence[str]) -> bool:
    """Whether a name is one of a kind; a reason that did not occur is one all the same."""
    return name in known or (kind == "reason" and name in REASONS)


def _refuse(where: str, word: str, argument: Argument, known: Mapping[str, Sequence[str]]) -> NoReturn:
    if not known:
        found, expected = f"{word} takes no names", word
    else:
        found = f"no {' or '.join(known)} of that name"
        expected = "; ".join(f"{_PLURAL[kind]} {', '.join(names) or '(none)'}" for kind, names in known.items())
    remedy = close_to(argument.name, (name for names in (*known.values(), REASONS) for name in names))
    raise ConfigError(f"rule {where!r}", f"at character {argument.at}, {argument.name!r}: {found}", expected, remedy)


def close_to(name: str, known: Iterable[str]) -> str:
    """Ask whether a similar name was meant; "" where there is none."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]}?" if near else ""


def _sources(account: Account) -> list[str]:
    return [mix.name for mix in account.sources]


def _reasons(account: Account) -> list[str]:
    told = {change.reason for change in account.reasons}
    by = account.diff.changes["by"].explode().drop_nulls().unique().to_list() if account.diff.changes.height else []
    return sorted(told | {str(name) for name in by})


_PLURAL = {
    "source": "sources",
    "stage": "stages",
    "reason": "reasons and reviewers",
    "measure": "measures",
    "class": "classes",
    "kind of cluster": "kinds of cluster",
    "kind of review": "kinds of review",
}

_NAMES: Mapping[str, Callable[[Account], Sequence[str]]] = {
    "source": _sources,
    "stage": lambda _: STAGES,
    "reason": _reasons,
    "measure": lambda _: MEASURES,
    "class": lambda _: CLASSES,
    "kind of cluster": lambda account: tuple(account.clusters),
    "kind of review": lambda account: tuple(account.reviews),
}


def _changes(asked: Asked) -> Reading:
    """Count the rows that have a word, of some sources, made by some stages, for some reasons."""
    rows = asked.account.diff.changes
    if asked.word != CHANGED:
        rows = rows.filter(pl.col("word") == asked.word)
    for kind in ("source", "stage"):
        if chosen := asked.chosen(kind):
            rows = rows.filter(pl.col(kind).is_in(chosen))
    if reasons := asked.chosen("reason"):
        named = pl.col("by").list.set_intersection(list(reasons)).list.len() > 0
        rows = rows.filter(named | pl.col("after").is_in(reasons) | pl.col("before").is_in(reasons))
    count = rows["id"].n_unique()
    if not asked.percent:
        return Reading(count, rows)
    before = asked.account.diff.before.manifest
    return Reading(_percent(count, _rows_of(before, asked.chosen("source") or _sources(asked.account))), rows)


def _percent(part: float, whole: float) -> float:
    if whole:
        return 100 * part / whole
    return inf if part > 0 else 0.0


def _rows_of(manifest: Manifest, sources: Sequence[str]) -> int:
    return sum(f.rows for f in manifest.files if f.role == "text" and f.source in sources)


def _size(asked: Asked) -> Reading:
    """Give what the later version holds, or by how many percent that is more (or less) than before."""
    account, sources = asked.account, asked.chosen("source") or _sources(asked.account)
    mixes = [mix for mix in account.sources if mix.name in sources]
    match asked.word:
        case "rows":
            old, new = (_rows_of(d.manifest, sources) for d in (account.diff.before, account.diff.after))
        case "kept":
            old, new = (sum(getattr(m, name) for m in mixes) for name in ("rows_before", "rows_after"))
        case _:
            old, new = (sum(getattr(m, name) for m in mixes) for name in ("tokens_before", "tokens_after"))
    went = "<" in asked.sign
    words = ("removed", "edited_upstream", "rejected") if went else ("added", "restored")
    rows = account.diff.changes.filter(pl.col("word").is_in(words) & pl.col("source").is_in(sources))
    if asked.word == "rows":
        rows = rows.filter(~pl.col("word").is_in(["rejected", "restored"]))
    else:
        rows = rows.filter(pl.col("kept_before" if went else "kept_after"))
    return Reading(_percent(new - old, old) if asked.percent else new, rows)


def _share(asked: Asked) -> Reading:
    return _part(asked, [m for m in asked.account.sources if m.name in (asked.chosen("source") or [m.name])])


def _licence(asked: Asked) -> Reading:
    return _part(asked, [m for m in asked.account.licences if m.name in (asked.chosen("class") or [m.name])])


def _part(asked: Asked, mixes: Sequence[MixChange]) -> Reading:
    rows = sum(m.rows_after for m in mixes)
    return Reading(_percent(rows, asked.account.after.kept) if asked.percent else rows)


def _leaks(asked: Asked) -> Reading:
    rows = tuple(
        {"id": row, "source": place.rpartition(":")[0], "place": place, "word": "leak", "detail": f"in {split}"}
        for leak in asked.account.leaks
        for row, place, split in leak.rows
    )
    ran = {count.stage for count in asked.account.after.stages}
    word = "" if rows or ran >= {"dedup", "split"} else "0 (not looked for: dedup and split did not both run)"
    return Reading(len(asked.account.leaks), listed=rows, word=word)


def _drift(asked: Asked) -> Reading:
    sources, measures = asked.chosen("source"), asked.chosen("measure")
    found = [
        drift
        for drift in asked.account.drift
        if (not sources or drift.source in sources) and (not measures or drift.measure in measures)
    ]
    if not found:
        return Reading(0.0, word="0 (not measured in both versions)")
    worst = max(found, key=lambda drift: drift.statistic)
    return Reading(worst.statistic, word=f"{worst.statistic:.4f} ({worst.measure} of {worst.source})")


def _clusters(asked: Asked) -> Reading:
    kinds = asked.chosen("kind of cluster") or tuple(asked.account.clusters)
    rows = tuple(
        {"id": row, "source": place.rpartition(":")[0], "place": place, "word": f"cluster {change.kind}"}
        for change in asked.account.cluster_examples
        if change.kind in kinds
        for row, place in change.rows
    )
    return Reading(sum(asked.account.clusters[kind] for kind in kinds), listed=rows)


def _reviews(asked: Asked) -> Reading:
    kinds = asked.chosen("kind of review") or tuple(asked.account.reviews)
    rows = tuple(
        {
            "id": change.id,
            "source": change.place.rpartition(":")[0],
            "place": change.place,
            "word": f"review {change.kind}",
            "by": list(change.reviewers),
            "before": change.before,
            "after": change.after,
        }
        for change in asked.account.review_changes
        if change.kind in kinds
    )
    return Reading(sum(asked.account.reviews[kind] for kind in kinds), listed=rows)


def _settings(asked: Asked) -> Reading:
    stages = asked.chosen("stage") or STAGES
    return Reading(sum(change.stage in stages for change in asked.account.settings))


def _stale(asked: Asked) -> Reading:
    stages = asked.chosen("stage") or STAGES
    return Reading(sum(stage in stages for stage in asked.account.after.stale))


def _bump(asked: Asked) -> Reading:
    bump = asked.account.verdict.bump or "none"
    return Reading(BUMPS.index(bump), word=bump)


_OF_ROWS = "the rows of the earlier version"
_ROWS = ("source", "stage", "reason")

_MEANING = {
    "added": "rows that came",
    "removed": "rows that went",
    "edited_upstream": "rows that their publisher edited: one went, a near-duplicate came",
    "edited": "rows whose text differs",
    "rejected": "rows that were kept and are not",
    "restored": "rows that were not kept and are",
    "rejudged": "rows left out in both, for another reason or by another stage",
    "resplit": "kept rows in another split",
    "rescored": "kept rows with another score, quality or weight",
}

GAUGES: Mapping[str, Gauge] = {
    **{word: Gauge(_MEANING[word], _ROWS, "n%", _OF_ROWS, _changes) for word in WORDS if word in _MEANING},
    CHANGED: Gauge("rows with any of these words", _ROWS, "n%", _OF_ROWS, _changes),
    "rows": Gauge("rows of the later version", ("source",), "n%", "the change from the earlier version", _size),
    "kept": Gauge("kept rows of the later version", ("source",), "n%", "the change from the earlier version", _size),
    "tokens": Gauge(
        "tokens of the kept rows, estimated", ("source",), "n%", "the change from the earlier version", _size
    ),
    "share": Gauge("kept rows of some sources", ("source",), "%", "the kept rows of the later version", _share),
    "licence": Gauge(
        "kept rows of the later version, by class of licence", ("class",), "n%", "its kept rows", _licence
    ),
    "leaks": Gauge("near-duplicates on both sides of the split", (), "n", "", _leaks),
    "drift": Gauge("the greatest drift, from 0 to 1", ("source", "measure"), "n", "", _drift),
    "clusters": Gauge("clusters that are not what they were", ("kind of cluster",), "n", "", _clusters),
    "reviews": Gauge("decisions of people, by what became of them", ("kind of review",), "n", "", _reviews),
    "settings": Gauge("keys of configuration that differ", ("stage",), "n", "", _settings),
    "stale": Gauge("stages of the later version that are stale", ("stage",), "n", "", _stale),
    "bump": Gauge("the part of the version number that the change raises", (), "n", "", _bump),
}
"""The words of a rule, in the order of the documentation."""
