"""Comparisons: blind, named once, kept with the run; what people say comes back as wins, ties, losses, regressions."""

import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import permutations
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from curate.lineage import why
from curate.review.card import refused
from curate.review.client import check_questions, connect
from curate.review.compare import (
    ANSWERED_BY,
    ANSWERS,
    LETTERS,
    Run,
    Said,
    blind_key,
    blind_order,
    cards,
    compared,
    external_id,
    form,
    guidelines,
    keep_answers,
    read_answers,
)
from curate.review.form import GUIDELINES_CHARACTERS
from curate.review.outcome import Tally, agreement, outcome, outcome_of, pull, read_comparisons, tally
from curate.store import Store
from schemas.errors import CorruptObjectError, ReviewError
from schemas.record import Message, Record
from tests.curate.conftest import chat, make_dataset
from tests.curate.review.conftest import ArgillaServer

RUN = Run("r1", {"dataset": "test", "seq": 1, "manifest": "m" * 64, "run_id": "r1"})
KEY = bytes(32)


def rec(number: int, source: str = "a", *, answer: str = "The reference.") -> Record:
    turns = (Message("system", "Be brief."), Message("user", f"Question {number}?"), Message("assistant", answer))
    return Record(f"{number:032x}", source, turns)


def said(number: int) -> Said:
    return Said(f"The tuned answer {number}.", f"The base answer {number}.", tuned_whole=True, base_whole=False)


def answers_of(records: Sequence[Record], told: Mapping[str, Said] | None = None, **settings: Any) -> pl.DataFrame:
    told = told or {r.id: said(int(r.id, 16)) for r in records}
    usual: dict[str, Any] = {"split": "test", "new_tokens": 64, "key": KEY, "seed": 1, "reference": True}
    return compared(RUN, records, told, **{**usual, **settings})


class FakeReview:
    """A dataset in Argilla; `say` answers as a reviewer who knows which answer is which."""

    def __init__(self, answers: pl.DataFrame, name: str = "cmp", min_submitted: int = 1) -> None:
        self.name, self.min_submitted = name, min_submitted
        self.order = {row["external"]: row["order"] for row in answers.iter_rows(named=True)}
        self.said: dict[str, list[dict[str, Any]]] = {external: [] for external in self.order}
        self.clock = 0

    def say(
        self,
        external: str,
        user: str,
        ranks: Mapping[str, int] | None,
        *,
        fails: Mapping[str, Sequence[str]] | None = None,
        status: str = "submitted",
        comment: str | None = None,
    ) -> None:
        letters = dict(zip(self.order[external], LETTERS, strict=False))
        values: dict[str, Any] = {}
        if ranks is not None:
            values["better"] = {"value": [{"value": letters[n], "rank": rank} for n, rank in ranks.items()]}
        for name, aspects in (fails or {}).items():
            values[f"fails_{letters[name]}"] = {"value": list(aspects)}
        if comment is not None:
            values["comment"] = {"value": comment}
        self.clock += 1
        at = f"2026-01-01T00:00:{self.clock:02d}"
        self.said[external].append({"user_id": user, "status": status, "values": values, "updated_at": at})

    def records(self) -> Iterable[dict[str, Any]]:
        return [{"external_id": external, "responses": said} for external, said in self.said.items()]

    def questions(self) -> dict[str, tuple[str, ...]]:
        return {}

    def question_names(self) -> dict[str, str]:
        return {}

    def usernames(self) -> dict[str, str]:
        return {"u1": "ann", "u2": "ben", "u3": "cid"}


BEST, TIE, WORST = (
    {"tuned": 1, "base": 2, "reference": 2},
    {"tuned": 1, "base": 1, "reference": 1},
    {"tuned": 3, "base": 1, "reference": 2},
)


# blindness --------------------------------------------------------------------------------------------------------


def test_nothing_that_is_sent_differs_when_the_mapping_is_swapped_but_the_places_of_the_answers() -> None:
    """Swap whose answer is whose: the same ids, properties, conversation and texts; only their places move."""
    records = [rec(i) for i in range(20)]
    told = {r.id: said(int(r.id, 16)) for r in records}
    swapped = {key: Said(s.base, s.tuned, s.base_whole, s.tuned_whole) for key, s in told.items()}
    one, other = cards(answers_of(records, told)), cards(answers_of(records, swapped))
    moved = 0
    for a, b in zip(one, other, strict=True):
        assert (a.external_id, a.properties, a.suggestions) == (b.external_id, b.properties, b.suggestions)
        assert a.fields["conversation"] == b.fields["conversation"]
        assert sorted(map(str, a.fields.values())) == sorted(map(str, b.fields.values()))
        moved += a.fields != b.fields
    assert moved == len(records)


