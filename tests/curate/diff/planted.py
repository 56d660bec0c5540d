"""Two versions of given rows between which every kind of change is planted, and the plan of the changes.

The plan is written where a row is planted. Only what follows for any row, another split from another salt and another
quality from another text, is read off the two versions, by plain Python that is no part of what is tested.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curate.review.pull import pull
from curate.stage import run_stage
from curate.stages import stage
from curate.store import Store
from curate.version import Draft, commit_version
from schemas.dataset import Dataset
from schemas.manifest import Source
from schemas.record import lineage_id
from schemas.review_config import PullConfig
from tests.curate.review.said import FakeReview, answer
from tests.rows import dataset_of, put_source, question

Row = dict[str, Any]
Rows = dict[str, dict[str, Row]]
"""Rows by source and key."""

RULES = """
[[rule]]
name = "spare"
severity = "reject"
sentence = "The answer names the spare quay."
on = "answer"
matches = "spare quay {n}"

[[rule]]
name = "amend"
severity = "fix"
sentence = "The answer names a quay by its old name."
on = "answer"
matches = "old quay {n}"
replace = "new quay"
"""
"""A dataset's own rules; n is 1 before and 2 after."""

IBAN = "GB82 WEST 1234 5698 7654 32"
RULES_KEY, THRESHOLD = ("rules.rules",), ("dedup.threshold",)
SELECT_KEYS = ("select.by", "select.quota", "select.weight")


@dataclass(frozen=True)
class Planned:
    """A change as it must be found. `key`, `match`: SOURCE/KEY. `proven`: the keys that a replay leaves of `keys`."""

    word: str
    key: str
    stage: str
    by: tuple[str, ...]
    cause: str
    keys: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    match: str | None = None
    proven: tuple[str, ...] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Planted:
    """The two versions, and what changed between them. `key_of`: SOURCE/KEY by the row's id."""

    before: Dataset
    after: Dataset
    plan: list[Planned]
    key_of: dict[str, str]


def plant(root: Path, given: dict[str, list[Row]], many: int, *, shard_rows: int) -> Planted:
    """Make the two versions in a store, with `many` changes of each kind.

    `given`: rows of alpaca, dolly and openorca that the stages keep, each with a key, at least 6 x `many` of each.
    """
    plan = _Plan(given, many)
    plan.coming_and_going()
    plan.edits()
    plan.verdicts()
    plan.numbers()
    plan.reviews()
    before = dataset_of(root, {s: list(r.values()) for s, r in plan.old.items()}, name="mix", shard_rows=shard_rows)
    before = _pipeline(before, "1", nfc=False, kinds=("secret",), threshold=0.8, salt="a")
    before = _reviewed(before, {key: first for key, (first, _) in plan.said.items() if first})
    draft = Draft.of(before.manifest)
    files = tuple(f for f in draft.files if f.source != "aside")
    draft = dataclasses.replace(draft, files=files, sources=tuple(s for s in draft.sources if s.name != "aside"))
    for source, rows in plan.new.items():
        appended = source in ("openorca", "ranked", "weighted")
        number = 1 + max((s.number for s in before.shards if s.source == source), default=-1) if appended else 0
        files = put_source(Store(root), list(rows.values()), source, shard_rows=shard_rows)
        files = [f.model_copy(update={"shard": number + (f.shard or 0)}) for f in files]
        draft = draft.with_source(Source(name=source, format="test"), files, append=appended)
    after = Dataset(commit_version(Store(root), draft, before.manifest, "a new release").manifest, root)
    select = {"quota": (f"ranked={many}",), "weight": ("weighted=2",)}
    after = _pipeline(after, "2", nfc=True, kinds=("secret", "iban"), threshold=0.787, salt="b", **select)
    after = _reviewed(after, {key: second for key, (_, second) in plan.said.items()})
    columns = ("id", "source", "source_key")
    key_of = {i: f"{source}/{key}" for d in (before, after) for i, source, key in d.scan(columns).collect().iter_rows()}
    return Planted(before, after, [*plan.plan, *_following(before, after, key_of, plan.plan)], key_of)


