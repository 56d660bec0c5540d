"""`sft curate review start`, as people use it: in its own process, reviewers answering by the server's interface."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from cli import review_start
from curate.review.server.environment import Environment, UnreachableIndexError
from curate.review.server.process import Found, Server, find, start
from schemas.errors import ReviewError
from schemas.review_config import ServeConfig
from tests.cli.conftest import ROOT, Sft
from tests.curate.review import conftest
from tests.curate.review.conftest import ArgillaServer, client

argilla_server = conftest.argilla_server

LIMIT_S = 120
"""Longest wait for anything that must come."""
ROWS = 5
START = ("curate", "review", "start")
PAGE = "annotation-mode"


@pytest.fixture(scope="session", autouse=True)
def environment() -> None:
    """The private environment, made once on a machine."""
    try:
        Environment().ensure()
    except UnreachableIndexError as error:
        pytest.skip(str(error))


@pytest.fixture
def mix(sft: Sft, alpaca: Path, monkeypatch: pytest.MonkeyPatch) -> Sft:
    for variable in ("ARGILLA_API_URL", "ARGILLA_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    sft("curate", "ingest", "alpaca", str(alpaca), "--name", "mix")
    sft("curate", "split", "mix")
    return sft


class Started:
    """`sft curate review start mix` that goes on while a test does what reviewers do."""

    def __init__(self, folder: Path, options: Iterable[str], env: dict[str, str]) -> None:
        self.files = (folder / "out.txt", folder / "err.txt")
        sft = [sys.executable, "-c", "from cli.main import run; run()", *START]
        chosen = ("mix", "--select", "random", "--n", str(ROWS), "--no-browser")
        with self.files[0].open("w") as out, self.files[1].open("w") as err:
            self.process = subprocess.Popen(
                [*sft, *chosen, *options],
                cwd=folder,
                env={**os.environ, **env, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def out(self) -> str:
        return self.files[0].read_text()

    @property
    def err(self) -> str:
        return self.files[1].read_text()

    def until(self, said: str) -> None:
        """Wait until it has said something on stderr."""
        deadline = time.monotonic() + LIMIT_S
        while said not in self.err:
            assert self.process.poll() is None, self.out + self.err
            assert time.monotonic() < deadline, f"never said {said!r}: {self.out}{self.err}"
            time.sleep(0.1)

    def waits(self) -> None:
        """Wait until it waits for people."""
        self.until(f"0 of {ROWS} records are complete")

    def end(self, code: int = 0) -> tuple[str, str]:
        assert self.process.wait(LIMIT_S) == code, self.out + self.err
        return self.out, self.err


@pytest.fixture
def started(mix: Sft, tmp_path: Path) -> Generator[Callable[..., Started]]:  # noqa: ARG001 # the dataset must be there
    """Begin a review; what is left of it ends with the test, and its server with it."""
    made: list[Started] = []

    def begin(*options: str, env: dict[str, str] | None = None) -> Started:
        made.append(Started(tmp_path, options, env or {}))
        return made[-1]

    yield begin
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()


@pytest.fixture
def running(mix: Sft, tmp_path: Path) -> Generator[Callable[..., Server]]:  # noqa: ARG001 # must be there before
    """Serve the store's own Argilla, as `serve` in another terminal would."""
    servers: list[Server] = []

    def serve(*reviewers: str) -> Server:
        servers.append(start(home_of(tmp_path), ServeConfig(reviewers=reviewers)))
        return servers[-1]

    yield serve
    for server in servers:
        server.stop()


def home_of(folder: Path) -> Path:
    return folder / "sft-data" / "review"


def own(folder: Path) -> Found:
    found = find(home_of(folder))
    assert found is not None
    return found


def dataset_of(api: httpx.Client, name: str) -> dict[str, Any]:
    (dataset,) = [d for d in api.get("/api/v1/me/datasets").json()["items"] if d["name"] == name]
    return dataset


def answer(url: str, key: str, name: str, verdict: str, rows: slice) -> None:
    """Say what one person thinks of some records."""
    with client(url, key) as api:
        path = f"/api/v1/me/datasets/{dataset_of(api, name)['id']}/records/search"
        found = [item["record"] for item in api.post(path, json={}).json()["items"]]
        for record in sorted(found, key=lambda record: record["external_id"])[rows]:
            body = {"status": "submitted", "values": {"verdict": {"value": verdict}}}
            assert api.post(f"/api/v1/records/{record['id']}/responses", json=body).status_code == 201


def keys_of(server: Found | Server) -> dict[str, str]:
    return {account.username: account.api_key for account in server.secrets.reviewers}


def test_it_serves_pushes_waits_and_pulls_and_leaves_nothing_running(
    started: Callable[..., Started], mix: Sft, tmp_path: Path
) -> None:
    """Somebody who is alone decides alone: it ends when each record has one response; the page is named once."""
    review = started("--reviewers", "alice")
    review.waits()
    server = own(tmp_path)
    answer(server.url, keys_of(server)["alice"], "mix", "keep", slice(None))
    out, err = review.end()
    assert "one response decides" in err
    assert f"{ROWS} of {ROWS} records are complete" in err
    assert (out + err).count(PAGE) == 1
    assert f"{ROWS} responses submitted" in out
    assert "committed mix@3" in out
    assert "sft curate review serve starts it again" in " ".join(err.split())
    assert find(home_of(tmp_path)) is None
    assert not (home_of(tmp_path) / "server.json").exists()
    assert mix("verify", "mix", "--deep", "--json").json["ok"]