def test_what_is_sent_names_nobody() -> None:
    """Neither the form, nor the guidelines, nor a record tells who answered, or the row's id."""
    records = [rec(1)]
    told = {records[0].id: Said("One.", "Two.", tuned_whole=True, base_whole=False)}
    [card] = cards(answers_of(records, told))
    sent = repr((asdict(card), asdict(form(reference=True)), guidelines("test", 64, reference=True)))
    assert not [word for word in (*ANSWERED_BY, records[0].id, "r1") if word in sent.replace("The reference.", "")]
    assert set(card.properties) == {"source"}


def test_every_order_comes_about_equally_often_and_depends_on_key_seed_and_record() -> None:
    ids = [rec(i).id for i in range(3000)]
    orders = Counter(tuple(blind_order(KEY, 1, row_id, ANSWERED_BY)) for row_id in ids)
    assert set(orders) == set(permutations(ANSWERED_BY))
    assert all(420 < count < 580 for count in orders.values())  # 500 each, four standard deviations
    for key, seed in ((bytes(31) + b"1", 1), (KEY, 2)):
        assert sum(blind_order(key, seed, i, ANSWERED_BY) == blind_order(KEY, 1, i, ANSWERED_BY) for i in ids) < 600


def test_another_run_has_another_order_so_that_one_result_does_not_unblind_the_next() -> None:
    records = [rec(i) for i in range(60)]
    told = {r.id: said(int(r.id, 16)) for r in records}
    usual: dict[str, Any] = {"split": "test", "new_tokens": 64, "key": KEY, "seed": 1, "reference": True}
    one, other = (compared(Run(name, RUN.facts), records, told, **usual)["order"].to_list() for name in ("r1", "r2"))
    same = sum(a == b for a, b in zip(one, other, strict=True))
    assert same < 25  # ten by chance


def test_blanks_at_the_ends_do_not_tell_who_wrote_an_answer() -> None:
    told = {rec(1).id: Said("\n Tuned.\n", "Base.", tuned_whole=True, base_whole=True)}
    [card] = cards(answers_of([rec(1)], told))
    assert {"Tuned.", "Base.", "The reference."} <= {v for v in card.fields.values() if isinstance(v, str)}


def test_the_key_is_made_once_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    key = blind_key(tmp_path)
    assert blind_key(tmp_path) == key
    assert len(key) == 32
    assert stat.S_IMODE((tmp_path / "review" / "blind.key").stat().st_mode) == 0o600
    assert not list(tmp_path.glob("review/blind.key.*"))


def test_a_comparison_is_named_by_run_record_and_answers_whoever_gave_them() -> None:
    name = external_id("r", "i", ["x", "y"])
    assert name == external_id("r", "i", ["y", "x"])
    others = [external_id("s", "i", ["x", "y"]), external_id("r", "j", ["x", "y"]), external_id("r", "i", ["x", "yy"])]
    assert len({name, *others, external_id("r", "i", ["xy", ""])}) == 5


# cards ------------------------------------------------------------------------------------------------------------


def test_hostile_and_odd_texts_are_shown_within_the_servers_limits() -> None:
    odd = ["", "   ", "\x00", "<script>alert(1)</script>", "x" * 100_000, "![i](http://x/y.png)", "\U0001f600"]
    records = [rec(i, answer=text or "r") for i, text in enumerate(odd)]
    long = Record("f" * 32, "a", (Message("user", "y" * 50_000), *records[0].messages))
    many = Record("e" * 32, "a", (*[Message("user", "q")] * 900, Message("assistant", "r")))
    everything = [*records, long, many]
    told = {r.id: Said(odd[i % len(odd)], "Base.", tuned_whole=True, base_whole=True) for i, r in enumerate(everything)}
    made = cards(answers_of(everything, told))
    assert [card.external_id for card in made if refused(card)] == []
    shown = [value for card in made for value in card.fields.values() if isinstance(value, str)]
    assert "<script>alert(1)</script>" in shown  # a plain text field shows it as it stands
    assert all(text.strip() for text in shown)


