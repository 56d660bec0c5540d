"""Push: chosen rows become records in Argilla, each once.

A record is named by the row's id and the hash of its text, so that pushing again finds what is there. A row that was
edited since has another name: it is sent anew, and its old record goes, or is marked where people had answered.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from curate.review.card import Asked, View, make_card, refused
from curate.review.choose import Choice, choose
from curate.review.form import Card, Form, row_form
from curate.review.guidelines import make_guidelines, read_guidelines
from curate.review.responses import named_row
from curate.review.rows import Row, read_rows
from curate.rules import list_rules
from schemas.config import RulesConfig
from schemas.dataset import Dataset
from schemas.reasons import REASONS
from schemas.review_config import PushConfig
from schemas.stages import ANNOTATION_COLUMNS, STAGES

if TYPE_CHECKING:
    from curate.review.client import Review, Server

STALE = "yes"
"""What the property `stale` says of a record whose row was edited since."""

_ALWAYS = frozenset({"source", "chosen", "words", "turns", "category"})
_FROM = {"flags": "flags", "split": "split", "task": "task", "language": "language", "group": "conflict_id"}
"""Properties that come with a column of a stage; the others have the column's name."""


@dataclass(frozen=True)
class Push:
    """What would be pushed: the rows that were chosen, why, and the form that asks about them."""

    dataset: Dataset
    config: PushConfig
    choice: Choice
    rows: tuple[Row, ...]
    form: Form
    guidelines: str
    reasons: Mapping[str, str]

    def cards(self, options: Sequence[str], properties: Sequence[str], again: Sequence[Row] = ()) -> list[Card]:
        """Make the cards, for a form with these issues and properties. `again`: rows that were edited since."""
        m = self.dataset.manifest
        view = View(
            reasons=self.reasons,
            options=frozenset(options),
            properties=frozenset(properties),
            chosen=self.config.select,
            blind=self.config.blind,
            judge=_judge(self.dataset),
            whole=f"sft why {m.name} {{}}",
        )
        standing = {row["id"]: row for row in self.choice.standing.iter_rows(named=True)}
        asked = {row["id"]: row for row in self.choice.rows.iter_rows(named=True)}
        cards = [
            make_card(row, Asked(asked[row.id]["why"], asked[row.id]["group"], standing.get(row.id, {})), view)
            for row in self.rows
        ]
        return [*cards, *(make_card(row, Asked("it was edited since reviewers got it"), view) for row in again)]

    @property
    def notes(self) -> list[str]:
        """What the person who pushes should know."""
        entry = self.dataset.manifest.stage("pii")
        early = [row for row in self.rows if row.stage in ("normalize", "rules")]
        if entry is None or entry.config.get("action") != "redact" or not early:
            return list(self.choice.notes)
        return [
            *self.choice.notes,
            f"{len(early):,} of the rows were left out before personal data is redacted, and are shown as they stand",
        ]

    def own_cards(self) -> list[Card]:
        """Make the cards for the form as it is here."""
        options = next(q.options for q in self.form.questions if q.name == "issues")
        return self.cards(list(options), [p.name for p in self.form.properties])


@dataclass(frozen=True)
class Pushed:
    """What became of the chosen rows. All are external ids but `left_out`: row id -> what the server would refuse."""

    url: str
    new: tuple[str, ...] = ()
    there: tuple[str, ...] = ()
    refreshed: tuple[str, ...] = ()
    marked: tuple[str, ...] = ()
    """Records of rows that were edited since, of which people had answered: they stay, marked."""
    removed: tuple[str, ...] = ()
    """Records of rows that were edited since, which nobody had answered."""
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])
    notes: tuple[str, ...] = ()


def prepare(dataset: Dataset, config: PushConfig) -> Push:
    """Choose rows, and make what is needed to show them; speaks to no server.

    Raises ConfigError: see `choose`, and `read_guidelines`.
    """
    own = read_guidelines(config.guidelines) if config.guidelines else None
    choice = choose(dataset, config)
    reasons = {**REASONS, **_own_rules(dataset)}
    form = row_form(reasons, _known(dataset))
    m = dataset.manifest
    sources = {s.name: sum(f.rows for f in m.files if (f.role, f.source) == ("text", s.name)) for s in m.sources}
    return Push(
        dataset=dataset,
        config=config,
        choice=choice,
        rows=tuple(read_rows(dataset, choice.rows["id"].to_list())),
        form=form,
        guidelines=own or make_guidelines(m.name, sources, choice.reasons, reasons, config),
        reasons=reasons,
    )


