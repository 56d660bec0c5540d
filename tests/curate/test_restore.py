"""Restoring rows by name: a person's decision that lives as reviews do, and stands above votes and budgets."""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curate.diff.changes import compare
from curate.lineage import why
from curate.pipeline import apply_stage
from curate.restore import Restored, restore, take_back
from curate.review.pull import pull
from curate.review.responses import RESTORE, read_ledger
from curate.store import Store
from curate.terms import restate
from curate.verify import verify
from schemas.config import RulesConfig
from schemas.dataset import Dataset
from schemas.errors import CheckFailedError, ConfigError, UnknownReferenceError
from schemas.review_config import PullConfig
from tests.curate.conftest import chat, make_dataset, run_on
from tests.curate.review.opinions import with_opinion
from tests.curate.review.said import FakeReview, answer
from tests.rows import dataset_of, question, staged

AT = datetime(2026, 1, 2, tzinfo=UTC)
ROWS = [question("Hi?", "N/A"), question("And?", "N/A"), *(question(f"What is {n}?", f"It is {n}.") for n in range(3))]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Rows 1 and 2 are placeholders, which the rules leave out. Made once; each test has its copy."""
    place = tmp_path_factory.mktemp("made") / "store"
    return staged(staged(dataset_of(place, {"s": ROWS}, shard_rows=2), "rules"), "split")


@pytest.fixture
def mix(made: Dataset, tmp_path: Path) -> Dataset:
    return Dataset(made.manifest, shutil.copytree(made.root, tmp_path / "store"))


def restored(dataset: Dataset, *names: str, by: str = "anna", because: str | None = None) -> Restored:
    return restore(Store(dataset.root), dataset, names, by=by, because=because, at=AT)


def at(done: Restored, dataset: Dataset) -> Dataset:
    return Dataset(done.commit.manifest, dataset.root)


def kept(dataset: Dataset) -> list[bool]:
    return dataset.scan(["kept"]).collect()["kept"].to_list()


def test_a_restored_row_is_kept_and_everything_tells_who_why_and_when(mix: Dataset) -> None:
    done = restored(mix, "s:1", because="a fair answer")
    after = at(done, mix)
    assert kept(after) == [True, False, True, True, True]
    assert done.commit.manifest.message == "restore s:1: a fair answer"
    assert list(done.reasons.values()) == ["rule:placeholder_response"]
    view = after.scan(["override", "reviewers", "reviewed_at", "detail_review"]).collect().row(0)
    assert view == ("keep", ["anna"], "2026-01-02T00:00:00.000000Z", "restored by anna: a fair answer")
    told = [e.what for e in why(after, Store(mix.root), "s:1").history if e.stage == "review"]
    assert told == [
        "anna, 2026-01-02 00:00:00 UTC: kept after all, because: a fair answer",
        "kept (restored by anna: a fair answer)",
    ]
    assert compare(mix, after).counts["restored"] == 1
    assert not verify(after, deep=True)


def test_restoring_again_commits_nothing(mix: Dataset) -> None:
    after = at(restored(mix, "s:1"), mix)
    again = restored(after, "s:1", "s:3")
    assert (again.commit.is_new, again.commit.manifest) == (False, after.manifest)
    assert [(row.place, what) for row, what in again.left] == [("s:1", "is kept already"), ("s:3", "is kept already")]


def test_the_same_decision_gives_the_same_version(tmp_path: Path) -> None:
    ids = {
        at(restored(mix, "s:1", "s:2"), mix).manifest.id
        for mix in (staged(dataset_of(tmp_path / place, {"s": ROWS}), "rules") for place in ("a", "b"))
    }
    assert len(ids) == 1


def test_taking_it_back_leaves_what_was_there_before(mix: Dataset) -> None:
    after = at(restored(mix, "s:1", "s:2"), mix)
    back = take_back(Store(mix.root), after, ["s:1", "s:4"])
    assert kept(at(back, mix)) == [False, True, True, True, True]
    assert [row.place for row in back.rows] == ["s:1"]
    assert [(row.place, what) for row, what in back.left] == [("s:4", "was not restored")]
    assert not take_back(Store(mix.root), at(back, mix), ["s:1"]).commit.is_new


def test_stages_that_run_again_leave_the_decision(mix: Dataset) -> None:
    after = at(restored(mix, "s:1"), mix)
    _, commit = apply_stage(Store(mix.root), after, "rules", RulesConfig(disable=("flag:short_response",)))
    assert kept(Dataset(commit.manifest, mix.root))[0]


def test_the_decision_is_stale_when_the_text_is_another(tmp_path: Path) -> None:
    mix = staged(dataset_of(tmp_path, {"s": [question("Hi?\r\n", "N/A")]}), "rules")
    after = staged(at(restored(mix, "s:1"), mix), "normalize")
    after = Dataset(apply_stage(Store(tmp_path), after, "rules", RulesConfig())[1].manifest, tmp_path)
    assert kept(after) == [False]
    assert after.scan(["review_status"]).collect().item() == "stale"
    assert kept(at(restored(after, "s:1"), after)) == [True]


def test_who_restores_a_row_decides_alone_and_may_think_again(mix: Dataset) -> None:
    """A majority stands below it; the same person's later verdict is that person's voice."""
    after = at(restored(mix, "s:1", by="alice"), mix)
    review = FakeReview()
    review.add(after, 0, answer("bob", "reject", at=1), answer("carol", "reject", at=1))
    voted = pull(Store(mix.root), after, review, PullConfig()).commit.manifest
    assert kept(Dataset(voted, mix.root))[0]
    review.add(after, 0, answer("alice", "reject", at=2))
    review.held = review.held[-1:]
    thought = pull(Store(mix.root), Dataset(voted, mix.root), review, PullConfig()).commit.manifest
    assert not kept(Dataset(thought, mix.root))[0]


def test_a_vote_to_reject_is_overruled(mix: Dataset) -> None:
    review = FakeReview()
    review.add(mix, 4, answer("bob", "reject"), answer("carl", "reject"))
    voted = Dataset(pull(Store(mix.root), mix, review, PullConfig()).commit.manifest, mix.root)
    assert not kept(voted)[4]
    assert kept(at(restored(voted, "s:5"), voted))[4]


def test_a_ledger_without_reasons_is_the_object_that_it_was_before_there_were_any(mix: Dataset) -> None:
    review = FakeReview()
    review.add(mix, 4, answer("bob", "reject"))
    voted = Dataset(pull(Store(mix.root), mix, review, PullConfig()).commit.manifest, mix.root)
    [ledger] = [f for f in voted.manifest.files_of("review") if f.made_from == "responses"]
    assert "because" not in pl.read_ipc_schema(voted.path(ledger))
    assert read_ledger(voted)["because"].to_list() == [None]
    assert read_ledger(at(restored(voted, "s:5", because="x"), voted))["because"].to_list() == [None, "x"]


def test_names_are_hidden_where_the_ledger_hides_them(mix: Dataset) -> None:
    review = FakeReview()
    review.add(mix, 4, answer("bob", "reject"))
    hidden = Dataset(pull(Store(mix.root), mix, review, PullConfig(pseudonyms=True)).commit.manifest, mix.root)
    after = at(restored(hidden, "s:1"), hidden)
    [name] = read_ledger(after).filter(review=RESTORE)["reviewer"]
    assert name.startswith("reviewer-")


def test_a_restored_row_is_above_the_budget_of_select_and_below_a_licence(tmp_path: Path) -> None:
    store = Store(tmp_path)
    mix = staged(dataset_of(tmp_path, {"s": ROWS}), "select", rows=1, control="random")
    out = mix.scan(["kept"]).with_row_index("n").filter(~pl.col("kept")).collect()["n"][0] + 1
    after = at(restored(mix, f"s:{out}"), mix)
    assert kept(after)[out - 1]
    bound = Dataset(restate(store, after, "s", {"license": "CC-BY-NC-4.0"}).commit.manifest, tmp_path)
    bound = staged(bound, "select", commercial=True)
    with pytest.raises(CheckFailedError, match=r"restore, 1 row of d@5: s:1 \(.*\): the licence of its source bars it"):
        restored(bound, "s:1")
    assert kept(bound) == [False] * 5


def test_a_row_that_the_rules_left_out_before_select_saw_it_is_barred_by_its_licence_too(mix: Dataset) -> None:
    """Whether the row was restored before the selection or is after it."""
    bound = staged(at(restored(mix, "s:1"), mix), "select", commercial=True)
    assert kept(bound) == [False] * 5
    with pytest.raises(CheckFailedError, match="the licence of its source bars it"):
        restored(bound, "s:1")


def test_rows_that_cannot_be_kept_are_all_named_and_nothing_is_done(store: Store) -> None:
    rows = [{"messages": [], "broken": "ingest:no_messages"}, chat("What is it?", "A leak."), chat("Hi?", "N/A")]
    dataset = with_opinion(store, make_dataset(store, {"a": rows}), "split", {"1": {"verdict": "leak:bridge"}})
    from curate.rules import STAGE as RULES

    dataset, _ = run_on(store, dataset, RULES)
    with pytest.raises(CheckFailedError) as error:
        restored(dataset, "a:0", "a:1", "a:2")
    told = str(error.value)
    assert told.startswith("restore, 2 rows of test@1: a:0 (")
    assert "it could not be read: The conversation has no turns; a:1" in told
    assert "it would be a leak" in told
    assert told.endswith("Nothing was committed; name the others without them")
    assert not list((store.root / "datasets").glob("*/versions/*"))


def test_personal_data_that_nobody_redacted_is_not_restored(tmp_path: Path) -> None:
    """The rules left the row out, so `pii` never looked at it."""
    mix = dataset_of(tmp_path, {"s": [question("Who is jane.roe@corp-mail.org?", "N/A"), *ROWS]})
    mix = staged(staged(mix, "rules"), "pii", action="redact")
    with pytest.raises(CheckFailedError, match="nobody redacted its personal data"):
        restored(mix, "s:1")


@pytest.mark.parametrize(
    ("names", "more", "error", "told"),
    [
        ((), {}, ConfigError, "no row is named"),
        (("s:9",), {}, UnknownReferenceError, "row 's:9': not in d@3"),
        (("s:1", "s:8", "zz"), {}, UnknownReferenceError, "2 names of rows: s:8, zz"),
        (("s:1",), {"by": " \n "}, ConfigError, "restore, by: is blank"),
        (("s:1",), {"because": "\udcff"}, ConfigError, "is not UTF-8"),
        (("s:" + "9" * 30, "\udcff" * 6), {}, UnknownReferenceError, "2 names of rows"),
        (("s:" + "9" * 5_000,), {}, UnknownReferenceError, "not in d@3"),
    ],
)
def test_what_is_typed_wrong_is_one_clear_error(
    mix: Dataset, names: tuple[str, ...], more: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        restored(mix, *names, **more)