def test_answers_that_all_say_the_same_are_ties_that_nobody_sees() -> None:
    records = [rec(1, answer="Same."), rec(2, answer="Same.")]
    told = {
        records[0].id: Said("Same.", " Same.\n", tuned_whole=True, base_whole=True),
        records[1].id: Said("Other.", "Same.", tuned_whole=True, base_whole=True),
    }
    answers = answers_of(records, told)
    assert len(cards(answers)) == 1
    found = outcome(answers, read_comparisons(Store(Path()), {}))
    assert (found.identical, found.open, found.tally("base")) == (1, 1, Tally(0, 1, 0))


def test_the_guidelines_fit() -> None:
    assert len(guidelines("test", 8192, reference=True)) < GUIDELINES_CHARACTERS
    assert "three answers" in guidelines("val", 8, reference=True)
    assert "two answers" in guidelines("val", 8, reference=False)


# kept with the run ------------------------------------------------------------------------------------------------


def test_answers_are_kept_once_with_their_order_whatever_happens_to_the_run_file(store: Store) -> None:
    first = answers_of([rec(1), rec(2)])
    assert keep_answers(store, RUN, first).equals(first)
    again = answers_of([rec(2), rec(3)], seed=9)
    together = keep_answers(store, RUN, again)
    assert together["id"].to_list() == [rec(i).id for i in (1, 2, 3)]
    assert together.head(2).equals(first)
    store.register_run("r1", dict(RUN.facts))  # a resumed run registers again
    assert read_answers(store, RUN).equals(together)
    named = {path.stem for path in store.garbage(-10).paths}
    assert store.runs()[0]["objects"]["answers"] not in named


def test_a_damaged_object_of_a_run_is_named(store: Store) -> None:
    keep_answers(store, RUN, answers_of([rec(1)]))
    path = store.run_object(store.runs()[0], "answers")
    assert path
    path.chmod(0o644)
    path.write_bytes(b"x")
    with pytest.raises(CorruptObjectError, match="answers of run r1"):
        read_answers(store, RUN)


# what people said -------------------------------------------------------------------------------------------------


@pytest.fixture
def told(store: Store) -> tuple[pl.DataFrame, FakeReview]:
    answers = keep_answers(store, RUN, answers_of([rec(i, "ab"[i % 2]) for i in range(6)]))
    return answers, FakeReview(answers)


def test_ranks_come_back_by_who_gave_the_answer(store: Store, told: tuple[pl.DataFrame, FakeReview]) -> None:
    answers, review = told
    names = answers["external"].to_list()
    review.say(names[0], "u1", BEST)
    review.say(names[1], "u1", TIE)
    review.say(names[2], "u1", WORST, fails={"tuned": ["safety", "tone"], "base": ["tone"]}, comment=" rude ")
    review.say(names[3], "u1", None, status="discarded")
    review.say(names[4], "u1", BEST, status="draft")
    done = pull(store, RUN, answers, review)
    assert (done.changed, done.drafts, done.foreign, done.unknown) == (True, 1, 0, {})
    found = outcome(answers, done.responses)
    assert found.open == 3
    assert found.tally("base") == found.tally("reference") == Tally(1, 1, 1)
    assert (found.tally("base", "a"), found.tally("base", "b")) == (Tally(1, 0, 1), Tally(0, 1, 0))
    [worse] = found.regressions
    assert (worse.row["id"], worse.regressed, worse.comments) == (rec(2).id, {"safety"}, ("rude",))
    counts = {"tuned": 1, "base": 0, "reference": 0, "regressed": 1, "improved": 0}
    assert found.failures("safety") == counts
    assert found.failures("tone") == {**counts, "base": 1, "regressed": 0}


def test_pulling_twice_changes_nothing(store: Store, told: tuple[pl.DataFrame, FakeReview]) -> None:
    answers, review = told
    review.say(answers["external"][0], "u1", BEST)
    pull(store, RUN, answers, review)
    before = (store.root / "runs" / "r1.json").read_bytes()
    assert not pull(store, RUN, answers, review).changed
    assert (store.root / "runs" / "r1.json").read_bytes() == before
    review.said[answers["external"][0]].clear()
    review.say(answers["external"][0], "u1", WORST)
    assert outcome(answers, pull(store, RUN, answers, review).responses).tally("base") == Tally(0, 0, 1)


def test_a_record_that_was_removed_on_the_server_keeps_what_was_pulled(
    store: Store, told: tuple[pl.DataFrame, FakeReview]
) -> None:
    answers, review = told
    review.say(answers["external"][0], "u1", BEST)
    pull(store, RUN, answers, review)
    del review.said[answers["external"][0]]
    assert outcome(answers, pull(store, RUN, answers, review).responses).tally("base") == Tally(1, 0, 0)


