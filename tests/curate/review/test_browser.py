"""Two people review rows in Argilla's own pages, and the pull brings back exactly what they did.

With SFT_SCREENSHOTS=FOLDER the pages are kept as pictures.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from curate.pipeline import apply_stage
from curate.review.client import connect
from curate.review.pull import pull
from curate.review.push import prepare, push
from curate.review.responses import read_ledger
from curate.sources import add_source
from curate.stage import no_progress
from curate.store import Store
from schemas.config import IngestConfig
from schemas.dataset import Dataset
from schemas.review_config import PullConfig, PushConfig
from tests.curate.review.conftest import ArgillaServer
from tests.curate.review.ui import Reviewer, browser

ROWS = 12
ANSWER = "Lamp number {} is lit until {} o'clock, and then it is put out by the warden."


@dataclass(frozen=True)
class Act:
    """What somebody does with a record. A verdict of None takes the one that is suggested."""

    button: str
    verdict: str | None = None
    rating: int | None = None
    correction: str | None = None


SUBMIT, DISCARD, DRAFT = "submit", "discard", "save_draft"
CORRECTION = 'Lamp 3 is lit <b>until</b> "noon" 🙂'

PLANS: Mapping[str, Mapping[int, Act]] = {
    "alice": {
        0: Act(SUBMIT, "Keep", 5),
        1: Act(SUBMIT, "Reject", 1),
        2: Act(SUBMIT, "Reject"),
        3: Act(SUBMIT, "Fix", 3, CORRECTION),
        4: Act(SUBMIT, "Keep"),
        5: Act(DISCARD),
        6: Act(DRAFT, "Reject"),
        7: Act(SUBMIT, "Fix"),
        8: Act(SUBMIT),
        9: Act(SUBMIT, "Keep", 4),
    },
    "bob": {
        0: Act(SUBMIT, "Keep", 4),
        1: Act(SUBMIT, "Reject", 2),
        2: Act(SUBMIT, "Keep"),
        3: Act(SUBMIT, "Fix", None, CORRECTION),
        4: Act(DISCARD),
        5: Act(DISCARD),
        6: Act(SUBMIT, "Reject"),
        7: Act(SUBMIT, "Fix"),
        8: Act(SUBMIT),
        9: Act(DRAFT, "Keep"),
    },
}

BECOMES = {0: "keep", 1: "reject", 2: "unresolved", 3: "fix", 4: "waiting", 6: "waiting", 7: "unresolved", 8: "keep"}
BECOMES |= {9: "waiting"}
"""What the rows come to, where two must submit: 5 nobody did."""


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Rows of two sources, each with a number that stands in its text."""
    store = Store(tmp_path / "store")
    made = None
    for source, numbers in (("alpaca", range(9)), ("dolly", range(9, ROWS))):
        file = tmp_path / f"{source}.json"
        rows = [
            {"instruction": f"Until when is lamp {n} lit?", "input": "", "output": ANSWER.format(n, n)} for n in numbers
        ]
        file.write_text(json.dumps(rows))
        made = add_source(
            store, "lamps", [str(file)], "alpaca", IngestConfig(source=source), started=lambda _what, _rows: no_progress
        )
    assert made is not None
    found = Dataset(made.commit.manifest, store.root)
    for stage in ("rules", "signals"):
        found = Dataset(apply_stage(store, found, stage, {})[1].manifest, store.root)
    return found


def act(reviewer: Reviewer, what: Act) -> None:
    if what.verdict:
        reviewer.choose("verdict", what.verdict)
    if what.rating:
        reviewer.choose("rating", str(what.rating))
    if what.correction:
        reviewer.write("correction", what.correction)
    getattr(reviewer, what.button)()


def number_of(reviewer: Reviewer) -> int:
    found = re.search(r"lamp (\d+) lit", reviewer.record())
    assert found, reviewer.record()
    return int(found.group(1))


def picture(reviewer: Reviewer, name: str) -> None:
    if folder := os.environ.get("SFT_SCREENSHOTS"):
        reviewer.screenshot(Path(folder) / f"{name}.png")


