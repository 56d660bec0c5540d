"""Two small versions that differ in every way that a diff tells of, and what differs, as planned."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from curate.diff.account import Account, account_of
from curate.diff.attribution import attribute
from curate.diff.changes import compare
from curate.diff.upstream import pair_upstream
from curate.review.responses import Response, ledger_of
from curate.review.stage import review_stage
from curate.stage import Stage, run_stage
from curate.stages import stage
from curate.store import Store
from curate.version import Draft, commit_version
from schemas.dataset import Dataset
from schemas.manifest import Source
from tests.rows import put_source, question

LAMPS = 40
FERRIES = 20


def lamp(i: int, answer: str = "It is lit until the last boat has come in.") -> dict[str, Any]:
    return question(
        f"Which of the {i} lamps along quay number {i} is lit at night?", f"Lamp {i}. {answer}", key=f"l{i}"
    )


def ferry(i: int) -> dict[str, Any]:
    return question(f"When does ferry {i} leave pier {i}?", f"Ferry {i} leaves at {i} o'clock sharp.", key=f"f{i}")


def lamps() -> list[dict[str, Any]]:
    return [lamp(i) for i in range(LAMPS)]


def sourced(dataset: Dataset, name: str, rows: list[dict[str, Any]], **facts: Any) -> Dataset:
    """Put in or exchange a source; nothing is committed."""
    source = Source(name=name, format="test", **facts)
    draft = Draft.of(dataset.manifest).with_source(source, put_source(Store(dataset.root), rows, name))
    return Dataset(draft.manifest(), dataset.root)


def judged(dataset: Dataset, *stages: Stage, **settings: Any) -> Dataset:
    """Run stages; nothing is committed."""
    for one in stages:
        result = run_stage(Store(dataset.root), dataset, one, one.config(**settings))
        dataset = Dataset(Draft.of(dataset.manifest).with_stage(result, one.features).manifest(), dataset.root)
    return dataset


def committed(dataset: Dataset, parent: Dataset | None = None) -> Dataset:
    draft = Draft.of(dataset.manifest)
    manifest = commit_version(Store(dataset.root), draft, parent.manifest if parent else None, "planned").manifest
    return Dataset(manifest, dataset.root)


def reviewed(dataset: Dataset, said: dict[str, str]) -> Dataset:
    """Give the version after one person said a verdict about each row, by SOURCE:ROW."""
    rows = dataset.scan(["id", "source", "source_row", "content_hash"], before_stage="review").collect()
    responses = [
        Response(
            review="r", id=r["id"], content_hash=r["content_hash"], reviewer="ada", status="submitted",
            verdict=said[place], rating=None, issues=None, correction=None, suggested=None, suggested_by=None,
            min_submitted=1, cut=False, updated_at="2026-01-01T00:00:00.000000Z",
        )
        for r in rows.iter_rows(named=True)
        if (place := f"{r['source']}:{r['source_row']}") in said
    ]  # fmt: skip
    return judged(dataset, review_stage(ledger_of(responses)))


def two_versions(root: Path) -> tuple[Dataset, Dataset]:
    """Commit an earlier and a later version of a dataset.

    Before: 40 lamps (MIT) and 20 ferries (CC BY-NC), rules, signals, dedup, split; ada keeps lamps:1, rejects lamps:2.
    After: lamp 3 is gone, lamp 5 has another answer, lamp 7 an empty one, two lamps are new; the ferries have gone and
    10 trams (no licence) come; ada rejects lamps:1 now, and said nothing of lamps:2.
    """
    stages = [stage(name) for name in ("rules", "signals", "dedup", "split")]
    first = sourced(Dataset(Draft("d").manifest(), root), "lamps", lamps(), license="MIT")
    ferries = [ferry(i) for i in range(FERRIES)]
    first = judged(sourced(first, "ferries", ferries, license="CC-BY-NC-4.0"), *stages)
    before = committed(reviewed(first, {"lamps:1": "keep", "lamps:2": "reject"}))
    rows = lamps()
    rows[5], rows[7] = lamp(5, "A keeper puts it out at dawn, and not before."), lamp(7)
    rows[7]["messages"] = [rows[7]["messages"][0], ("assistant", "")]
    rows = [*rows[:3], *rows[4:], lamp(100), lamp(101)]
    trams = [
        question(f"Where does tram {i} turn round?", f"Tram {i} turns at depot {i}.", key=f"t{i}") for i in range(10)
    ]
    second = sourced(sourced(before, "lamps", rows, license="MIT"), "trams", trams)
    draft = Draft.of(second.manifest)
    draft = replace(
        draft,
        sources=tuple(s for s in draft.sources if s.name != "ferries"),
        files=tuple(f for f in draft.files if f.source != "ferries"),
    )
    second = judged(Dataset(draft.manifest(), root), *stages)
    return before, committed(reviewed(second, {"lamps:1": "reject"}), before)


def account_between(before: Dataset, after: Dataset, **options: Any) -> Account:
    """Work out all that is said of two versions, as the command does."""
    return account_of(attribute(pair_upstream(compare(before, after))), **options)


@cache
def shared_account() -> Account:
    """Give the account of `two_versions`, made once; their store is gone."""
    with TemporaryDirectory() as folder:
        return account_between(*two_versions(Path(folder)))
