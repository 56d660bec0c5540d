"""Chosen rows become records, each once; rows that were edited since are known as such."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from curate.review.client import Server, connect
from curate.review.form import GUIDELINES_CHARACTERS, Card, Form
from curate.review.guidelines import make_guidelines, read_guidelines
from curate.review.push import Pushed, prepare, push
from curate.rules import STAGE as RULES
from curate.store import Store
from schemas.config import RulesConfig
from schemas.dataset import Dataset
from schemas.errors import ConfigError, ReviewError
from schemas.record import content_hash, lineage_id
from schemas.review_config import PushConfig
from tests.curate.conftest import chat, make_dataset, run_on, turns
from tests.curate.review.conftest import ArgillaServer
from tests.curate.review.opinions import with_opinion


@dataclass
class FakeReview:
    """What `client.Review` does, on a dict of records by external id."""

    name: str
    form: Form
    min_submitted: int
    url: str = "http://there.example/dataset/1"
    held: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    people: list[str] = field(default_factory=lambda: ["alice", "bob"])

    def members(self) -> list[str]:
        return self.people

    def questions(self) -> dict[str, tuple[str, ...]]:
        return {q.name: tuple(q.options) for q in self.form.questions}

    def property_names(self) -> set[str]:
        return {p.name for p in self.form.properties}

    def external_ids(self) -> dict[str, str]:
        return {external: f"server-{external}" for external in self.held}

    def records(self) -> Iterator[dict[str, Any]]:
        yield from self.held.values()

    def send(self, cards: Sequence[Card], progress: Callable[[int], None] = lambda _: None) -> None:
        for card in cards:
            before = self.held.get(card.external_id, {})
            self.held[card.external_id] = {
                "id": f"server-{card.external_id}",
                "external_id": card.external_id,
                "metadata": dict(card.properties),
                "fields": card.fields,
                "responses": before.get("responses", []),
            }
            progress(1)

    def mark(self, properties: Mapping[str, Mapping[str, Any]]) -> None:
        for external, known in properties.items():
            self.held[external]["metadata"] = dict(known)

    def remove(self, record_ids: Sequence[str]) -> None:
        for record in record_ids:
            del self.held[record.removeprefix("server-")]


@dataclass
class FakeServer:
    made: dict[str, FakeReview] = field(default_factory=dict[str, FakeReview])
    guidelines: str = ""

    def find(self, name: str) -> FakeReview | None:
        return self.made.get(name)

    def create(self, name: str, form: Form, guidelines: str, min_submitted: int) -> FakeReview:
        self.guidelines = guidelines
        self.made[name] = FakeReview(name, form, min_submitted)
        return self.made[name]


def test_fewer_people_than_responses_needed_are_told(server: FakeServer, store: Store) -> None:
    """An owner counts as one more; otherwise people would wait for a review that never ends."""
    dataset = make_dataset(store, {"s": rows("one", "two")})
    assert not any("add reviewers" in note for note in pushed(server, dataset, min_submitted=3).notes)
    server.made["mix"].people = []
    assert any(
        "needs 3 responses, and nobody but an owner" in note for note in pushed(server, dataset, min_submitted=3).notes
    )
    server.made["mix"].people = ["alice"]
    assert any("one reviewer and an owner" in note for note in pushed(server, dataset, min_submitted=3).notes)


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


def rows(*answers: str) -> list[dict[str, Any]]:
    return [chat(f"What is number {i}?", answer, source_key=str(i)) for i, answer in enumerate(answers)]


def pushed(server: Any, dataset: Dataset, name: str = "mix", **settings: Any) -> Pushed:
    return push(server, name, prepare(dataset, PushConfig(select="random", **settings)))


def test_law_pushing_again_adds_nothing(server: FakeServer, store: Store) -> None:
    dataset = make_dataset(store, {"a": rows("One.", "Two.", "Three.")})
    first, second = pushed(server, dataset), pushed(server, dataset)
    assert (len(first.new), len(first.there)) == (3, 0)
    assert (len(second.new), len(second.there), len(second.refreshed)) == (0, 3, 0)
    assert len(server.made["mix"].held) == 3


def test_what_another_choice_has_in_common_is_not_sent_twice(server: FakeServer, store: Store) -> None:
    dataset = make_dataset(store, {"a": rows(*"abcdefgh")})
    pushed(server, dataset, n=3)
    again = pushed(server, dataset, n=8)
    assert (len(again.new), len(again.there)) == (5, 3)


def test_refresh_sends_what_is_there_as_it_is_shown_now(server: FakeServer, store: Store) -> None:
    dataset = make_dataset(store, {"a": rows("One.")})
    external = pushed(server, dataset).new[0]
    held = server.made["mix"].held[external]
    held["responses"] = [{"status": "submitted"}]
    held["fields"] = {}
    assert pushed(server, dataset).there == (external,)
    assert held["fields"] == {}
    assert pushed(server, dataset, refresh=True).refreshed == (external,)
    assert server.made["mix"].held[external]["fields"]
    assert server.made["mix"].held[external]["responses"]


def test_an_edited_row_is_sent_anew_and_its_unanswered_record_goes(server: FakeServer, store: Store) -> None:
    old = pushed(server, make_dataset(store, {"a": rows("One.", "Two.")})).new
    edited = make_dataset(store, {"a": rows("One.", "Two, of course.")})
    done = pushed(server, edited)
    assert len(done.new) == 1
    assert len(done.removed) == 1
    assert set(done.removed) < set(old)
    assert len(server.made["mix"].held) == 2
    assert pushed(server, edited).new == ()


def test_an_edited_row_that_was_answered_keeps_its_record_marked(server: FakeServer, store: Store) -> None:
    old = pushed(server, make_dataset(store, {"a": rows("One.")})).new[0]
    server.made["mix"].held[old]["responses"] = [{"status": "draft"}]
    edited = make_dataset(store, {"a": rows("One, of course.")})
    done = pushed(server, edited)
    assert (done.marked, done.removed, len(done.new)) == ((old,), (), 1)
    assert server.made["mix"].held[old]["metadata"]["stale"] == "yes"
    assert server.made["mix"].held[old]["metadata"]["source"] == "a"
    again = pushed(server, edited)
    assert (again.marked, again.new) == ((), ())


def test_an_edited_row_is_asked_again_also_when_it_is_not_chosen_now(server: FakeServer, store: Store) -> None:
    pushed(server, make_dataset(store, {"a": rows(*"abcdef")}))
    done = pushed(server, make_dataset(store, {"a": rows(*"abcdeF")}), source="a", n=1)
    assert lineage_id("a", "5") in {external.partition("-")[0] for external in done.new}


def test_the_record_of_a_row_that_is_gone_goes_too(server: FakeServer, store: Store) -> None:
    pushed(server, make_dataset(store, {"a": rows("One.", "Two.")}))
    assert len(pushed(server, make_dataset(store, {"a": rows("One.")})).removed) == 1


def test_a_correction_by_reviewers_makes_nothing_stale(server: FakeServer, store: Store) -> None:
    """Its record is of the text before review, which is what they saw."""
    dataset = make_dataset(store, {"a": rows("One.", "Two.")})
    pushed(server, dataset)
    decided = with_opinion(store, dataset, "review", {"0": {"override": "keep", "review_status": "decided"}})
    done = pushed(server, decided)
    assert (done.marked, done.removed, done.new) == ((), (), ())


def test_records_of_others_are_left_alone(server: FakeServer, store: Store) -> None:
    dataset = make_dataset(store, {"a": rows("One.")})
    pushed(server, dataset)
    server.made["mix"].held["somebody's"] = {"external_id": "somebody's", "id": "server-somebody's", "responses": []}
    assert pushed(server, dataset).removed == ()


def test_a_dataset_that_asks_something_else_is_refused(server: FakeServer, store: Store) -> None:
    dataset = make_dataset(store, {"a": rows("One.")})
    pushed(server, dataset)
    form = server.made["mix"].form
    server.made["mix"].form = Form(form.fields, form.questions[:1], form.properties)
    with pytest.raises(ReviewError, match="--dataset"):
        pushed(server, dataset)


def test_issues_and_properties_that_came_later_are_left_out(server: FakeServer, store: Store) -> None:
    """A stage that ran since the dataset was made in Argilla: a server refuses what it does not know."""
    plain = make_dataset(store, {"a": rows("One.", "No.")})
    pushed(server, plain, n=1)
    review = server.made["mix"]
    questions = [q for q in review.form.questions if q.name != "issues"]
    issues = next(q for q in review.form.questions if q.name == "issues")
    narrow = type(issues)(issues.name, issues.title, issues.kind, options={"flag:refusal": "A refusal."})
    review.form = Form(review.form.fields, (*questions, narrow), review.form.properties)
    ruled, _ = run_on(store, plain, RULES)
    prepared = prepare(ruled, PushConfig(select="random"))
    for card in prepared.cards(["flag:refusal"], sorted(review.property_names())):
        assert set(card.properties) <= review.property_names()
        assert "issues" not in {s.question for s in card.suggestions}
    assert len(pushed(server, ruled).new) == 1


def test_settings_that_do_not_reach_a_dataset_are_told(server: FakeServer, store: Store, tmp_path: Path) -> None:
    dataset = make_dataset(store, {"a": rows("One.")})
    pushed(server, dataset)
    own = tmp_path / "own.md"
    own.write_text("Be kind.")
    notes = " ".join(pushed(server, dataset, min_submitted=3, guidelines=own).notes)
    assert "made with 2 responses" in notes
    assert "keeps them" in notes


def test_a_dataset_s_own_rule_is_an_issue(store: Store, tmp_path: Path) -> None:
    rules = tmp_path / "own.toml"
    rules.write_text('[[rule]]\nname = "poem"\nseverity = "review"\nsentence = "A poem."\nmatches = "rose"\n')
    dataset = make_dataset(store, {"a": rows("A rose is a rose.")})
    dataset, _ = run_on(store, dataset, RULES, RulesConfig(rules=str(rules)))
    card = prepare(dataset, PushConfig(select="custom:poem")).own_cards()[0]
    assert {s.question: s.value for s in card.suggestions}["issues"] == ["custom:poem"]
    assert "A poem." in str(card.fields["about"])


def test_the_text_of_a_card_is_that_after_all_stages(store: Store) -> None:
    """And its name has that text's hash."""
    dataset, _ = run_on(store, make_dataset(store, {"a": rows("It is Ã© here, as said.")}), RULES)
    prepared = prepare(dataset, PushConfig(select="fix:mojibake"))
    card = prepared.own_cards()[0]
    assert card.fields["conversation"][1] == ("assistant", "It is é here, as said.")
    assert card.external_id.endswith(
        content_hash(chat("What is number 0?", "It is é here, as said.")["messages"], None)
    )
    assert "Ã©" in str(card.fields["edits"])