def review_as(reviewer: Reviewer, plan: Mapping[int, Act], url: str) -> None:
    """Go through the records from the first on, and do what the plan has for each.

    The page fetches ten records at a time by their place in the queue, which moves on with every answer, so that it may
    pass one over: it is there when the page is opened again.
    """
    left = dict(plan)
    for turn in range(3 * ROWS):
        if turn % ROWS == 0 or not reviewer.record():
            reviewer.open_dataset(url)
        number = number_of(reviewer)
        if number in left:
            if left[number].correction:
                picture(reviewer, "before-correction")
            act(reviewer, left.pop(number))
        elif not reviewer.skip():
            reviewer.open_dataset(url)
        if not left:
            return
    raise AssertionError(f"not found: {left}")


def look_around(reviewer: Reviewer, name: str) -> None:
    """Open the dataset, filter it by a source, and search for a phrase."""
    reviewer.open(name)
    reviewer.shows(ROWS)
    picture(reviewer, "record")
    reviewer.filter_by("Source", "dolly")
    reviewer.shows(ROWS - 9)
    picture(reviewer, "filter")
    reviewer.search('"lamp 10 lit"')
    reviewer.shows(1)
    assert number_of(reviewer) == 10
    picture(reviewer, "search")


def test_what_two_people_do_in_the_browser_comes_back_exactly(argilla_server: ArgillaServer, dataset: Dataset) -> None:
    """Logging in, filtering, searching, submitting, discarding, drafts and corrections, with no script error."""
    name = argilla_server.unique("lamps")
    server = connect(argilla_server.url, argilla_server.owner_key, argilla_server.workspace)
    done = push(server, name, prepare(dataset, PushConfig(select="random", n=ROWS, min_submitted=2)))
    assert len(done.new) == ROWS
    people = {argilla_server.person(who).username: who for who in PLANS}
    with browser() as chromium:
        for who, plan in PLANS.items():
            person = argilla_server.person(who)
            reviewer = Reviewer(chromium.new_page(viewport={"width": 1440, "height": 900}), argilla_server.url)
            reviewer.log_in(person.username, person.password)
            picture(reviewer, "datasets")
            look_around(reviewer, name)
            review_as(reviewer, plan, done.url)
            assert not reviewer.errors
            assert not (argilla_server.is_ours and reviewer.outside), "our server's pages ask nobody else"
            reviewer.page.close()
    review = server.find(name)
    assert review is not None
    pulled = pull(Store(dataset.root), dataset, review, PullConfig())
    assert len(pulled.fetched.drafts) == 2
    after = Dataset(pulled.commit.manifest, dataset.root)
    check_ledger(after, people)
    check_rows(after, people)
    assert not pull(Store(dataset.root), after, review, PullConfig()).commit.is_new


def rows_by_number(dataset: Dataset) -> dict[int, dict[str, Any]]:
    columns = ["id", "messages", "review_status", "override", "corrected_by"]
    rows = dataset.scan(columns).collect().to_dicts()
    return {int(re.findall(r"lamp (\d+) lit", row["messages"][0]["content"])[0]): row for row in rows}


def check_ledger(after: Dataset, people: Mapping[str, str]) -> None:
    """The ledger holds every submitted and discarded response as the plans have it, and nothing else."""
    numbers = {row["id"]: number for number, row in rows_by_number(after).items()}
    said = {
        (people[r["reviewer"]], numbers[r["id"]]): (r["status"], r["verdict"], r["rating"])
        for r in read_ledger(after).to_dicts()
    }
    assert said == {
        (who, number): ("submitted", (what.verdict or "keep").lower(), what.rating)
        if what.button == SUBMIT
        else ("discarded", None, None)
        for who, plan in PLANS.items()
        for number, what in plan.items()
        if what.button != DRAFT
    }


def check_rows(after: Dataset, people: Mapping[str, str]) -> None:
    """The rows are what two of two people made of them; one text is corrected, all others are as they were."""
    rows = rows_by_number(after)
    for number, becomes in BECOMES.items():
        override = {"keep": "keep", "fix": "keep", "reject": "reject"}.get(becomes)
        found = (rows[number]["review_status"], rows[number]["override"])
        assert found == ("decided" if override else becomes, override), number
    answers = {number: row["messages"][-1]["content"] for number, row in rows.items()}
    assert answers == {n: CORRECTION if n == 3 else ANSWER.format(n, n) for n in range(ROWS)}
    assert [people[who] for who in rows[3]["corrected_by"]] == ["alice", "bob"]
