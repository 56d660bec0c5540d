"""`sft curate review pull` and `status` as a person types them; the dataset in Argilla is a plain Python object."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from schemas.dataset import open_dataset
from tests.cli.conftest import Sft
from tests.curate.review.said import FakeReview, answer, suggestion

PULL = ("curate", "review", "pull", "mix")
STATUS = ("curate", "review", "status")


@dataclass
class FakeServer:
    reviews: dict[str, FakeReview] = field(default_factory=dict[str, FakeReview])
    url: str = "http://argilla.test"
    workspace: str = "review"

    def find(self, name: str) -> FakeReview | None:
        return self.reviews.get(name)

    def names(self) -> list[str]:
        return sorted(self.reviews)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    made = FakeServer()

    def connected(*_where: object) -> FakeServer:
        return made

    monkeypatch.setattr("curate.review.connection.connect_for", connected)
    return made


@pytest.fixture
def mix(sft: Sft, alpaca: Path) -> Sft:
    sft("curate", "ingest", "alpaca", str(alpaca), "--name", "mix")
    sft("curate", "split", "mix")
    return sft


@pytest.fixture
def review(mix: Sft, server: FakeServer) -> FakeReview:  # noqa: ARG001 # the dataset must be there
    """Row 1 kept, 2 corrected, 3 rejected, 4 without majority; a draft and a discard."""
    dataset = open_dataset("mix", Path("sft-data"))
    made = FakeReview()
    made.add(dataset, 0, answer("alice", "keep", rating=5), answer("bob", "keep", rating=4, at=30))
    made.add(dataset, 1, answer("alice", "fix", correction="Lamp one.", at=20))
    made.add(dataset, 2, answer("bob", "reject", issues=["flag:refusal"], at=60))
    made.add(dataset, 3, answer("alice", "keep", at=50), answer("bob", "reject", at=99))
    made.add(dataset, 4, answer("alice", "keep", status="draft"), answer("bob", status="discarded"))
    server.reviews["mix"] = made
    return made


def test_a_pull_commits_a_version_and_tells_what_came_of_it(mix: Sft, review: FakeReview) -> None:
    said = mix(*PULL)
    assert "5 records: 6 responses submitted; 1 discarded and 1 drafts, which do not count" in said.out
    assert "no majority: keep by alice, reject by bob" in said.out
    assert "Krippendorff" in said.out
    assert "committed mix@3, version 2.0.0" in said.out
    assert "sft diff mix@2 mix@3" in said.out
    assert "nothing has changed: mix@3" in mix(*PULL).out
    assert review.held


def test_a_pull_as_json_holds_all_of_it(mix: Sft, review: FakeReview) -> None:
    review.held[0]["suggestions"] = [suggestion("keep")]
    found = mix(*PULL, "--json").json
    assert (found["committed"], found["seq"]) == (True, 3)
    assert (found["records"], found["submitted"], found["discarded"], found["drafts"]) == (5, 6, 1, 1)
    assert found["decisions"] == {"keep": 1, "fix": 1, "reject": 1, "unresolved": 1, "waiting": 0, "stale": 0}
    by = {(row["measure"], row["question"], tuple(row["who"])): row for row in found["agreement"]}
    assert by["alpha", "verdict", ()]["texts"] == 2
    assert by["suggestion", "verdict", ("alice",)]["value"] == 1.0


def test_the_version_verifies_and_tells_a_row_with_who_said_what(mix: Sft, review: FakeReview) -> None:
    mix(*PULL)
    assert mix("verify", "mix", "--deep", "--json").json["ok"]
    told = mix("why", "mix", "alpaca:2").out
    assert "alice, 2026-01-02 00:00:20 UTC: fix" in told
    assert "edited by alice" in told
    assert "{+one.+}" in told
    assert mix("diff", "mix@2", "mix", "--json").json["counts"]["rejected"] == len(review.held[2]["responses"])


def test_another_stage_says_what_became_of_the_reviews(mix: Sft, review: FakeReview) -> None:
    mix(*PULL)
    said = mix("curate", "rules", "mix")
    assert "review: rows that people reviewed: 1 kept, 1 corrected, 1 rejected, 1 unresolved" in said.err
    assert mix("show", "mix", "--json").json["rejected"]["review:rejected"] == 1
    assert review.name == "mix"


def test_nearly_all_verdicts_as_suggested_is_a_warning(mix: Sft, server: FakeServer) -> None:
    dataset = open_dataset("mix", Path("sft-data"))
    review = server.reviews["mix"] = FakeReview()
    for row in range(20):
        review.add(dataset, row, answer("alice", "keep"), suggestions=[suggestion("keep")])
    assert "warning: 100% of the verdicts by alice are the suggested ones" in mix(*PULL).err
    review.held[0]["responses"] = review.held[1]["responses"] = [answer("alice", "reject")]
    assert "warning" not in mix(*PULL).err
    assert "warning: 90%" in mix(*PULL, "--rubber-stamp", "0.9").err


def test_pseudonyms_leave_no_name_in_what_is_printed_and_kept(mix: Sft, review: FakeReview) -> None:
    mix(*PULL)
    said = mix(*PULL, "--pseudonyms")
    assert "earlier versions still hold the names" in said.err
    for shown in (said.out, mix("why", "mix", "alpaca:2").out, mix(*PULL, "--json").out):
        assert "alice" not in shown
        assert "reviewer-" in shown
    assert review.name == "mix"


def test_an_older_version_can_be_pulled_into_and_the_new_one_comes_after_the_latest(
    mix: Sft, review: FakeReview
) -> None:
    mix("curate", "rules", "mix")
    found = mix("curate", "review", "pull", "mix@2", "--json").json
    assert (found["committed"], found["seq"]) == (True, 4)
    assert review.name == "mix"


def test_a_dataset_that_is_not_in_argilla_is_an_error_that_names_those_there(mix: Sft, server: FakeServer) -> None:
    server.reviews["other"] = FakeReview(name="other")
    said = mix(*PULL, code=2)
    assert "'mix' in workspace 'review' of http://argilla.test: not there; expected one of other" in said.err
    assert "--dataset" in said.err
    assert "nobody has submitted anything yet" in mix(*PULL, "--dataset", "other").err


@pytest.mark.parametrize(
    ("options", "said"), [(("--min-submitted", "0"), "--min-submitted"), (("--rubber-stamp", "2"), "--rubber-stamp")]
)
def test_what_cannot_be_is_told(mix: Sft, review: FakeReview, options: tuple[str, ...], said: str) -> None:
    assert said in mix(*PULL, *options, code=2).err
    assert review.name == "mix"


def test_status_shows_each_reviewer_and_what_is_left(mix: Sft, review: FakeReview) -> None:
    review.min_submitted = 2
    said = mix(*STATUS, "mix")
    assert "mix: 2 of 5 records complete (2 responses each)" in said.out
    assert "left: 4 responses" in said.out
    assert "█" in said.out
    found: Any = mix(*STATUS, "mix", "--json").json["mix"]
    people = {p["name"]: p for p in found["reviewers"]}
    assert (people["alice"]["submitted"], people["alice"]["draft"], people["alice"]["left"]) == (3, 1, 2)
    assert (found["missing"], found["complete"]) == (4, 2)


def test_status_without_a_name_shows_every_review_of_rows(mix: Sft, server: FakeServer, review: FakeReview) -> None:
    server.reviews["second"] = FakeReview(name="second")
    server.reviews["compare"] = FakeReview(name="compare", asked={"better": ("a", "b")})
    assert set(mix(*STATUS, "--json").json) == {"mix", "second"}
    assert "nobody has begun" not in mix(*STATUS).out
    server.reviews.clear()
    assert "no review of rows" in mix(*STATUS).err
    assert review.name == "mix"


def test_where_no_row_has_two_reviewers_one_line_says_so_in_place_of_a_table(mix: Sft, review: FakeReview) -> None:
    for record in review.held:
        record["responses"] = record["responses"][:1]
    said = mix(*PULL)
    assert "no agreement yet: no text was answered by two reviewers" in said.out
    assert "Krippendorff" not in said.out


def test_a_pull_says_which_rows_people_restored(sft: Sft, alpaca: Path, server: FakeServer) -> None:
    alpaca.write_text(json.dumps([{"instruction": "Name a lamp.", "input": "", "output": "N/A"}]))
    sft("curate", "ingest", "alpaca", str(alpaca), "--name", "mix")
    sft("curate", "rules", "mix")
    made = server.reviews["mix"] = FakeReview()
    made.add(open_dataset("mix", Path("sft-data")), 0, answer("alice", "keep"))
    said = sft(*PULL)
    assert "restored by people: 1 rule:placeholder_response" in said.out + said.err
    assert "never saw 1 of the restored rows" in said.out + said.err
    assert sft(*PULL, "--json").json["restored"] == {"rule:placeholder_response": 1}