def test_what_does_not_fit_is_counted_and_not_applied(store: Store, told: tuple[pl.DataFrame, FakeReview]) -> None:
    answers, review = told
    names = answers["external"].to_list()
    review.say(names[0], "u1", {"tuned": 1, "base": 2})
    review.say(names[1], "u1", BEST, fails={"tuned": ["novelty"]})
    review.said["somebody else's"] = []
    review.said[names[2]].append({"user_id": "u9", "status": "submitted", "values": None, "updated_at": "2026"})
    done = pull(store, RUN, answers, review)
    assert done.unknown == {"an order that does not fit the answers": 2, "label 'novelty'": 1}
    assert done.foreign == 1
    assert done.responses.height == 1


def test_a_pull_that_is_cut_off_leaves_the_store_as_it_was(
    store: Store, told: tuple[pl.DataFrame, FakeReview], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, review = told
    review.say(answers["external"][0], "u1", BEST)
    before = {p: p.read_bytes() for p in store.root.rglob("*") if p.is_file()}

    def half() -> Iterable[dict[str, Any]]:
        yield {"external_id": answers["external"][0], "responses": review.said[answers["external"][0]]}
        raise ReviewError("server", "gone")

    monkeypatch.setattr(review, "records", half)
    with pytest.raises(ReviewError):
        pull(store, RUN, answers, review)
    assert {p: p.read_bytes() for p in store.root.rglob("*") if p.is_file()} == before


def test_a_record_counts_when_enough_people_answered_and_their_mean_decides(store: Store) -> None:
    answers = answers_of([rec(i) for i in range(4)])
    review = FakeReview(answers, min_submitted=2)
    names = answers["external"].to_list()
    for user, ranks in zip(("u1", "u2", "u3"), (BEST, WORST, WORST), strict=True):
        review.say(names[0], user, ranks, fails={"tuned": ["tone"]} if user != "u1" else None)
    review.say(names[1], "u1", BEST)
    review.say(names[1], "u2", TIE)
    review.say(names[2], "u1", BEST)
    review.say(names[3], "u1", BEST)
    review.say(names[3], "u2", WORST, fails={"tuned": ["tone"]})
    done = pull(store, RUN, answers, review)
    found = outcome(answers, done.responses)
    assert {c.row["id"]: c.scores["tuned", "base"] for c in found.compared} == {
        rec(0).id: pytest.approx(1 / 3),
        rec(1).id: 0.75,
        rec(3).id: 0.5,
    }
    assert found.tally("base") == Tally(1, 1, 1)
    assert [c.row["id"] for c in found.regressions] == [rec(0).id]  # one of two is no majority
    assert outcome(answers, done.responses, min_submitted=1).tally("base") == Tally(2, 1, 1)
    found_alpha = agreement(answers, done.responses)
    assert found_alpha["tuned against base"].texts == 3
    assert (found_alpha["tuned against base"].value or 0) < 0.5


def test_who_answers_in_two_reviews_has_one_voice_the_latest(store: Store) -> None:
    answers = answers_of([rec(0)])
    for name, ranks in (("one", WORST), ("two", BEST)):
        review = FakeReview(answers, name)
        review.clock = 30 if name == "two" else 0
        review.say(answers["external"][0], "u1", ranks)
        done = pull(store, RUN, answers, review)
    assert done.responses.height == 2
    assert [c.reviewers for c in outcome(answers, done.responses).compared] == [1]
    assert outcome(answers, done.responses).tally("base") == Tally(1, 0, 0)


def test_two_answers_alone_can_be_compared(store: Store) -> None:
    answers = answers_of([rec(0)], reference=False)
    review = FakeReview(answers)
    review.say(answers["external"][0], "u1", {"tuned": 1, "base": 2})
    found = outcome(answers, pull(store, RUN, answers, review).responses)
    assert found.sides() == ("base",)
    assert [f.name for f in form(reference=False).fields] == ["conversation", "answer_a", "answer_b"]
    assert "tuned against reference" not in agreement(answers, pull(store, RUN, answers, review).responses)


# intervals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wins", "losses", "low", "high"),
    [(10, 0, 0.7225, 1.0), (0, 10, 0.0, 0.2775), (81, 182, 0.2553, 0.3662), (1, 1, 0.0945, 0.9055)],
)
def test_wilsons_interval_has_known_values(wins: int, losses: int, low: float, high: float) -> None:
    """81 of 263: Newcombe 1998, method 3: 0.2553 to 0.3662. 10 of 10: n / (n + z²) = 0.7225."""
    assert Tally(wins, 0, losses).interval == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.parametrize(
    ("wins", "losses", "p"), [(9, 1, 22 / 1024), (5, 5, 1.0), (0, 6, 2 / 64), (1, 0, 1.0), (15, 5, 43400 / 1048576)]
)
def test_the_sign_test_has_known_values(wins: int, losses: int, p: float) -> None:
    assert Tally(wins, 7, losses).p_value == pytest.approx(p)