def test_context_and_system_prompt_are_shown(store: Store) -> None:
    row = turns(("system", "Be brief."), ("user", "Sum it up."), ("assistant", "It rains."), context="Rain falls.")
    card = prepare(make_dataset(store, {"a": [row]}), PushConfig(select="random")).own_cards()[0]
    assert card.fields["conversation"] == (
        ("system", "Be brief."),
        ("user", "Sum it up.\n\nRain falls."),
        ("assistant", "It rains."),
    )


def test_rows_that_were_left_out_before_redaction_are_told_of(store: Store) -> None:
    """They are shown as they stand, personal data and all."""
    rows_of = {"a": rows("It is bob@company.example, as I said.", "")}
    dataset, _ = run_on(store, make_dataset(store, rows_of), RULES)
    dataset = with_opinion(store, dataset, "pii", {}, {"action": "redact"})
    assert any("before personal data" in n for n in prepare(dataset, PushConfig(select="rule:empty_response")).notes)
    assert not prepare(dataset, PushConfig(select="random", n=1)).notes


def test_the_other_answers_of_a_conflict_are_shown(store: Store) -> None:
    dataset = make_dataset(store, {"a": rows("One.", "Another.", "Third.")})
    group = {"conflict_id": lineage_id("a", "0")}
    dataset = with_opinion(store, dataset, "dedup", {"0": group, "1": group, "2": group})
    cards = prepare(dataset, PushConfig(select="conflicts", blind=True)).own_cards()
    assert sorted("One." in str(card.fields["match"]) for card in cards) == [False, True, True]


