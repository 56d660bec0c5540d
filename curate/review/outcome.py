"""What came of comparisons: who won, how sure that is, and in what the tuned model has become worse.

The unit is the record. Its score is the mean over its reviewers of 1 (the tuned answer stands higher), 0.5 (a tie) and
0; above 0.5 it is a win, below a loss. Reviewers of one record are no independent draws, so intervals count records.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import sqrt
from typing import Any

import polars as pl
from scipy.special import bdtr

from curate.review.agreement import Alpha, Level, alpha
from curate.review.compare import ANSWERS, ANSWERS_OBJECT, ASPECTS, COMMENT, LETTERS, RANKING, Run, is_tie
from curate.review.markdown import clean
from curate.review.pull import Source
from curate.store import Store

COMPARISONS_OBJECT = "comparisons"
"""Name, with the run, of the object that holds COMPARISONS."""

COMPARISONS = pl.Schema(
    {
        "review": pl.String,
        "external": pl.String,
        "reviewer": pl.String,
        "status": pl.String,
        "tuned": pl.UInt8,
        "base": pl.UInt8,
        "reference": pl.UInt8,
        "fails_tuned": pl.List(pl.String),
        "fails_base": pl.List(pl.String),
        "fails_reference": pl.List(pl.String),
        "comment": pl.String,
        "min_submitted": pl.UInt16,
        "updated_at": pl.String,
    }
)
"""One row for each reviewer and comparison. review: the dataset in Argilla. external: see ANSWERS. status: submitted or
discarded. tuned, base, reference: the place that the answer was given, from 1; null where it was not shown. fails: the
aspects that it fails in. updated_at: UTC, ISO 8601."""

Z_95 = 1.959963984540054
"""Quantile of the normal distribution for intervals of 95 percent."""


@dataclass(frozen=True)
class Tally:
    """Wins, ties and losses of one side over records."""

    wins: int
    ties: int
    losses: int

    @property
    def records(self) -> int:
        """How many records were compared."""
        return self.wins + self.ties + self.losses

    @property
    def rate(self) -> float | None:
        """The win rate, where a tie counts half; None without records."""
        return (self.wins + self.ties / 2) / self.records if self.records else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 percent interval of the win rate (Wilson 1927, without continuity correction).

        With ties it is wider than it need be: a value of one half lowers the variance that p(1 - p) stands for.
        """
        rate, n = self.rate, self.records
        if rate is None:
            return None
        middle = (rate + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
        half = Z_95 / (1 + Z_95**2 / n) * sqrt(rate * (1 - rate) / n + Z_95**2 / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)

    @property
    def p_value(self) -> float | None:
        """The exact sign test, two-sided: how often chance alone would split wins and losses at least so unevenly.

        Ties are left out; None where nothing else is there.
        """
        n = self.wins + self.losses
        if not n:
            return None
        return min(1.0, 2 * float(bdtr(min(self.wins, self.losses), n, 0.5)))

    def to_json(self) -> dict[str, Any]:
        """Give the tally as plain values."""
        low, high = self.interval or (None, None)
        counts = {"records": self.records, "wins": self.wins, "ties": self.ties, "losses": self.losses}
        return counts | {"win_rate": self.rate, "low": low, "high": high, "p_value": self.p_value}


@dataclass(frozen=True)
class Compared:
    """One comparison that enough people have answered, or whose answers are all alike.

    `scores`: how the first of two sides did against the second, from 0 to 1. `fails`: for each side the aspects that
    more than half of the reviewers say it fails in.
    """

    row: Mapping[str, Any]
    reviewers: int
    scores: dict[tuple[str, str], float]
    fails: dict[str, frozenset[str]]
    comments: tuple[str, ...] = ()

    @property
    def regressed(self) -> frozenset[str]:
        """The aspects that the tuned answer fails in and the base model's does not."""
        return self.fails["tuned"] - self.fails["base"]

    @property
    def improved(self) -> frozenset[str]:
        """The aspects that the base model's answer fails in and the tuned one does not."""
        return self.fails["base"] - self.fails["tuned"]


@dataclass(frozen=True)
class Outcome:
    """What all comparisons of a run come to. `open`: comparisons that need more responses."""

    compared: tuple[Compared, ...]
    open: int
    identical: int

    def sides(self) -> tuple[str, ...]:
        """Name the sides that the tuned model was compared with."""
        return tuple(s for s in ("base", "reference") if any(("tuned", s) in c.scores for c in self.compared))

    def tally(self, against: str, source: str | None = None) -> Tally:
        """Count wins, ties and losses of the tuned model against another side; of one source, or of all."""
        return tally(
            c.scores["tuned", against]
            for c in self.compared
            if ("tuned", against) in c.scores and source in (None, c.row["source"])
        )

    def sources(self) -> tuple[str, ...]:
        """Name the sources of the comparisons."""
        return tuple(sorted({c.row["source"] for c in self.compared}))

    def failures(self, aspect: str) -> dict[str, int]:
        """Count the answers of each side that fail in an aspect, the ones that regressed and those that improved."""
        sides = ("tuned", "base", "reference")
        counts = {s: sum(aspect in c.fails.get(s, ()) for c in self.compared) for s in sides}
        return counts | {
            "regressed": sum(aspect in c.regressed for c in self.compared),
            "improved": sum(aspect in c.improved for c in self.compared),
        }

    @property
    def regressions(self) -> tuple[Compared, ...]:
        """The comparisons in which the tuned model has become worse in some aspect."""
        return tuple(c for c in self.compared if c.regressed)


@dataclass(frozen=True)
class Pulled:
    """What a pull brought: all responses of the run so far, and what is to be told. `changed`: something was new."""

    responses: pl.DataFrame
    changed: bool
    shown: frozenset[str]
    """The comparisons that the dataset in Argilla holds, by their external ids."""
    drafts: int
    foreign: int
    unknown: dict[str, int] = field(default_factory=dict[str, int])


def tally(scores: Iterable[float]) -> Tally:
    """Count scores above, at and below one half."""
    signs = Counter((score > 0.5) - (score < 0.5) for score in scores)
    return Tally(signs[1], signs[0], signs[-1])


def read_comparisons(store: Store, run: Mapping[str, Any]) -> pl.DataFrame:
    """Read what people said about the answers of a registered run, as COMPARISONS."""
    path = store.run_object(run, COMPARISONS_OBJECT)
    return pl.read_ipc(path) if path else pl.DataFrame(schema=COMPARISONS)


def outcome_of(store: Store, run: Mapping[str, Any]) -> Outcome:
    """Judge all comparisons of a registered run that people have seen."""
    path = store.run_object(run, ANSWERS_OBJECT)
    responses = read_comparisons(store, run)
    answers = pl.read_ipc(path) if path else pl.DataFrame(schema=ANSWERS)
    return outcome(answers.filter(pl.col("external").is_in(responses["external"].implode())), responses)


def outcome(answers: pl.DataFrame, responses: pl.DataFrame, *, min_submitted: int | None = None) -> Outcome:
    """Judge the comparisons that have enough submitted responses: `min_submitted`, else what the push asked for.

    Reads: ANSWERS, COMPARISONS. Comparisons whose answers are all alike are ties that nobody needs to look at.
    """
    said = _voices(responses)
    compared: list[Compared] = []
    still_open = identical = 0
    for row in answers.iter_rows(named=True):
        given = said.get(row["external"], [])
        if is_tie([row[name] for name in row["order"]]):
            identical += 1
            compared.append(_judge(row, []))
        elif given and len(given) >= (min_submitted or max(r["min_submitted"] for r in given)):
            compared.append(_judge(row, given))
        else:
            still_open += 1
    return Outcome(tuple(compared), still_open, identical)


def agreement(answers: pl.DataFrame, responses: pl.DataFrame) -> dict[str, Alpha]:
    """Give Krippendorff's alpha: of where reviewers place the tuned answer, and of what they say it fails in."""
    order = {row["external"]: row["order"] for row in answers.select("external", "order").iter_rows(named=True)}
    said = {external: given for external, given in _voices(responses).items() if external in order}

    def measured(what: Callable[[dict[str, Any]], Hashable], level: Level, *, name: str = "base") -> Alpha:
        return alpha([[what(r) for r in given] for key, given in said.items() if name in order[key]], level)

    found = {
        "tuned against base": measured(lambda r: _score(r["tuned"], r["base"]), "ordinal"),
        "tuned against reference": measured(lambda r: _score(r["tuned"], r["reference"]), "ordinal", name="reference"),
        "what the tuned answer fails in": measured(lambda r: frozenset(r["fails_tuned"] or ()), "sets"),
    }
    return {name: value for name, value in found.items() if value.texts or "reference" not in name}


def _voices(responses: pl.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Give the submitted responses by comparison. Who answered one in several reviews has one voice, the latest."""
    latest = (
        responses.filter(pl.col("status") == "submitted")
        .sort("updated_at", "review")
        .unique(["external", "reviewer"], keep="last", maintain_order=True)
        .sort("external", "reviewer")
    )
    said: dict[str, list[dict[str, Any]]] = {}
    for response in latest.iter_rows(named=True):
        said.setdefault(response["external"], []).append(response)
    return said


def _judge(row: Mapping[str, Any], given: Sequence[Mapping[str, Any]]) -> Compared:
    names = [name for name in ("tuned", "base", "reference") if name in row["order"]]
    scores: dict[tuple[str, str], float] = {}
    for a, b in combinations(names, 2):
        alike = not given or is_tie([row[a], row[b]])
        scores[a, b] = 0.5 if alike else sum(_score(r[a], r[b]) for r in given) / len(given)
    fails: dict[str, frozenset[str]] = {}
    for name in names:
        counts = Counter(aspect for r in given for aspect in r[f"fails_{name}"] or ())
        fails[name] = frozenset(aspect for aspect, n in counts.items() if 2 * n > len(given))
    comments = tuple(r["comment"] for r in given if r["comment"])
    return Compared(row, len(given), scores, fails, comments)


def _score(a: int, b: int) -> float:
    return 0.5 if a == b else float(a < b)


def pull(store: Store, run: Run, answers: pl.DataFrame, review: Source, named: Callable[[str], str] = str) -> Pulled:
    """Bring what people said into the store, with the run. All is fetched first, then one object is written.

    Responses that are on the server replace those of the same comparison; of records that were removed there, what was
    pulled before stays. Reads: ANSWERS. `named` gives the name by which a reviewer is known here.
    """
    orders = {row["external"]: row["order"] for row in answers.select("external", "order").iter_rows(named=True)}
    names = review.usernames()
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    drafts = foreign = 0
    unknown: Counter[str] = Counter()
    for record in review.records():
        order = orders.get(record["external_id"] or "")
        if order is None:
            foreign += 1
            continue
        seen.add(record["external_id"])
        for response in record.get("responses") or ():
            if response["status"] not in ("submitted", "discarded"):
                drafts += 1
                continue
            read = _read(response, order, unknown)
            if read is None:
                continue
            user = names.get(response["user_id"]) or f"user {response['user_id']}"
            rows.append(
                read
                | {
                    "review": review.name,
                    "external": record["external_id"],
                    "reviewer": named(user),
                    "min_submitted": review.min_submitted,
                }
            )
    registered = next((r for r in store.runs() if r.get("run_id") == run.id), {})
    known = read_comparisons(store, registered)
    gone = known.filter(~((pl.col("review") == review.name) & pl.col("external").is_in(list(seen))))
    merged = pl.concat([gone, pl.DataFrame(rows, schema=COMPARISONS)]).sort("review", "external", "reviewer")
    changed = not merged.equals(known)
    if changed:
        written = store.put(merged, role="index", stage="review", made_from=COMPARISONS_OBJECT)
        store.add_to_run(run.id, dict(run.facts), {COMPARISONS_OBJECT: written.sha256})
    return Pulled(merged, changed, frozenset(seen), drafts, foreign, dict(unknown))


def _read(response: Mapping[str, Any], order: Sequence[str], unknown: Counter[str]) -> dict[str, Any] | None:
    """Give what a response says by who gave the answers; None, counted, where it does not rank them all."""
    values = {name: value["value"] for name, value in (response.get("values") or {}).items()}
    letters = dict(zip(LETTERS, order, strict=False))
    read: dict[str, Any] = {"status": response["status"], "comment": None, "updated_at": response["updated_at"]}
    if response["status"] == "discarded":
        return read
    ranks = {place.get("value"): place.get("rank") for place in values.get(RANKING) or ()}
    if set(ranks) != set(letters) or not all(isinstance(rank, int) and 0 < rank < 256 for rank in ranks.values()):
        unknown["an order that does not fit the answers"] += 1
        return None
    for letter, name in letters.items():
        read[name] = ranks[letter]
        said = list(values.get(f"fails_{letter}") or ())
        unknown.update(f"label {label!r}" for label in said if label not in ASPECTS)
        read[f"fails_{name}"] = sorted(label for label in said if label in ASPECTS)
    read["comment"] = clean(str(values.get(COMMENT) or "")).strip() or None
    return read