class _Plan:
    """Rows of both versions as they are planted. `old`: of the first one; `new`: put in place of them, or added."""

    def __init__(self, given: dict[str, list[Row]], many: int) -> None:
        self.many = many
        self.plan: list[Planned] = []
        self.old: Rows = {name: {row["key"]: row for row in rows} for name, rows in given.items()}
        self.old |= {"aside": {}, "ranked": {}, "weighted": {}}
        self.new: Rows = {
            "alpaca": dict(self.old["alpaca"]),
            "dolly": dict(self.old["dolly"]),
            "openorca": {},
            "fresh": {},
        }
        self.said: dict[str, tuple[Any, Any]] = {}
        self._left = {name: iter(rows) for name, rows in given.items()}

    def _pick(self, source: str) -> list[Row]:
        return [next(self._left[source]) for _ in range(self.many)]

    def _put(self, source: str, row: Row) -> str:
        """Put a row into both versions."""
        for rows in (self.old, self.new):
            if source in rows and (rows is self.old or source != "openorca"):
                rows[source][row["key"]] = row
        return f"{source}/{row['key']}"

    def _marked(self, source: str, end: str) -> Iterator[tuple[str, Row]]:
        """Put words behind the answer of rows in both versions."""
        for row in self._pick(source):
            marked = said_more(row, row["key"], end)
            yield self._put(source, marked), marked

    def coming_and_going(self) -> None:
        for n in range(self.many):
            for source, by in (("fresh", "new source"), ("openorca", "appended"), ("alpaca", "replaced")):
                self.new[source][f"new{n}"] = told(f"{source} new {n}", f"new{n}")
                self.plan.append(Planned("added", f"{source}/new{n}", "ingest", (by,), "source"))
            self.old["aside"][f"n{n}"] = told(f"aside {n}", f"n{n}")
            self.plan.append(Planned("removed", f"aside/n{n}", "ingest", ("source removed",), "source"))
        for row in self._pick("alpaca"):
            del self.new["alpaca"][row["key"]]
            self.plan.append(Planned("removed", f"alpaca/{row['key']}", "ingest", ("replaced",), "source"))

    def edits(self) -> None:
        """Edits of the publisher, under another key and under the same; edits of stages in one version alone."""
        for row in self._pick("alpaca"):
            edited = said_more(self.new["alpaca"].pop(row["key"]), f"{row['key']}-edited", " That is all.")
            self.new["alpaca"][edited["key"]] = edited
            keys = f"alpaca/{row['key']}", f"alpaca/{edited['key']}"
            self.plan.append(
                Planned("edited_upstream", keys[0], "ingest", ("replaced",), "source", (), answer_of(row), keys[1])
            )
        for row in self._pick("dolly"):
            self.new["dolly"][row["key"]] = said_more(row, row["key"], " That is all.")
            place = f"dolly/{row['key']}"
            self.plan.append(Planned("edited", place, "ingest", ("replaced",), "source", (), answer_of(row)))
        for source, end, editor, name, key in (
            ("openorca", " It is a cafe\u0301.", "normalize", "edit:nfc", "normalize.nfc"),
            ("dolly", " It lies at the old quay 1.", "rules", "custom:amend", "rules.rules"),
            ("alpaca", " It lies at the old quay 2.", "rules", "custom:amend", "rules.rules"),
            ("dolly", f" Pay to {IBAN}.", "pii", "redact:iban", "pii.kinds"),
        ):
            for place, row in self._marked(source, end):
                self.plan.append(Planned("edited", place, editor, (name,), "configuration", (key,), answer_of(row)))

    def verdicts(self) -> None:
        for place, _ in self._marked("dolly", " It lies at the spare quay 2."):
            self.plan.append(Planned("rejected", place, "rules", ("custom:spare",), "configuration", RULES_KEY))
        for place, row in self._marked("alpaca", " It lies at the spare quay 1."):
            # a copy: of two that the rules leave out before, one stays after, and the other is its duplicate
            key = next(
                k
                for n in range(99)
                if lineage_id("alpaca", k := f"copy{n}-{row['key']}") > lineage_id("alpaca", row["key"])
            )
            copy = self._put("alpaca", {**row, "key": key})
            self.plan.append(Planned("restored", place, "rules", ("custom:spare",), "configuration", RULES_KEY))
            self.plan.append(Planned("rejudged", copy, "rules", ("duplicate:exact",), "configuration", RULES_KEY))
        for n in range(self.many):
            # 46 words, so 42 word 5-grams, 5 of them other: 37 of 47 are shared, 0.7872; the shorter answer goes
            words = told(f"pair {n}", "", words=46)["messages"][1][1].split()
            asked = f"What did the {n} boats tell of the day on which they met at the long quay?"
            self._put("dolly", question(asked, " ".join([*words[:23], "unmistakably", *words[24:]]), key=f"long{n}"))
            place = self._put("dolly", question(asked, " ".join(words), key=f"short{n}"))
            self.plan.append(Planned("rejected", place, "dedup", ("duplicate:near",), "configuration", THRESHOLD))

    def numbers(self) -> None:
        """The longer the answer, the better the row: of twice as many the longer half stays. And another weight."""
        for n in range(2 * self.many):
            place = self._put("ranked", told(f"ranked {chr(97 + n)}", f"n{n}", words=8 + n * 40 // (2 * self.many)))
            if n < self.many:
                by = ("select:quota",)
                quota = Planned("rejected", place, "select", by, "configuration", SELECT_KEYS, proven=("select.quota",))
                self.plan.append(quota)
        for n in range(self.many):
            place = self._put("weighted", told(f"weighted {n}", f"n{n}"))
            weight = ("select.weight",)
            self.plan.append(
                Planned("rescored", place, "select", (), "configuration", SELECT_KEYS, ("weight",), proven=weight)
            )

    def reviews(self) -> None:
        """People reject, keep and correct; one decision is carried over as it was, another is turned round."""
        reject, keep = answer("alice", "reject", at=1), answer("alice", "keep", at=1)
        for place, _ in self._marked("openorca", " It is here."):
            self.said[place] = (None, reject)
            self.plan.append(Planned("rejected", place, "review", ("alice",), "review"))
        for place, _ in self._marked("openorca", " It lies at the spare quay 1, not at the spare quay 2."):
            self.said[place] = (None, answer("bob", "keep", at=1))
            self.plan.append(Planned("restored", place, "review", ("bob",), "review"))
        for place, row in self._marked("openorca", " It is there."):
            self.said[place] = (None, answer("bob", "fix", correction="It is where it was.", at=1))
            self.plan.append(Planned("edited", place, "review", ("bob",), "review", (), answer_of(row)))
        for place, _ in self._marked("openorca", " It is nowhere."):
            self.said[place] = (reject, reject)
        for place, _ in self._marked("openorca", " It is everywhere."):
            self.said[place] = (reject, keep)
            self.plan.append(Planned("restored", place, "review", ("alice",), "review"))


def told(name: str, key: str, *, words: int = 30) -> Row:
    """Give a row of words that no other row has."""
    stem = name.replace(" ", "")
    said = " ".join(f"{stem}{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(words))
    return question(f"What is told of {name} and of all that belongs to {stem}?", said, key=key)


def said_more(row: Row, key: str, end: str) -> Row:
    """Give the row under a key, with words behind its last answer."""
    role, said = row["messages"][-1]
    return {**row, "messages": [*row["messages"][:-1], (role, said + end)], "key": key}


def answer_of(row: Row) -> tuple[str, ...]:
    return (f"messages[{len(row['messages']) - 1}] assistant",)


def _pipeline(
    dataset: Dataset, n: str, *, nfc: bool, kinds: Any, threshold: float, salt: str, **select: Any
) -> Dataset:
    path = dataset.root.parent / f"rules{n}.toml"
    path.write_text(RULES.replace("{n}", n))
    store, draft = Store(dataset.root), Draft.of(dataset.manifest)
    for name, settings in {
        "normalize": {"nfc": nfc},
        "rules": {"rules": str(path)},
        "pii": {"action": "redact", "kinds": kinds},
        "signals": {},
        "dedup": {"threshold": threshold},
        "select": select,
        "split": {"salt": salt},
    }.items():
        known = stage(name)
        ran = run_stage(store, Dataset(draft.manifest(), dataset.root), known, known.config.model_validate(settings))
        draft = draft.with_stage(ran, known.features)
    return Dataset(commit_version(store, draft, dataset.manifest, f"settings {n}").manifest, dataset.root)


def _reviewed(dataset: Dataset, said: dict[str, dict[str, Any]]) -> Dataset:
    """Pull what reviewers say about rows, by SOURCE/KEY."""
    places = dataset.scan(["source", "source_key"]).collect().iter_rows()
    number = {f"{source}/{key}": i for i, (source, key) in enumerate(places)}
    review = FakeReview()
    for key, response in said.items():
        review.add(dataset, number[key], response)
    return Dataset(pull(Store(dataset.root), dataset, review, PullConfig()).commit.manifest, dataset.root)


def _following(before: Dataset, after: Dataset, key_of: dict[str, str], plan: list[Planned]) -> Iterator[Planned]:
    edits = {planned.key: planned.keys for planned in plan if planned.word == "edited"}
    columns = ["id", "kept", "split", "quality"]
    old, new = ({row["id"]: row for row in d.scan(columns).collect().to_dicts()} for d in (before, after))
    for row in old.keys() & new.keys():
        a, b = old[row], new[row]
        if a["kept"] and b["kept"] and a["split"] != b["split"]:
            yield Planned("resplit", key_of[row], "split", (), "configuration", ("split.salt",), ("split",))
        if a["kept"] and b["kept"] and a["quality"] != b["quality"]:
            proven = edits.get(key_of[row], ())
            yield Planned("rescored", key_of[row], "signals", (), "text", (), ("quality",), proven=proven)
