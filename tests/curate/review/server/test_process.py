"""The embedded server as a whole: it starts, is found, keeps its data, and stops in every way that there is."""

import json
import os
import secrets
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from curate.review.server.environment import Environment, UnreachableIndexError
from curate.review.server.home import Home
from curate.review.server.process import Server, find, start
from schemas.errors import ReviewError
from schemas.review_config import ServeConfig
from tests.curate.review.conftest import ArgillaServer, client

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="session", autouse=True)
def environment() -> None:
    """The private environment, made once on a machine."""
    try:
        Environment().ensure()
    except UnreachableIndexError as error:
        pytest.skip(str(error))


class Serving:
    """`sft curate review serve` in a process of its own, as in a terminal."""

    def __init__(self, home: Path, *options: str, as_json: bool) -> None:
        sft = [sys.executable, "-c", "from cli.main import run; run()"]
        self.process = subprocess.Popen(
            [*sft, "curate", "review", "serve", "--home", str(home), *options, *["--json"][: int(as_json)]],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> dict[str, Any]:
        """Wait until it says where it runs."""
        assert self.process.stdout is not None
        text = ""
        while line := self.process.stdout.readline():
            text += line
            with suppress(json.JSONDecodeError):
                return json.loads(text)
        raise AssertionError(self.process.communicate()[1])

    def end(self, how: signal.Signals) -> tuple[int, str]:
        self.process.send_signal(how)
        said = self.process.communicate(timeout=60)[1]
        return self.process.returncode, said


@pytest.fixture
def serving() -> Generator[Callable[..., Serving]]:
    """Start servers; none outlives the test."""
    started: list[Serving] = []

    def begin(home: Path, *options: str, as_json: bool = True) -> Serving:
        started.append(Serving(home, *options, as_json=as_json))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked about does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def eventually(true: Callable[[], bool], limit_s: float = 30) -> bool:
    deadline = time.monotonic() + limit_s
    while not true() and time.monotonic() < deadline:
        time.sleep(0.1)
    return true()


def usernames(url: str, key: str) -> dict[str, str]:
    with client(url, key) as api:
        return {user["username"]: user["role"] for user in api.get("/api/v1/users").json()["items"]}


def test_a_second_start_finds_people_and_datasets_of_the_first(tmp_path: Path) -> None:
    home = tmp_path / "store" / "review"
    with start(home, ServeConfig(reviewers=("alice", "bob"))) as server:
        owner, first = server.owner, server.secrets
        with client(server.url, owner.api_key) as api:
            (workspace,) = api.get("/api/v1/me/workspaces").json()["items"]
            assert workspace["name"] == "review"
            made = api.post("/api/v1/datasets", json={"name": "kept", "workspace_id": workspace["id"]})
            assert made.status_code == 201
        assert find(home) is not None
    assert find(home) is None
    with start(home, ServeConfig(reviewers=("carol", "alice"))) as server:
        assert server.owner == owner
        assert [a.username for a in server.secrets.accounts] == ["owner", "alice", "bob", "carol"]
        assert server.secrets.accounts[:3] == first.accounts
        assert usernames(server.url, owner.api_key) == {"owner": "owner"} | dict.fromkeys(
            ("alice", "bob", "carol"), "annotator"
        )
        with client(server.url, owner.api_key) as api:
            assert [d["name"] for d in api.get("/api/v1/me/datasets").json()["items"]] == ["kept"]
        carol = server.secrets.reviewers[2]
        with client(server.url, carol.api_key) as api:
            assert api.get("/api/v1/me").json()["username"] == "carol"
            assert [w["name"] for w in api.get("/api/v1/me/workspaces").json()["items"]] == ["review"]
        login = httpx.post(
            f"{server.url}/api/v1/token", data={"username": "carol", "password": carol.password}, trust_env=False
        )
        assert login.status_code == 201
    assert not (home / "argilla.db-wal").exists()
    assert not (home / "unfinished").exists()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """A server started from a shell that names another database, search engine and Python path, meant for others."""
    with pytest.MonkeyPatch.context() as shell, start_in(tmp_path_factory.mktemp("home"), shell) as server:
        yield server


def start_in(home: Path, shell: pytest.MonkeyPatch) -> Server:
    shell.setenv("ARGILLA_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    shell.setenv("ARGILLA_SEARCH_ENGINE", "opensearch")
    shell.setenv("PYTHONPATH", str(home / "nowhere"))
    return start(home)


def test_settings_for_another_argilla_do_not_reach_it(server: Server) -> None:
    assert (server.home.folder / "argilla.db").exists()
    found = find(server.home.folder)
    assert found is not None
    assert found.url == server.url


def test_secrets_are_for_their_owner_alone(server: Server) -> None:
    """Folder 0700; every file in it is its owner's only; no secret in the command line, the environment or the log."""
    home = server.home.folder
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in home.iterdir() if p.is_file()}
    assert {"secrets.json", "argilla.db", "server.json", "server.log"} <= set(modes)
    assert not any(mode & 0o077 for mode in modes.values()), modes
    process = Path(f"/proc/{server.address.pid}")
    seen = b"".join(
        [(process / "cmdline").read_bytes(), (process / "environ").read_bytes(), server.home.log.read_bytes()]
    )
    values = [server.secrets.auth_key, server.owner.password, server.owner.api_key]
    assert not any(value.encode() in seen for value in values)


def test_it_listens_on_this_machine_alone_and_tells_nobody(server: Server) -> None:
    assert server.url == f"http://127.0.0.1:{server.address.port}"
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    port = f":{server.address.port:04X}"
    assert {f[1] for f in listening if f[1].endswith(port) and f[3] == "0A"} == {f"0100007F{port}"}
    environ = Path(f"/proc/{server.address.pid}/environ").read_bytes().split(b"\0")
    assert b"HF_HUB_DISABLE_TELEMETRY=1" in environ
    assert b"HF_HUB_OFFLINE=1" in environ


def test_serving_a_folder_that_is_served_says_where(server: Server, serving: Callable[..., Serving]) -> None:
    """The second one shows what the first did, and ends; who cannot be added meanwhile is an error."""
    home = server.home.folder
    again = serving(home, as_json=False)
    out, said = again.process.communicate(timeout=60)
    assert again.process.returncode == 0
    assert f"Argilla runs at {server.url}" in out
    assert server.owner.password in out
    assert "was running already" in said
    more = serving(home, "--reviewers", "dora")
    _, said = more.process.communicate(timeout=60)
    assert more.process.returncode == 2
    assert "without dora" in said
    with pytest.raises(ReviewError, match=f"runs already at {server.url}"):
        start(home)


def test_lost_secrets_are_made_anew_and_let_the_same_people_in(tmp_path: Path) -> None:
    with start(tmp_path, ServeConfig(reviewers=("alice",))) as server:
        before = server.secrets
    server.home.secrets_file.unlink()
    with start(tmp_path, ServeConfig(reviewers=("alice",))) as server:
        assert server.owner.api_key != before.owner.api_key
        assert set(usernames(server.url, server.owner.api_key)) == {"owner", "alice"}
        with client(server.url, before.owner.api_key) as api:
            assert api.get("/api/v1/me").status_code == 401


def rated(api: httpx.Client, workspace_id: str, name: str, reviewer: httpx.Client, *, records: int = 5) -> str:
    """Make a dataset whose records need one response, with responses to three of them; gives its id."""

    def call(method: str, path: str, **body: Any) -> Any:
        answer = api.request(method, f"/api/v1/{path}", json=body or None)
        assert answer.is_success, answer.text
        return answer.json()

    distribution = {"strategy": "overlap", "min_submitted": 1}
    dataset = call("POST", "datasets", name=name, workspace_id=workspace_id, distribution=distribution)["id"]
    call("POST", f"datasets/{dataset}/fields", name="text", title="Text", required=True, settings={"type": "text"})
    rating = {"type": "rating", "options": [{"value": v} for v in range(1, 6)]}
    call("POST", f"datasets/{dataset}/questions", name="rating", title="Rating", required=True, settings=rating)
    call("PUT", f"datasets/{dataset}/publish")
    items = [{"fields": {"text": f"row {i}"}} for i in range(records)]
    for record in call("POST", f"datasets/{dataset}/records/bulk", items=items)["items"][:3]:
        body = {"status": "submitted", "values": {"rating": {"value": 4}}}
        assert reviewer.post(f"/api/v1/records/{record['id']}/responses", json=body).status_code == 201
    assert completed(api, dataset) == 3
    return dataset


def completed(api: httpx.Client, dataset: str) -> int:
    return api.get(f"/api/v1/datasets/{dataset}/progress").json()["completed"]


def test_jobs_run_in_the_background(argilla_server: ArgillaServer) -> None:
    """Raising the number of responses that a record needs makes complete records pending again, in a while."""
    api, name = argilla_server.api, argilla_server.unique("jobs")
    with argilla_server.as_person(argilla_server.person()) as reviewer:
        dataset = rated(api, argilla_server.workspace_id, name, reviewer)
    argilla_server.call("PATCH", f"datasets/{dataset}", distribution={"strategy": "overlap", "min_submitted": 2})
    assert eventually(lambda: completed(api, dataset) == 0)
    argilla_server.call("DELETE", f"datasets/{dataset}")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_kill_stop_it_in_order(serving: Callable[..., Serving], tmp_path: Path, how: signal.Signals) -> None:
    """Exit code 0; it says where the data stays; no process is left; the database is closed."""
    served = serving(tmp_path, "--reviewers", "alice")
    told = served.ready()
    assert [user["username"] for user in told["users"]] == ["owner", "alice"]
    assert find(tmp_path) is not None
    code, said = served.end(how)
    assert code == 0
    assert f"stays in {tmp_path}" in " ".join(said.split())
    assert "Traceback" not in said
    assert not lives(told["pid"])
    assert find(tmp_path) is None
    assert not (tmp_path / "server.json").exists()
    assert not (tmp_path / "argilla.db-wal").exists()


def test_it_stops_when_its_parent_is_killed(serving: Callable[..., Serving], tmp_path: Path) -> None:
    """SIGKILL leaves a process no time to say anything; the folder can be served again at once."""
    served = serving(tmp_path)
    pid = served.ready()["pid"]
    assert lives(pid)
    served.end(signal.SIGKILL)
    assert eventually(lambda: not lives(pid))
    assert find(tmp_path) is None
    assert not Home(tmp_path).is_locked


def test_a_killed_server_is_told_and_the_next_finishes_its_work(tmp_path: Path) -> None:
    """Responses stay; the status of a record that was still to be worked out is worked out at the next start."""
    with start(tmp_path, ServeConfig(reviewers=("alice",))) as server:
        with client(server.url, server.owner.api_key) as api:
            workspace = api.get("/api/v1/me/workspaces").json()["items"][0]["id"]
            with client(server.url, server.secrets.reviewers[0].api_key) as alice:
                dataset = rated(api, workspace, "killed", alice)
        os.kill(server.address.pid, signal.SIGKILL)
        with pytest.raises(ReviewError, match="stopped by itself"):
            server.wait()
    assert find(tmp_path) is None
    with closing(sqlite3.connect(tmp_path / "argilla.db")) as database, database:
        database.execute("UPDATE records SET status = 'pending'")
    with start(tmp_path) as server, client(server.url, server.owner.api_key) as api:
        assert eventually(lambda: completed(api, dataset) == 3)


def test_two_serves_at_once_make_one_server(serving: Callable[..., Serving], tmp_path: Path) -> None:
    both = [serving(tmp_path), serving(tmp_path)]
    told = []
    for one in both:
        with suppress(AssertionError):
            told.append(one.ready())
    assert {t["pid"] for t in told} == {find(tmp_path).address.pid}  # pyright: ignore[reportOptionalMemberAccess] # it runs


def test_a_port_that_is_taken_is_named_with_a_free_one(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ReviewError, match=rf"port {port} cannot be had.*--port \d+"):
            start(tmp_path, ServeConfig(port=port))
    assert not Home(tmp_path).is_locked


@pytest.mark.parametrize("name", ["what?", "per%cent", "ha#sh", "two words"])
def test_a_folder_of_any_name_holds_all_of_it_and_keeps_what_is_in_it(tmp_path: Path, name: str) -> None:
    """The database too lies in it; a project's own files, `tmp` among them, and its mode stay as they are."""
    home = tmp_path / "store" / name
    (home / "tmp").mkdir(parents=True)
    (home / "tmp" / "thesis.txt").write_text("years of work")
    home.chmod(0o755)
    start(home).stop()
    assert (home / "tmp" / "thesis.txt").read_text() == "years of work"
    assert stat.S_IMODE(home.stat().st_mode) == 0o755
    assert (home / "argilla.db").stat().st_size
    assert not any(stat.S_IMODE(p.stat().st_mode) & 0o077 for p in home.iterdir() if p.name != "tmp")
    assert [p.name for p in home.parent.iterdir()] == [name]


def test_a_folder_that_is_made_is_its_owner_s_alone(tmp_path: Path) -> None:
    Home(tmp_path / "new").make()
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_killing_the_process_that_is_named_stops_it_in_order(serving: Callable[..., Serving], tmp_path: Path) -> None:
    """As the message about a server without some reviewers proposes: `kill PID`."""
    served = serving(tmp_path)
    os.kill(served.ready()["pid"], signal.SIGTERM)
    said = served.process.communicate(timeout=60)[1]
    assert served.process.returncode == 0
    assert f"stays in {tmp_path}" in " ".join(said.split())
    for left in ("unfinished", "argilla.db-wal", "server.json"):
        assert not (tmp_path / left).exists()


def test_a_lock_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(ReviewError, match="lock: Is a directory"):
        find(tmp_path)
    with pytest.raises(ReviewError, match="lock: Is a directory"):
        start(tmp_path)


def test_a_database_that_is_none_ends_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "argilla.db").write_bytes(secrets.token_bytes(8192))
    with pytest.raises(ReviewError, match="file is not a database"):
        start(tmp_path)
    assert not Home(tmp_path).is_locked


@pytest.mark.parametrize("name", ["two words", "new\nline", "semi;colon", "owner", "x" * 101])
def test_names_that_nobody_can_type_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"no user name|owns the server"):
        ServeConfig(reviewers=(name,))


def test_names_of_all_scripts_are_fine() -> None:
    names = ("alice", "Bob.2", "zoë", "ВЕРА", "李雷", "ann+qa@example.org")
    assert ServeConfig(reviewers=(",".join(names),)).reviewers == names
