"""Contracts of push and pull together, against a real Argilla server."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from curate.pipeline import apply_stage
from curate.review.client import Review, Server, connect
from curate.review.progress import progress_of
from curate.review.pull import Pulled, fetch, pull
from curate.review.push import prepare, push
from curate.review.responses import named_row, read_ledger
from curate.store import Store
from curate.verify import verify
from schemas.config import NormalizeConfig
from schemas.dataset import Dataset
from schemas.review_config import PullConfig, PushConfig
from tests.curate.review.conftest import ArgillaServer
from tests.rows import dataset_of, question

ROWS = [question(f"What is {n} of the many things?", f"The answer to {n} is a good one.\r\n") for n in range(10)]
PEOPLE = ("alice", "bob")


@dataclass
class World:
    """A dataset, and its review on a server that two people may answer."""

    argilla: ArgillaServer
    server: Server
    name: str
    dataset: Dataset

    @property
    def review(self) -> Review:
        found = self.server.find(self.name)
        assert found is not None
        return found

    def push(self, **settings: Any) -> tuple[int, int]:
        """Push all rows; give how many were new and how many there already."""
        config = PushConfig.model_validate({"select": "random", "n": 100, "min_submitted": 1, **settings})
        done = push(self.server, self.name, prepare(self.dataset, config))
        return len(done.new), len(done.there)

    def pull(self, **settings: Any) -> Pulled:
        done = pull(Store(self.dataset.root), self.dataset, self.review, PullConfig(**settings))
        self.dataset = Dataset(done.commit.manifest, self.dataset.root)
        return done

    def record(self, row: int) -> dict[str, Any]:
        """Give the record of the n-th row as it stands now."""
        known = self.dataset.scan(["id", "content_hash"]).collect().row(row)
        return next(r for r in self.review.records() if named_row(r["external_id"]) == known)

    def answers(self, who: str, row: int, verdict: str, *, status: str = "submitted", **values: Any) -> None:
        """Answer as a person does through the web page."""
        given = {name: {"value": value} for name, value in {"verdict": verdict, **values}.items()}
        with self.argilla.as_person(self.argilla.person(who)) as api:
            path = f"/api/v1/records/{self.record(row)['id']}/responses"
            made = api.post(path, json={"values": given, "status": status})
        assert made.is_success, made.text

    def column(self, name: str) -> list[Any]:
        return self.dataset.scan([name]).collect()[name].to_list()


@pytest.fixture
def world(argilla_server: ArgillaServer, tmp_path: Path) -> Iterator[World]:
    for name in PEOPLE:
        argilla_server.person(name)
    server = connect(argilla_server.url, argilla_server.owner_key, argilla_server.workspace)
    made = World(argilla_server, server, argilla_server.unique("mix"), dataset_of(tmp_path, {"s": ROWS}, name="mix"))
    assert made.push() == (10, 0)
    yield made
    made.review.delete()


def test_what_people_submit_comes_back_and_pulling_twice_changes_nothing(world: World) -> None:
    world.answers("alice", 0, "keep", rating=5)
    world.answers("bob", 1, "reject", issues=["flag:refusal"])
    world.answers("alice", 2, "fix", correction="Mended.")
    world.answers("alice", 3, "reject", status="draft")
    world.answers("bob", 4, "reject", status="discarded")
    world.answers("alice", 5, "keep")
    world.answers("bob", 5, "reject")
    done = world.pull()
    assert world.column("override") == ["keep", "reject", "keep", *[None] * 7]
    assert world.column("review_status")[5] == "unresolved"
    assert world.column("messages")[2][-1]["content"] == "Mended."
    assert world.column("reviewers")[1] == [world.argilla.person("bob").username]
    assert len(done.fetched.drafts) == 1
    assert verify(world.dataset, deep=True) == []
    again = world.pull()
    assert not again.commit.is_new
    assert again.to_json() == done.to_json()


def test_push_and_pull_in_turn_add_nothing_twice(world: World) -> None:
    """A pull makes no record new but that of a corrected text, when it is asked about again; a push no version."""
    world.answers("alice", 0, "fix", correction="Mended.")
    assert world.pull().commit.is_new
    assert world.push() == (0, 9)  # decided rows are left out
    assert not world.pull().commit.is_new
    assert world.push(again=True) == (1, 9)  # the corrected text
    assert world.push(again=True) == (0, 10)
    assert not world.pull().commit.is_new
    world.answers("bob", 0, "reject")
    assert world.pull().commit.is_new
    assert world.column("override")[0] == "reject"
    assert world.column("corrected_by")[0] == [world.argilla.person("alice").username]


def test_a_suggested_correction_that_was_sent_back_as_it_stood_is_none(world: World) -> None:
    """Browsers turn \\r\\n into \\n."""
    suggested = "The answer to 0 is a good one.\n"
    world.answers("alice", 0, "fix", correction=suggested)
    world.pull()
    assert (world.column("override")[0], world.column("review_status")[0]) == (None, "unresolved")


def test_a_row_that_is_edited_after_it_was_pushed_is_stale_and_pushed_anew(world: World) -> None:
    world.answers("alice", 0, "reject")
    world.pull()
    _, commit = apply_stage(Store(world.dataset.root), world.dataset, "normalize", NormalizeConfig())
    world.dataset = Dataset(commit.manifest, world.dataset.root)
    assert (world.column("override")[0], world.column("review_status")[0]) == (None, "stale")
    assert world.push() == (10, 0)
    assert not world.pull().commit.is_new  # what is on the server about the old text is still stale
    world.answers("bob", 0, "keep")
    assert [row.why for row in world.pull().tally.stale] == [
        f"what {world.argilla.person('alice').username} said is about an earlier text"
    ]
    assert world.column("override")[0] == "keep"


def test_an_answer_that_is_changed_or_taken_back_on_the_server_is_so_here(world: World) -> None:
    world.answers("alice", 0, "keep")
    world.pull()
    given = world.record(0)["responses"][0]
    with world.argilla.as_person(world.argilla.person("alice")) as api:
        changed = {"values": {"verdict": {"value": "reject"}}, "status": "submitted"}
        assert api.put(f"/api/v1/responses/{given['id']}", json=changed).is_success
        world.pull()
        assert world.column("override")[0] == "reject"
        assert api.delete(f"/api/v1/responses/{given['id']}").is_success
    assert world.pull().withdrawn == 1
    assert world.column("override")[0] is None
    assert read_ledger(world.dataset).height == 0


def test_progress_is_told_of_people_who_have_begun_and_who_have_not(world: World) -> None:
    world.answers("alice", 0, "keep")
    found = progress_of(fetch(world.review), world.review.min_submitted, world.review.members())
    people = {p.name: (p.submitted, p.left) for p in found.reviewers}
    assert people[world.argilla.person("alice").username] == (1, 9)
    assert people[world.argilla.person("bob").username] == (0, 9)
    assert (found.records, found.complete) == (10, 1)