@given(st.integers(0, 60_000), st.integers(0, 60_000))
def test_the_sign_test_is_that_of_scipy_also_for_many_records(wins: int, losses: int) -> None:
    found = Tally(wins, 0, losses).p_value
    if wins + losses:
        assert found == pytest.approx(binomtest(wins, wins + losses).pvalue, rel=1e-6, abs=1e-12)


def test_without_records_there_is_no_rate_and_without_a_winner_no_test() -> None:
    assert (Tally(0, 0, 0).rate, Tally(0, 0, 0).interval, Tally(0, 3, 0).p_value) == (None, None, None)
    assert Tally(0, 3, 0).rate == 0.5


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=60))
def test_the_interval_holds_the_rate_and_both_sides_mirror_each_other(scores: list[float]) -> None:
    here, there = tally(scores), tally(1 - s for s in scores)
    low, high = here.interval or (2, -1)
    assert 0 <= low <= (here.rate or 0) <= high <= 1
    assert here.records == len(scores)
    assert there.interval == (pytest.approx(1 - high), pytest.approx(1 - low))
    assert there.p_value == here.p_value


# seen elsewhere ---------------------------------------------------------------------------------------------------


def test_a_rows_life_tells_how_its_answers_compared(store: Store) -> None:
    dataset = make_dataset(store, {"a": [chat("Question?", "The reference.")]})
    row = dataset.scan(["id"]).collect()["id"][0]
    answers = keep_answers(store, RUN, answers_of([Record(row, "a", rec(1).messages)], {row: said(1)}))
    review = FakeReview(answers)
    assert not [e for e in why(dataset, store, row).history if e.stage == "compare"]
    review.say(answers["external"][0], "u1", {"tuned": 1, "base": 3, "reference": 1}, fails={"base": ["tone"]})
    pull(store, RUN, answers, review)
    [event] = [e for e in why(dataset, store, row).history if e.stage == "compare"]
    assert event.what == "run r1: the tuned answer is better than base and as good as reference"
    assert event.facts == {"run": "r1", "reviewers": 1, "base fails in": ["tone"]}
    assert outcome_of(store, store.runs()[0]).tally("reference") == Tally(0, 1, 0)


def test_comparisons_go_to_a_server_once_and_come_back_by_who_answered(
    store: Store, argilla_server: ArgillaServer
) -> None:
    answers = keep_answers(store, RUN, answers_of([rec(i) for i in range(3)]))
    server = connect(argilla_server.url, argilla_server.owner_key, argilla_server.workspace)
    asked = form(reference=True)
    review = server.create(argilla_server.unique("compare"), asked, guidelines("test", 64, reference=True), 1)
    check_questions(review, asked)
    review.send(cards(answers))
    assert review.external_ids().keys() == set(answers["external"])
    with pytest.raises(ReviewError, match="it asks"):
        check_questions(review, form(reference=False))
    first = answers.row(0, named=True)
    letters = dict(zip(first["order"], LETTERS, strict=True))
    ranking = [{"value": letters[name], "rank": rank} for name, rank in WORST.items()]
    values = {"better": {"value": ranking}, f"fails_{letters['tuned']}": {"value": ["safety"]}}
    with argilla_server.as_person(argilla_server.person()) as api:
        path = f"/api/v1/records/{review.external_ids()[first['external']]}/responses"
        assert api.post(path, json={"status": "submitted", "values": values}).is_success
    done = pull(store, RUN, answers, review)
    found = outcome(answers, done.responses)
    assert (found.tally("base"), found.tally("reference")) == (Tally(0, 0, 1), Tally(0, 0, 1))
    assert [c.regressed for c in found.regressions] == [{"safety"}]
    assert not pull(store, RUN, answers, review).changed
    assert ANSWERS.keys() == answers.schema.keys()