# guidelines -----------------------------------------------------------------------------------------------------------


def test_guidelines_tell_what_is_asked_and_which_rules_found_something(server: FakeServer, store: Store) -> None:
    dataset, _ = run_on(store, make_dataset(store, {"a": rows("One, and two.", "No.")}), RULES)
    pushed(server, dataset, min_submitted=3)
    text = server.guidelines
    assert "3 reviewers" in text
    assert "short&#95;response (1 rows)" in text
    assert "refusal" not in text
    assert len(text) <= GUIDELINES_CHARACTERS


def test_guidelines_of_many_sources_and_rules_fit() -> None:
    found = {f"custom:{'x' * 50}{i}": i for i in range(500)}
    sources = {f"{'source' * 15}{i}": 1 for i in range(1_000)}
    text = make_guidelines("mix", sources, found, {}, PushConfig())
    assert len(text) <= GUIDELINES_CHARACTERS
    assert "990 other sources" in text


def test_blind_guidelines_say_nothing_of_suggestions_and_rules(server: FakeServer, store: Store) -> None:
    dataset, _ = run_on(store, make_dataset(store, {"a": rows("One, and two.", "No.")}), RULES)
    pushed(server, dataset, blind=True)
    assert "filled in" not in server.guidelines
    assert "short" not in server.guidelines