def push(server: "Server", name: str, prepared: Push, progress: Callable[[int], None] = lambda _: None) -> Pushed:
    """Send the rows that are not there yet to the dataset `name`, which is made where there is none.

    Raises ReviewError: it asks other questions, or the server refuses or cannot be reached. What was sent by then
    stays, and pushing again goes on from there.
    """
    from curate.review.client import check_questions  # noqa: PLC0415 # the SDK takes half a second to import

    config, notes = prepared.config, list(prepared.notes)
    review = server.find(name)
    if review is None:
        review = server.create(name, prepared.form, prepared.guidelines, config.min_submitted)
    else:
        check_questions(review, prepared.form)
        notes += _kept_as_made(review, config)
    notes += _too_few(review)
    there = review.external_ids()
    stale = _stale(prepared.dataset, there)
    again = _asked_again(prepared, stale)
    options = review.questions()["issues"]
    cards = prepared.cards(options, sorted(review.property_names()), again)
    bad = {card.external_id: problem for card in cards if (problem := refused(card))}
    cards = [card for card in cards if card.external_id not in bad]
    new = [card for card in cards if card.external_id not in there]
    old = [card for card in cards if card.external_id in there]
    review.send([*new, *(old if config.refresh else [])], progress)
    marked, removed = _settle(review, stale)  # only then: who is interrupted must find the rows still to be sent
    return Pushed(
        url=review.url,
        new=tuple(card.external_id for card in new),
        there=() if config.refresh else tuple(card.external_id for card in old),
        refreshed=tuple(card.external_id for card in old) if config.refresh else (),
        marked=marked,
        removed=removed,
        left_out={external.partition("-")[0]: problem for external, problem in bad.items()},
        notes=tuple(notes),
    )


def _too_few(review: "Review") -> list[str]:
    """Say that rows will never be complete, as far as is known: there are fewer people than responses needed."""
    people = len(review.members()) + 1  # an owner may respond too
    if people >= review.min_submitted:
        return []
    who = {1: "nobody but an owner", 2: "one reviewer and an owner"}.get(people, f"{people - 1} reviewers and an owner")
    return [
        f"a row needs {review.min_submitted} responses, and {who} is there to give them: add reviewers (sft curate "
        "review serve --reviewers alice,bob, or Argilla's settings), or push to another --dataset with --min-submitted"
    ]


def _kept_as_made(review: "Review", config: PushConfig) -> list[str]:
    """Say what of the settings does not reach a dataset that is there already."""
    notes: list[str] = []
    if review.min_submitted != config.min_submitted:
        notes.append(
            f"the dataset was made with {review.min_submitted} responses for each row, and goes on so; "
            "for another number push to another --dataset"
        )
    if config.guidelines:
        notes.append("the dataset was made with other guidelines, and keeps them; change them in Argilla's settings")
    return notes


def _stale(dataset: Dataset, there: Mapping[str, str]) -> dict[str, str | None]:
    """Find records of another text than the row has now. Gives external id -> row id (null: the row is gone).

    A correction that reviewers made is no edit of theirs: the text before it is the one that they saw. Records of a row
    with a decision in force led to it, also those of a text between two corrections.
    """
    named = {external: row for external in there if (row := named_row(external))}
    ids = pl.LazyFrame({"id": sorted({row_id for row_id, _ in named.values()})}, schema={"id": pl.String})
    now = dataset.scan(["id", "content_hash", "review_status"]).join(ids, on="id", how="semi").collect()
    shown = dataset.scan(["id", "content_hash"], before_stage="review").join(ids, on="id", how="semi").collect()
    known = {*now.select("id", "content_hash").iter_rows(), *shown.iter_rows()}
    decided = set(now.filter(pl.col("review_status") == "decided")["id"])
    rows = set(now["id"])
    return {
        external: row[0] if row[0] in rows else None
        for external, row in named.items()
        if row not in known and row[0] not in decided
    }


def _asked_again(prepared: Push, stale: Mapping[str, str | None]) -> list[Row]:
    """Read the rows that were edited since and are not among the chosen."""
    chosen = {row.id for row in prepared.rows}
    return read_rows(prepared.dataset, sorted({row for row in stale.values() if row} - chosen))


def _settle(review: "Review", stale: Mapping[str, str | None]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Mark the stale records that people had answered, and remove the others. Gives both, by external id."""
    if not stale:
        return (), ()
    marks: dict[str, dict[str, Any]] = {}
    unseen: dict[str, str] = {}
    for record in review.records():
        external, known = record["external_id"], record.get("metadata") or {}
        if external not in stale:
            continue
        if not record.get("responses"):
            unseen[external] = record["id"]
        elif known.get("stale") != STALE:
            marks[external] = {**known, "stale": STALE}
    review.mark(marks)
    review.remove(list(unseen.values()))
    return tuple(marks), tuple(unseen)


def _own_rules(dataset: Dataset) -> dict[str, str]:
    """Give the sentences of the dataset's own rules."""
    entry = dataset.manifest.stage("rules")
    if entry is None or not entry.config.get("rules"):
        return {}
    rules = list_rules(RulesConfig.model_validate(entry.config))
    return {rule.name: rule.sentence for rule in rules if rule.name.startswith("custom:")}


def _judge(dataset: Dataset) -> str | None:
    """Name the model that judged the rows."""
    entry = dataset.manifest.stage("score")
    scorers: Mapping[str, Mapping[str, Any]] = entry.config.get("scorers", {}) if entry else {}
    return str(scorers["judge"]["model"]) if "judge" in scorers else None


def _known(dataset: Dataset) -> set[str]:
    """Name the properties that a version's rows can have."""
    ran = [stage for stage in STAGES if dataset.manifest.stage(stage)]
    columns = {name for stage in ran for name in ANNOTATION_COLUMNS.get(stage, ())}
    from_columns = {name for name in columns if name not in _FROM.values()}
    return {*_ALWAYS, *from_columns, *(n for n, c in _FROM.items() if c in columns), *(["pipeline"] if ran else [])}
