"""`sft curate review push --run` and `pull --run`: a tiny run, a fake server, bad input in one line."""

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from curate.review.form import Card, Form
from tests.cli.conftest import Sft
from train.model import tiny


class FakeReview:
    min_submitted, url = 2, "http://fake/dataset/1/annotation-mode"

    def __init__(self, name: str, form: Form) -> None:
        self.name, self.form = name, form
        self.cards: dict[str, Card] = {}
        self.said: dict[str, list[dict[str, Any]]] = {}

    def questions(self) -> dict[str, tuple[str, ...]]:
        return {q.name: tuple(q.options) for q in self.form.questions}

    def external_ids(self) -> dict[str, str]:
        return {external: external for external in self.cards}

    def send(self, cards: Sequence[Card], _progress: Any = None) -> None:
        self.cards |= {card.external_id: card for card in cards}

    def usernames(self) -> dict[str, str]:
        return {"u1": "ann", "u2": "ben"}

    def records(self) -> Iterable[dict[str, Any]]:
        return [{"external_id": e, "responses": self.said.get(e, [])} for e in self.cards]


class FakeServer:
    workspace, url = "review", "http://fake"

    def __init__(self) -> None:
        self.reviews: dict[str, FakeReview] = {}

    def find(self, name: str) -> FakeReview | None:
        return self.reviews.get(name)

    def names(self) -> list[str]:
        return sorted(self.reviews)

    def create(self, name: str, form: Form, _guidelines: str, _min_submitted: int) -> FakeReview:
        self.reviews[name] = FakeReview(name, form)
        return self.reviews[name]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    made = FakeServer()
    monkeypatch.setattr("curate.review.connection.connect_for", lambda *_: made)
    return made


@pytest.fixture
def run(sft: Sft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The folder of a finished run on a split dataset, too short to learn anything."""
    monkeypatch.setattr(tiny, "PRETRAIN_STEPS", 2)
    rows = [{"instruction": f"Say number {i % 6}, {i}.", "response": f"the number is {i % 6}"} for i in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sft("curate", "ingest", "dolly", "rows.jsonl", "--name", "mix")
    sft("curate", "split", "mix")
    settings = ("--max-steps", "2", "--batch", "4", "--samples", "0", "--device", "cpu")
    sft("train", "--manifest", "mix", "--model", "tiny", "--method", "full", "--out", "run", *settings)
    return "run"


PUSH = ("curate", "review", "push", "--run")
SHORT = ("--n", "4", "--new-tokens", "6", "--device", "cpu")


def answer(review: FakeReview, user: str, *, first: str) -> None:
    """Put the answers that begin like `first` before the others."""
    for external, card in review.cards.items():
        letters = [f.name[-1] for f in review.form.fields if f.name.startswith("answer_")]
        places = [{"value": x, "rank": 1 if str(card.fields[f"answer_{x}"]).startswith(first) else 2} for x in letters]
        said = {"user_id": user, "status": "submitted", "values": {"better": {"value": places}}, "updated_at": user}
        review.said.setdefault(external, []).append(said)


def test_push_answers_once_sends_once_and_pull_brings_wins_ties_and_losses(
    sft: Sft, run: str, server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = sft(*PUSH, run, *SHORT, "--json").json
    assert (found["compared"], found["new"] + found["identical"], found["there"]) == (4, 4, 0)
    assert found["split"] == "test"
    [review] = server.reviews.values()
    assert review.name == f"mix-{found['run']}"
    assert len(review.cards) == found["new"] > 0

    with monkeypatch.context() as patched:  # no model is loaded again, and the run is found from another folder
        patched.setattr("train.evaluation.answers.answer", None)
        patched.chdir(tmp_path.parent)
        again = sft(*PUSH, str(tmp_path / run), *SHORT, "--json").json
    assert (again["new"], again["there"]) == (0, found["new"])
    more = sft(*PUSH, run, *SHORT, "--n", "6")
    assert "6 prompts of split test" in more.out
    assert f"sft curate review pull --run {run}" in more.out

    for user in ("u1", "u2"):
        answer(review, user, first="the number is ")  # cut after 6 tokens, models do not come so far
    pulled = sft("curate", "review", "pull", "--run", run, "--json").json
    assert pulled["changed"]
    against = pulled["against"]["reference"]
    assert (against["wins"], against["records"]) == (0, 6)
    assert against["losses"] > 0
    assert pulled["open"] == 0
    assert "nothing is new since the last pull" in sft("curate", "review", "pull", "--run", run).out
    by_id = sft("curate", "review", "pull", "--run", found["run"], "--json").json
    assert by_id == {**pulled, "changed": False}
    pairs = sft("export", "mix", "--format", "dpo", "--to", "pairs", "--json").json
    assert pairs["rows"] >= against["losses"]


def test_a_dry_run_answers_and_sends_nothing(sft: Sft, run: str, server: FakeServer) -> None:
    said = sft(*PUSH, run, *SHORT, "--no-reference", "--dry-run")
    assert "nothing was sent" in said.out
    assert not server.reviews


def test_bad_input_is_one_line(sft: Sft, run: str, server: FakeServer, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "open")
    facts = json.loads((tmp_path / "open" / "run.json").read_text())
    (tmp_path / "open" / "run.json").write_text(json.dumps({**facts, "ended": None}))
    shutil.copytree(run, tmp_path / "lost")
    settings = json.loads((tmp_path / "lost" / "config.json").read_text())
    (tmp_path / "lost" / "config.json").write_text(json.dumps({**settings, "dataset": "gone@1"}))
    (tmp_path / "empty").mkdir()
    pull = ("curate", "review", "pull", "--run")
    for arguments, words in [
        ((*PUSH, "empty"), "run empty: no run in this folder"),
        ((*PUSH, "./nothing"), "no run in this folder"),
        ((*PUSH, "nothing"), "no such folder, and no run of that id"),
        ((*PUSH, "open"), "run open: not finished"),
        ((*PUSH, "lost"), "its dataset gone@1 is not in store"),
        ((*PUSH, facts["run_id"]), "the run's folder, where its weights are"),
        ((*PUSH, run, "--select", "random"), "--select: together with --run"),
        ((*PUSH, run, "--new-tokens", "0"), "--new-tokens 0"),
        ((*PUSH, run, "--new-tokens", "8000"), "no prompt can be answered"),
        ((*PUSH, run, "--guidelines", "none.md"), "guidelines none.md"),
        (("curate", "review", "push", "mix", "--run", run), "--run: together with REF mix"),
        (("curate", "review", "push"), "REF: not given"),
        (("curate", "review", "push", "mix", "--new-tokens", "5"), "--new-tokens: without --run"),
        ((*pull, run), "no answers of it in this store"),
        ((*pull, "nothing"), "no such folder, and no run of that id"),
    ]:
        said = sft(*arguments, code=2)
        assert words in said.err, arguments
        assert "Traceback" not in said.err
    assert not server.reviews


def test_another_form_of_that_name_is_refused(sft: Sft, run: str, server: FakeServer) -> None:
    sft(*PUSH, run, *SHORT, "--dataset", "cmp")
    assert "it asks" in sft(*PUSH, run, *SHORT, "--dataset", "cmp", "--no-reference", code=2).err
    missing = sft("curate", "review", "pull", "--run", run, code=2).err
    assert "not there; expected one of cmp" in missing
    assert list(server.reviews) == ["cmp"]
