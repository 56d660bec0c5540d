"""Contracts of a pull: all of it or nothing, twice is once, and nothing is lost or applied wrongly."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curate.review.pull import Pulled, fetch, pull
from curate.review.responses import read_ledger
from curate.store import Store
from curate.verify import verify
from schemas.dataset import Dataset
from schemas.errors import ReviewError, StoreError
from schemas.manifest import Manifest
from schemas.review_config import PullConfig
from tests.curate.review.said import FakeReview, answer, keeps, suggestion
from tests.rows import dataset_of, question, staged

ROWS = [question(f"What is {n} of the many things?", f"The answer to {n} is a good one.") for n in range(6)]


@pytest.fixture
def mix(tmp_path: Path) -> Dataset:
    return staged(dataset_of(tmp_path, {"s": ROWS}, name="mix"), "split")


def run(dataset: Dataset, review: FakeReview, **settings: Any) -> Pulled:
    return pull(Store(dataset.root), dataset, review, PullConfig(**settings))


def after(dataset: Dataset, done: Pulled) -> Dataset:
    return Dataset(done.commit.manifest, dataset.root)


def overrides(dataset: Dataset) -> list[str | None]:
    return dataset.scan(["override"]).collect()["override"].to_list()


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in (root / "datasets").rglob("*.json")}


def two_rows(dataset: Dataset) -> FakeReview:
    review = FakeReview()
    review.add(dataset, 0, *keeps("alice", "bob"))
    review.add(dataset, 1, answer("alice", "fix", correction="Better."))
    return review


def test_pulling_twice_changes_nothing(mix: Dataset) -> None:
    review = two_rows(mix)
    first = run(mix, review)
    assert first.commit.is_new
    second = run(after(mix, first), review)
    assert (second.commit.is_new, second.commit.manifest.id) == (False, first.commit.manifest.id)
    assert second.to_json() == first.to_json()


def test_the_order_of_records_and_responses_on_the_server_makes_no_other_version(mix: Dataset) -> None:
    review = two_rows(mix)
    first = run(mix, review)
    for record in review.held:
        record["responses"].reverse()
    review.held.reverse()
    assert not run(after(mix, first), review).commit.is_new


@pytest.mark.parametrize("at", [0, 1])
def test_a_server_that_fails_half_way_leaves_the_store_as_it_was(mix: Dataset, at: int) -> None:
    before = files(mix.root)
    review = two_rows(mix)
    review.breaks_at = at
    with pytest.raises(ConnectionError):
        run(mix, review)
    assert files(mix.root) == before
    review.breaks_at = None
    assert overrides(after(mix, run(mix, review)))[:2] == ["keep", "keep"]


@pytest.mark.parametrize("dies_at", [1, 2, 3, 4])
def test_a_pull_that_dies_while_it_writes_leaves_the_store_as_it_was(
    mix: Dataset, dies_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each object that it writes: ledger, agreement, annotation, overlay."""
    before, seen = files(mix.root), 0
    put = Store.put

    def dying(*given: Any, **more: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == dies_at:
            raise KeyboardInterrupt
        return put(*given, **more)

    monkeypatch.setattr(Store, "put", dying)
    with pytest.raises(KeyboardInterrupt):
        run(mix, two_rows(mix))
    monkeypatch.undo()
    assert files(mix.root) == before
    done = run(mix, two_rows(mix))
    assert verify(after(mix, done), deep=True) == []


def test_a_pull_that_dies_before_its_commit_leaves_the_store_as_it_was(
    mix: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(_store: Store, _manifest: Manifest) -> Path:
        raise KeyboardInterrupt

    before = files(mix.root)
    monkeypatch.setattr(Store, "commit", dying)
    with pytest.raises(KeyboardInterrupt):
        run(mix, two_rows(mix))
    assert files(mix.root) == before


def test_drafts_and_discards_decide_nothing_and_are_counted(mix: Dataset) -> None:
    """A discard comes with the suggested values: they are nobody's opinion."""
    review = FakeReview()
    review.add(mix, 0, answer("alice", "reject", status="draft"), answer("bob", "reject", status="discarded", rating=1))
    done = run(mix, review)
    assert overrides(after(mix, done)) == [None] * 6
    told = done.to_json()
    assert (told["drafts"], told["discarded"], told["submitted"]) == (1, 1, 0)
    kept = read_ledger(after(mix, done))
    assert kept.select("reviewer", "status", "verdict", "rating").rows() == [("bob", "discarded", None, None)]


def test_where_nobody_has_said_anything_nothing_is_committed(mix: Dataset) -> None:
    review = FakeReview()
    review.add(mix, 0, answer("alice", "keep", status="draft"))
    done = run(mix, review)
    assert not done.commit.is_new
    assert done.tally.counts == dict.fromkeys(("keep", "fix", "reject", "unresolved", "waiting", "stale"), 0)


def test_what_the_server_says_now_replaces_what_it_said_before(mix: Dataset) -> None:
    review = two_rows(mix)
    first = run(mix, review)
    review.held[0]["responses"] = [answer("alice", "reject", at=9)]
    second = run(after(mix, first), review)
    assert overrides(after(mix, second))[:2] == ["reject", "keep"]
    assert second.withdrawn == 1  # what bob said


def test_records_that_were_removed_on_the_server_keep_what_was_said(mix: Dataset) -> None:
    review = two_rows(mix)
    first = run(mix, review)
    removed = review.held.pop(0)
    second = run(after(mix, first), review)
    assert (second.commit.is_new, second.withdrawn) == (False, 0)
    assert overrides(after(mix, second))[0] == "keep"
    review.held.append({**removed, "responses": []})  # there again, and nobody answered
    third = run(after(mix, second), review)
    assert (overrides(after(mix, third))[0], third.withdrawn) == (None, 2)


def test_another_review_of_the_same_dataset_adds_to_the_ledger(mix: Dataset) -> None:
    first = run(mix, two_rows(mix))
    other = FakeReview(name="second")
    other.add(mix, 2, answer("carol", "reject"))
    second = after(mix, run(after(mix, first), other))
    assert overrides(second)[:3] == ["keep", "keep", "reject"]
    assert set(read_ledger(second)["review"]) == {"mix", "second"}


def test_a_corrected_text_that_is_pushed_and_reviewed_again_is_decided_on_top(mix: Dataset) -> None:
    review = two_rows(mix)
    first = after(mix, run(mix, review))
    review.add(first, 1, answer("bob", "fix", correction="Best."))
    second = after(mix, run(first, review))
    messages = second.scan(["messages", "corrected_by"]).collect().row(1, named=True)
    assert messages["messages"][-1]["content"] == "Best."
    assert messages["corrected_by"] == ["alice", "bob"]
    assert verify(second, deep=True) == []


def test_records_of_other_origin_and_rows_that_are_not_here_are_listed_and_applied_to_nothing(mix: Dataset) -> None:
    review = two_rows(mix)
    review.add(mix, 2, answer("alice", "reject"), external_id=None, id="somebody's")
    review.add(mix, 2, answer("alice", "reject"), external_id="row-2")
    review.add(mix, 2, answer("alice", "reject"), external_id=f"{'0' * 32}-{'1' * 32}")
    done = run(mix, review)
    assert done.fetched.foreign == ["somebody's", "row-2"]
    assert done.tally.missing == ("0" * 32,)
    assert overrides(after(mix, done)) == ["keep", "keep", None, None, None, None]
    assert "0" * 32 in read_ledger(after(mix, done))["id"].to_list()  # kept: the row may come


def test_answers_that_the_form_does_not_know_are_listed_and_decide_nothing(mix: Dataset) -> None:
    review = FakeReview(asked={"verdict": ("keep", "fix", "reject", "maybe"), "rating": (), "issues": ("odd",)})
    review.add(mix, 0, answer("alice", "maybe"), answer("bob", "reject", rating=7, issues=["odd", "flag:refusal"]))
    review.add(mix, 1, answer("alice", None, rating=3))
    done = run(mix, review)
    assert [(u.reviewer, u.question, u.value) for u in done.fetched.unknown] == [
        ("alice", "verdict", "maybe"),
        ("bob", "rating", "7"),
        ("bob", "issues", "odd"),
        ("alice", "verdict", "None"),
    ]
    assert overrides(after(mix, done))[:2] == ["reject", None]
    assert after(mix, done).scan(["labels"]).collect()["labels"][0].to_list() == ["flag:refusal"]
    ledger = read_ledger(after(mix, done))
    assert ledger.filter(pl.col("verdict") == "maybe").height == 1  # not lost


def test_a_dataset_that_asks_something_else_is_an_error_that_says_what_to_do(mix: Dataset) -> None:
    before = files(mix.root)
    for asked in ({"better": ("a", "b")}, {"verdict": ("good", "bad")}):
        with pytest.raises(ReviewError, match=r"asks for no verdict.*--dataset"):
            run(mix, FakeReview(asked=asked))
    assert files(mix.root) == before


def test_a_correction_of_an_answer_that_was_shown_cut_is_not_applied(mix: Dataset) -> None:
    review = FakeReview()
    review.add(mix, 0, answer("alice", "fix", correction="Short."), metadata={"cut": "answer"})
    review.add(mix, 1, answer("alice", "fix", correction="Short."), metadata={"cut": "other"})
    done = run(mix, review)
    assert overrides(after(mix, done))[:2] == [None, "keep"]
    assert [row.why for row in done.tally.unused] == ["alice: the answer was shown cut"]


def test_the_tally_names_each_row_with_its_place(mix: Dataset) -> None:
    review = FakeReview()
    review.add(mix, 0, answer("alice", "keep"), answer("bob", "reject"))
    review.add(mix, 1, answer("alice", "keep", correction="Not this."))
    told = run(mix, review).to_json()
    assert told["decisions"] == {"keep": 1, "fix": 0, "reject": 0, "unresolved": 1, "waiting": 0, "stale": 0}
    assert told["by_source"] == {"s": told["decisions"]}
    assert [(r["source_file"], r["source_row"], r["why"]) for r in told["unresolved"]] == [
        ("s.jsonl", 1, "no majority: keep by alice, reject by bob")
    ]
    assert [r["why"] for r in told["corrections_not_taken"]] == ["alice: it came with the verdict keep"]


def test_fewer_or_more_responses_can_be_asked_for_than_the_push_did(mix: Dataset) -> None:
    review = FakeReview(min_submitted=2)
    review.add(mix, 0, answer("alice", "reject"))
    first = after(mix, run(mix, review))
    assert overrides(first)[0] is None
    lower = after(mix, run(first, review, min_submitted=1))
    assert overrides(lower)[0] == "reject"
    entry = lower.manifest.stage("review")
    assert entry is not None
    assert entry.config == {"min_submitted": 1}


def test_pseudonyms_stand_for_names_everywhere_and_stay_the_same(mix: Dataset) -> None:
    review = two_rows(mix)
    review.held[1]["suggestions"] = [suggestion("keep")]
    named = after(mix, run(mix, review))
    done = run(named, review, pseudonyms=True)
    hidden = after(mix, done)
    people = set(read_ledger(hidden)["reviewer"])
    assert len(people) == 2
    assert all(name.startswith("reviewer-") for name in people)
    shown = hidden.scan(["reviewers", "corrected_by", "detail_review"]).collect()
    assert not {"alice", "bob"} & set(str(shown.to_dicts()).replace("'", " ").replace(",", " ").split())
    assert "alice" not in str(done.to_json())
    again = run(hidden, review)
    assert not again.commit.is_new  # as the version has it
    back = after(mix, run(hidden, review, pseudonyms=False))
    assert set(read_ledger(back)["reviewer"]) == {"alice", "bob"}


def test_the_key_of_pseudonyms_is_for_its_owner_alone_and_a_broken_one_is_an_error(mix: Dataset) -> None:
    hidden = after(mix, run(mix, two_rows(mix), pseudonyms=True))
    key = mix.root / "review" / "pseudonyms.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in key.parent.iterdir()] == [key.name]
    key.write_bytes(b"short")
    with pytest.raises(StoreError, match=r"5 bytes.*Restore it"):
        run(hidden, two_rows(mix))


def test_another_key_gives_other_pseudonyms(mix: Dataset) -> None:
    first = after(mix, run(mix, two_rows(mix), pseudonyms=True))
    (mix.root / "review" / "pseudonyms.key").unlink()
    second = after(mix, run(first, two_rows(mix)))
    assert not set(read_ledger(first)["reviewer"]) & set(read_ledger(second)["reviewer"])


def test_texts_and_times_are_taken_in_one_way_of_writing() -> None:
    review = FakeReview()
    times = ["2026-01-02T03:04:05", "2026-01-02T03:04:05.120000", "2026-01-02T05:04:05+02:00", "2026-01-02T03:04:05Z"]
    for i, time in enumerate(times):
        given = {**answer("alice", "fix", correction="half \ud83d of a pair"), "updated_at": time}
        review.held.append({"id": "r", "external_id": f"{i:032x}-{i:032x}", "responses": [given], "suggestions": []})
    found = fetch(review).responses
    assert [r.updated_at for r in found] == [
        "2026-01-02T03:04:05.000000Z",
        "2026-01-02T03:04:05.120000Z",
        "2026-01-02T03:04:05.000000Z",
        "2026-01-02T03:04:05.000000Z",
    ]
    assert {r.correction for r in found} == {"half � of a pair"}


def test_a_person_whom_the_server_no_longer_names_is_told_apart_by_id() -> None:
    review = FakeReview()
    given = {**answer("alice", "keep"), "user_id": "7f"}
    review.held.append({"id": "r", "external_id": f"{1:032x}-{1:032x}", "responses": [given], "suggestions": []})
    assert [r.reviewer for r in fetch(review).responses] == ["user 7f"]


def test_progress_counts_every_record(mix: Dataset) -> None:
    done: list[int] = []
    pull(Store(mix.root), mix, two_rows(mix), PullConfig(), progress=done.append)
    assert sum(done) == 2


def test_law_the_form_of_the_fake_is_that_of_the_client() -> None:
    """What these tests hold for true of a pull is true of the real one only if both give the same."""
    from curate.review.client import Review

    used = ("records", "questions", "question_names", "usernames")
    assert all(callable(getattr(Review, name)) and callable(getattr(FakeReview, name)) for name in used)
