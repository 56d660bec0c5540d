"""Contracts of progress: who has done what, what is left, how long a record takes."""

import pytest

from curate.review.progress import PAUSE_S, ReviewProgress, progress_of
from curate.review.pull import fetch
from tests.curate.review.said import FakeReview, answer


def review_of(*records: list[dict[str, object]]) -> FakeReview:
    held = [
        {"id": f"r{i}", "external_id": f"{i:032x}-{i:032x}", "responses": some, "suggestions": []}
        for i, some in enumerate(records)
    ]
    return FakeReview(held=held)


def progress(review: FakeReview, needed: int = 1, *members: str) -> ReviewProgress:
    return progress_of(fetch(review), needed, members)


def test_a_person_has_what_they_did_and_what_still_waits_for_them() -> None:
    found = progress(
        review_of(
            [answer("alice", "keep"), answer("bob", "keep")],
            [answer("alice", "keep", status="discarded")],
            [answer("alice", "keep", status="draft"), answer("bob", "reject")],
            [],
        ),
        2,
        "carol",
    )
    states = {p.name: (p.submitted, p.discarded, p.draft, p.left) for p in found.reviewers}
    assert states == {"alice": (1, 1, 1, 2), "bob": (2, 0, 0, 2), "carol": (0, 0, 0, 3)}
    assert (found.records, found.complete, found.missing) == (4, 1, 5)


def test_a_record_takes_the_median_gap_between_two_answers_without_pauses() -> None:
    times = [0, 30, 70, 70 + PAUSE_S + 1, 70 + PAUSE_S + 11]
    found = progress(review_of(*([answer("alice", "keep", at=at)] for at in times), [], []))
    alice = found.reviewers[0]
    assert (alice.seconds_each, alice.seconds_left) == (30, 60)  # gaps 30, 40, 10
    assert (found.seconds_each, found.seconds_left, found.missing) == (30, 60, 2)


@pytest.mark.parametrize(("gap", "each"), [(PAUSE_S, PAUSE_S), (PAUSE_S + 0.5, None)])
def test_a_gap_of_exactly_the_pause_counts_and_a_longer_one_does_not(gap: float, each: float | None) -> None:
    found = progress(review_of([answer("alice", "keep")], [answer("alice", "keep", at=gap)]))
    assert found.reviewers[0].seconds_each == each


def test_who_has_no_pace_yet_is_estimated_by_that_of_the_others() -> None:
    found = progress(review_of([answer("alice", "keep", at=0)], [answer("alice", "keep", at=20)], [], []), 1, "bob")
    bob = found.reviewers[1]
    assert (bob.name, bob.seconds_each, bob.left, bob.seconds_left) == ("bob", None, 2, 40)


def test_a_review_that_nobody_has_begun_has_no_times() -> None:
    found = progress(review_of([], []), 2, "alice")
    assert (found.missing, found.seconds_each, found.seconds_left) == (4, None, None)
    assert found.reviewers[0].seconds_left is None


def test_a_review_that_is_done_has_nothing_left() -> None:
    found = progress(review_of([answer("alice", "keep")], [answer("bob", "keep")]))
    assert (found.complete, found.missing, [p.left for p in found.reviewers]) == (2, 0, [0, 0])


def test_everything_is_told_as_plain_values() -> None:
    told = progress(review_of([answer("alice", "keep"), answer("bob", "keep")])).to_json()
    assert told["reviewers"][0]["name"] == "alice"
    assert {row["measure"] for row in told["agreement"]} == {"alpha", "suggestion"}