def test_own_guidelines_take_their_place(server: FakeServer, store: Store, tmp_path: Path) -> None:
    own = tmp_path / "own.md"
    own.write_text("Be kind.")
    pushed(server, make_dataset(store, {"a": rows("One.")}), guidelines=own)
    assert server.guidelines == "Be kind."


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"x" * (GUIDELINES_CHARACTERS + 1), "at most 10,000"), (b" \n", "nothing is in it"), (b"\xff", "not UTF-8")],
)
def test_guidelines_that_cannot_be_shown_are_an_error(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "own.md"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        read_guidelines(path)
    path.write_bytes(b"x" * GUIDELINES_CHARACTERS)
    assert read_guidelines(path)


def test_guidelines_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.md"):
        read_guidelines(tmp_path / "none.md")


@pytest.mark.parametrize("name", ["<img src=x>", "a&b", "", " ", " mix", "x" * 201, "a\nb"])
def test_a_name_that_a_page_would_take_for_html_is_refused_before_anything_is_made(name: str) -> None:
    closed = SimpleNamespace(http_client=SimpleNamespace(close=lambda: None))
    nobody = SimpleNamespace(api_url="http://there.example", me=SimpleNamespace(username="owner"), api=closed)
    with pytest.raises(ConfigError, match="--dataset"):
        Server(nobody, "review").create(name, Form((), ()), "", 1)


# a real server --------------------------------------------------------------------------------------------------------

HOSTILE = [
    chat("<script>alert(1)</script>", "\0 and \x1f", source_key="0"),
    chat("", "", source_key="1"),
    chat("Go on.", "<&>" * 9_000, source_key="2"),
    turns(("nobody knows this role, it is too long", "a"), ("assistant", "b"), source_key="3"),
    {"messages": [], "source_key": "4"},
    chat(*(str(i) for i in range(700)), source_key="5"),
]


def test_a_server_takes_all_rows_once(argilla_server: ArgillaServer, store: Store) -> None:
    """Rows at and over every limit; pushed twice; then edited, with one record answered."""
    name = argilla_server.unique("push")
    server = connect(argilla_server.url, argilla_server.owner_key, argilla_server.workspace)
    dataset = make_dataset(store, {"a": HOSTILE})
    first, second = pushed(server, dataset, name), pushed(server, dataset, name)
    assert (len(first.new), first.left_out) == (len(HOSTILE), {})
    assert (len(second.new), len(second.there)) == (0, len(HOSTILE))
    review = server.find(name)
    assert review
    held = list(review.records())
    assert len(held) == len(HOSTILE)
    said = {message["content"] for record in held for message in record["fields"]["conversation"]}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in said  # the page would run it
    assert not any("<" in text for text in said)

    with argilla_server.as_person(argilla_server.person("ann")) as ann:
        values = {"verdict": {"value": "keep"}}
        record = review.external_ids()[first.new[0]]
        body = {"values": values, "status": "submitted"}
        assert ann.post(f"/api/v1/records/{record}/responses", json=body).is_success
    named = first.new[0].partition("-")[0]
    answered = next(i for i in range(len(HOSTILE)) if lineage_id("a", str(i)) == named)
    other = (answered + 1) % len(HOSTILE)
    edited = [chat("Now", "this.", source_key=str(i)) if i in (answered, other) else r for i, r in enumerate(HOSTILE)]
    third = pushed(server, make_dataset(store, {"a": edited}), name)
    assert (third.marked, len(third.removed), len(third.new)) == ((first.new[0],), 1, 2)
    marked = {r["external_id"]: r for r in review.records()}[first.new[0]]
    assert marked["metadata"]["stale"] == "yes"
    assert [r["status"] for r in marked["responses"]] == ["submitted"]
    review.delete()
