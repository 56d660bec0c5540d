"""Contracts of decisions: majority, ties, corrections, chains of corrections, stale responses."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.review.decide import Decision, decide_row, decide_text
from curate.review.responses import RESTORE, VERDICTS, Response
from schemas.record import content_hash
from tests.curate.review.said import said
from tests.rows import messages

ANSWER = "Paris is the capital"
TURNS = messages(("user", "What is it?"), ("assistant", ANSWER))
HASH = content_hash(TURNS, None)


def decided(*responses: Response, answer: str | None = ANSWER, needed: int | None = None) -> Decision:
    found = decide_text(responses, answer, min_submitted=needed)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("verdicts", "status", "override"),
    [
        (["keep"], "decided", "keep"),
        (["reject"], "decided", "reject"),
        (["keep", "reject"], "unresolved", None),
        (["keep", "keep", "reject"], "decided", "keep"),
        (["keep", "reject", "reject", "keep"], "unresolved", None),
        (["keep", "fix", "reject"], "unresolved", None),
        (["keep", "keep", "fix", "reject"], "unresolved", None),  # half is not more than half
    ],
)
def test_more_than_half_of_the_submitted_decide_and_a_tie_decides_nothing(
    verdicts: list[str], status: str, override: str | None
) -> None:
    found = decided(*(said(f"r{i}", verdict) for i, verdict in enumerate(verdicts)))
    assert (found.status, found.override) == (status, override)


def test_discards_and_verdicts_that_the_form_does_not_know_count_for_nothing() -> None:
    assert decide_text([said("a", None, status="discarded"), said("b", "maybe")], ANSWER) is None
    found = decided(said("a", "keep"), said("b", "reject", status="discarded"), said("c", "maybe"))
    assert (found.override, found.reviewers, found.agreement) == ("keep", ("a",), 1.0)


def test_a_row_waits_for_as_many_responses_as_its_push_asked_for_or_the_settings_say() -> None:
    one, two = said("a", "reject", min_submitted=2), said("b", "reject", min_submitted=2)
    assert (decided(one).status, decided(one).why, decided(one).override) == ("waiting", "1 of 2 responses", None)
    assert decided(one, two).override == "reject"
    assert decided(one, needed=1).override == "reject"
    assert decided(one, two, needed=3).status == "waiting"


def test_a_reviewer_who_was_asked_in_several_reviews_has_one_voice_the_latest() -> None:
    found = decided(said("a", "reject", at=2), said("a", "keep", review="other", at=1), said("b", "reject", at=0))
    assert (found.override, found.agreement, found.reviewers) == ("reject", 1.0, ("a", "b"))


def test_what_is_told_of_a_decision() -> None:
    found = decided(
        said("b", "reject", rating=2, issues=["flag:refusal", "issue:incorrect"], at=5),
        said("a", "reject", rating=1, issues=["flag:refusal"], at=3),
        said("c", "keep", at=4),
    )
    assert found.why == "by a and b: flag:refusal"
    assert (found.rating, found.labels, found.reviewers) == (1.5, ("flag:refusal",), ("a", "b", "c"))
    assert found.agreement == pytest.approx(2 / 3)
    assert found.reviewed_at == "2026-01-02T00:00:05.000000Z"


def test_an_issue_that_half_of_the_reviewers_name_is_no_label() -> None:
    assert decided(said("a", "keep", issues=["flag:refusal"]), said("b", "keep")).labels == ()


def test_of_several_corrections_the_one_that_most_gave_is_taken_else_the_one_submitted_last() -> None:
    most = decided(
        said("a", "fix", correction="one", at=1),
        said("b", "fix", correction="one", at=2),
        said("c", "fix", correction="two", at=3),
    )
    assert (most.correction, most.corrected_by, most.override) == ("one", ("a", "b"), "keep")
    last = decided(said("a", "fix", correction="one", at=2), said("b", "fix", correction="two", at=1))
    assert (last.correction, last.corrected_by, last.why) == ("one", ("a",), "corrected by a")


@pytest.mark.parametrize(
    ("more", "answer", "why"),
    [
        ({}, ANSWER, "needs a correction"),
        ({"correction": ANSWER}, ANSWER, "needs a correction"),
        ({"correction": "a\nb\n"}, "a\r\nb", "needs a correction"),  # browsers rewrite line ends
        ({"correction": " \n"}, ANSWER, "needs a correction"),
        (
            {"correction": "new", "cut": True},
            ANSWER,
            "the answer was shown cut, and its correction cannot replace the whole",
        ),
        ({"correction": "new"}, None, "there is no answer to correct"),
    ],
    ids=["none", "unchanged", "line ends", "blank", "cut", "no answer"],
)
def test_fix_without_a_correction_that_can_be_applied_stays_for_review(
    more: dict[str, Any], answer: str | None, why: str
) -> None:
    found = decided(said("a", "fix", **more), answer=answer)
    assert (found.status, found.override, found.why) == ("unresolved", None, why)


def test_a_correction_of_an_empty_answer_is_one() -> None:
    assert decided(said("a", "fix", correction="new"), answer="").correction == "new"


def test_a_correction_replaces_the_last_answer_and_nothing_else() -> None:
    turns = messages(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e"))
    turns[3]["tool_calls"] = "[]"
    outcome = decide_row(turns, "k", {content_hash(turns, "k"): [said("x", "fix", correction="D")]})
    assert [m["content"] for m in outcome.messages] == ["a", "b", "c", "D", "e"]
    assert outcome.messages[3]["tool_calls"] == "[]"
    assert outcome.content_hash == content_hash(outcome.messages, "k")
    assert (outcome.kind, outcome.corrected_by) == ("fix", ("x",))
    assert turns[3]["content"] == "d"


def corrected(text: str) -> str:
    return content_hash(messages(("user", "What is it?"), ("assistant", text)), None)


def test_responses_about_a_corrected_text_stand_on_top_of_the_correction() -> None:
    first = [said("a", "fix", correction="two")]
    kept = decide_row(TURNS, None, {HASH: first, corrected("two"): [said("b", "keep")]})
    assert (kept.kind, kept.messages[1]["content"], kept.decision.reviewers) == ("fix", "two", ("b",))
    out = decide_row(TURNS, None, {HASH: first, corrected("two"): [said("b", "reject")]})
    assert (out.kind, out.decision.override, out.content_hash) == ("reject", "reject", corrected("two"))
    again = decide_row(TURNS, None, {HASH: first, corrected("two"): [said("b", "fix", correction="three")]})
    assert (again.messages[1]["content"], again.corrected_by) == ("three", ("a", "b"))


def test_an_open_review_of_a_corrected_text_leaves_the_correction_standing() -> None:
    second = [said("b", "keep"), said("c", "reject")]
    outcome = decide_row(TURNS, None, {HASH: [said("a", "fix", correction="two")], corrected("two"): second})
    assert (outcome.kind, outcome.messages[1]["content"]) == ("fix", "two")
    assert outcome.pending is not None
    assert outcome.pending.why == "no majority: keep by b, reject by c"


def test_a_correction_that_is_taken_back_ends_the_chain() -> None:
    back = {HASH: [said("a", "fix", correction="two")], corrected("two"): [said("b", "fix", correction=ANSWER)]}
    outcome = decide_row(TURNS, None, back)
    assert (outcome.content_hash, outcome.decision.status) == (HASH, "decided")


def test_what_was_said_about_another_text_is_stale_and_decides_nothing() -> None:
    old = said("a", "reject")
    outcome = decide_row(TURNS, None, {"0" * 32: [old, said("b", None, status="discarded")]})
    assert (outcome.kind, outcome.decision.override, outcome.stale) == ("stale", None, (old,))
    beside = decide_row(TURNS, None, {"0" * 32: [old], HASH: [said("c", "keep")]})
    assert (beside.kind, beside.stale) == ("keep", (old,))


def test_corrections_that_are_not_taken_are_told_each_with_its_reason() -> None:
    some = [
        said("a", "fix", correction="one", at=1),
        said("b", "fix", correction="two", at=2),
        said("c", "keep", correction="three"),
        said("d", "fix", correction=" "),
        said("e", "fix", correction="four", cut=True),
        said("f", "keep", correction=ANSWER),
    ]
    outcome = decide_row(TURNS, None, {HASH: some})
    assert {r.reviewer: why for r, why in outcome.unused} == {
        "a": "another one was taken",
        "c": "it came with the verdict keep",
        "d": "it is blank",
        "e": "the answer was shown cut",
    }


RESPONSES = st.lists(
    st.builds(
        said,
        st.sampled_from("abcde"),
        st.sampled_from([*VERDICTS, "other", None]),
        status=st.sampled_from(["submitted", "discarded"]),
        correction=st.sampled_from([None, "", "one", "two", ANSWER]),
        at=st.integers(0, 5),
        rating=st.sampled_from([None, 1, 5]),
    ),
    max_size=8,
)


@given(RESPONSES, st.randoms())
def test_law_the_order_in_which_responses_come_decides_nothing(some: list[Response], chance: Any) -> None:
    one_each = list({(r.reviewer, r.updated_at): r for r in some}.values())
    shuffled = list(one_each)
    chance.shuffle(shuffled)
    assert decide_text(shuffled, ANSWER) == decide_text(one_each, ANSWER)


@given(RESPONSES)
def test_law_a_row_is_decided_only_where_more_than_half_said_so_and_fix_always_has_a_new_answer(
    some: Sequence[Response],
) -> None:
    found = decide_text(some, ANSWER)
    if found is None:
        assert not any(r.counts for r in some)
    elif found.status == "decided":
        assert found.agreement is not None
        assert found.agreement > 0.5
        assert (found.verdict == "fix") == (found.correction in ("one", "two"))
        assert set(found.corrected_by) <= set(found.reviewers)
    else:
        assert found.override is None


def restores(name: str, **more: Any) -> Response:
    return said(name, "keep", **{"review": RESTORE, **more})


def test_who_restores_a_row_decides_alone() -> None:
    votes = [said("bob", "reject"), said("carl", "reject"), restores("anna", because="fair")]
    for needed in (None, 5):
        found = decided(*votes, needed=needed)
        assert (found.override, found.why, found.by_name) == ("keep", "restored by anna: fair", True)


def test_a_correction_that_the_majority_made_stays_on_a_restored_row() -> None:
    votes = [said("bob", "fix", correction="no"), said("carl", "fix", correction="no"), restores("anna")]
    found = decided(*votes)
    assert (found.override, found.correction, found.by_name) == ("keep", "no", True)


def test_who_restored_a_row_and_votes_later_has_one_voice() -> None:
    assert decided(restores("anna", at=1), said("anna", "reject", at=2)).override == "reject"