def test_ctrl_c_brings_back_what_was_submitted(started: Callable[..., Started], mix: Sft, tmp_path: Path) -> None:
    """As JSON, so that stdout has nothing else; and started once more it goes on with the same records."""
    review = started("--json", "--reviewers", "alice,bob")
    review.until(PAGE)
    server = own(tmp_path)
    keys = keys_of(server)
    assert set(keys) == {"alice", "bob"}
    answer(server.url, keys["alice"], "mix", "keep", slice(2))
    answer(server.url, keys["bob"], "mix", "reject", slice(1, 2))
    review.process.send_signal(signal.SIGINT)
    out, err = review.end()
    assert "bringing back what was submitted so far" in err
    assert err.count(PAGE) == 1
    told = json.loads(out)
    assert (told["dataset"], told["new"], told["submitted"], told["seq"]) == ("mix", ROWS, 3, 3)
    assert told["decisions"]["unresolved"] == told["decisions"]["waiting"] == 1
    assert find(home_of(tmp_path)) is None
    again = started("--reviewers", "alice,bob", "--again")
    again.until(f"1 of {ROWS} records are complete")
    again.process.send_signal(signal.SIGINT)
    out, _ = again.end()
    assert "nothing has changed: mix@3" in out
    assert mix("show", "mix", "--json").json["seq"] == 3


def test_a_server_of_the_store_that_runs_is_used_and_goes_on(
    started: Callable[..., Started], running: Callable[..., Server]
) -> None:
    """Two people review there, so that a record needs two responses."""
    server = running("alice", "bob")
    review = started("--reviewers", "bob")
    review.waits()
    assert server.url in review.out
    answer(server.url, keys_of(server)["alice"], "mix", "keep", slice(None))
    with client(server.url, server.owner.api_key) as api:
        assert dataset_of(api, "mix")["distribution"]["min_submitted"] == 2
    answer(server.url, keys_of(server)["bob"], "mix", "keep", slice(None))
    out, err = review.end()
    assert f"{2 * ROWS} responses submitted" in out
    assert "one response decides" not in err
    assert "the server has stopped" not in err
    found = find(server.home.folder)
    assert found is not None
    assert found.address == server.address


def test_reviewers_whom_a_running_server_lacks_are_named_before_anything_is_sent(
    mix: Sft, running: Callable[..., Server]
) -> None:
    server = running("alice")
    said = mix(*START, "mix", "--reviewers", "alice,dora", "--no-browser", code=2)
    assert "runs already, without dora" in said.err
    with client(server.url, server.owner.api_key) as api:
        assert api.get("/api/v1/me/datasets").json()["items"] == []


@pytest.mark.parametrize("overlap", [(), ("--min-submitted", "2")])
def test_how_many_responses_a_row_needs_when_one_person_is_alone(
    started: Callable[..., Started], running: Callable[..., Server], overlap: tuple[str, ...]
) -> None:
    """One, but where another number was typed; a dataset that was made with another number keeps it, and is not
    called what it is not."""
    server = running("alice")
    wanted = 2 if overlap else 1
    for options in (overlap, ()):
        review = started(*options)
        review.waits()
        review.process.send_signal(signal.SIGINT)
        _, err = review.end()
        with client(server.url, server.owner.api_key) as api:
            assert dataset_of(api, "mix")["distribution"]["min_submitted"] == wanted
        assert ("one response decides" in err) == (wanted == 1)
        assert ("made with 2 responses" in err) == (wanted == 2 and options == ())


def test_another_argilla_is_used_where_it_is_named(
    started: Callable[..., Started], argilla_server: ArgillaServer, tmp_path: Path
) -> None:
    """Nothing of our own is started; how many review there is not known, so that a record needs two responses."""
    named = {"ARGILLA_API_URL": argilla_server.url, "ARGILLA_API_KEY": argilla_server.owner_key}
    name = argilla_server.unique("started")
    review = started("--dataset", name, "--workspace", argilla_server.workspace, env=named)
    review.waits()
    for person in ("ann", "ben"):
        key = argilla_server.person(person).api_key
        answer(argilla_server.url, key, name, "reject", slice(None))
    out, err = review.end()
    assert f"{2 * ROWS} responses submitted" in out
    assert "Argilla runs at" not in out
    assert "the server has stopped" not in err
    assert not home_of(tmp_path).exists()


@pytest.mark.parametrize("option", [("--reviewers", "alice"), ("--port", "6999")])
def test_another_argilla_has_its_own_people_and_port(
    mix: Sft, monkeypatch: pytest.MonkeyPatch, option: tuple[str, str]
) -> None:
    monkeypatch.setenv("ARGILLA_API_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ARGILLA_API_KEY", "key")
    assert f"error: {option[0]}: together with" in mix(*START, "mix", *option, code=2).err


def test_a_server_that_is_down_is_one_line(mix: Sft, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGILLA_API_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ARGILLA_API_KEY", "key")
    assert "no answer" in mix(*START, "mix", "--no-browser", code=2).err


class Flaky:
    """A dataset whose server does not answer so many times."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    def total(self) -> dict[str, int]:
        if self.failures:
            self.failures -= 1
            raise ReviewError("Argilla", "no answer")
        return {"completed": 1, "total": 2}


def test_a_server_that_does_not_answer_for_a_moment_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(review_start, "POLL_S", 0.0)
    assert review_start._count(cast("Any", Flaky(3))) == {"completed": 1, "total": 2}
    monkeypatch.setattr(review_start, "PATIENCE_S", 0.0)
    with pytest.raises(ReviewError, match="sft curate review pull"):
        review_start._count(cast("Any", Flaky(10**6)))
