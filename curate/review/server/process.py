"""A running Argilla server: start it, find one that runs, stop it.

The server is a child of ours. We open its socket and its lock and hand them over, so that a port or a folder that is
taken is known before anything starts, and is ours from then on. It stops when its stdin ends: also when we are killed.
"""

import json
import os
import select
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import httpx

from curate.review.server.environment import Environment, Tell
from curate.review.server.home import Account, Address, Home, Secrets
from schemas.errors import ReviewError
from schemas.review_config import ServeConfig

LAUNCH = Path(__file__).parent / "inside" / "launch.py"

_LOOK_S = 0.2
"""How often a server that is waited for is looked at."""

USUAL_PORT = 6900
"""Where Argilla's own start command and its client listen and look."""

PORTS_TRIED = 100
"""How many ports from the usual one upwards are tried."""

START_S = 180.0
"""Longest wait for a start, in seconds. Four are usual; a slow disk that reads 500 MB for the first time needs more."""

STOP_S = 15.0
"""Longest wait for an orderly stop, in seconds: requests under way have 5 (launch.STOP_S), then the database closes."""

ANSWER_S = 10.0
"""Longest wait for a running server's answer, in seconds: it may be busy with others."""

WHERE = "review server"


@dataclass(frozen=True)
class Found:
    """A server that runs, and what one needs to talk to it."""

    address: Address
    home: Home
    secrets: Secrets

    @property
    def url(self) -> str:
        """Give its address."""
        return self.address.url

    @property
    def owner(self) -> Account:
        """Give the account that may do all."""
        return self.secrets.owner


def find(folder: Path) -> Found | None:
    """Give the server that runs in a folder; None where none does.

    Its lock is held, its port answers, and it knows the owner's key. Raises ReviewError where it holds the lock and
    does not answer.
    """
    home = Home(folder)
    if not home.is_locked:
        return None
    address, secrets = home.address(), home.secrets()
    if address is None or secrets is None:
        return None  # it starts, or stops
    try:
        answer = httpx.get(
            f"{address.url}/api/v1/me",
            headers={"X-Argilla-Api-Key": secrets.owner.api_key},
            timeout=ANSWER_S,
            trust_env=False,  # no proxy stands before our own machine
        )
        answer.raise_for_status()
    except httpx.HTTPError as error:
        if not home.is_locked:
            return None  # it has stopped meanwhile
        found = f"process {address.pid} holds {home.folder} and does not answer ({type(error).__name__})"
        raise ReviewError(
            f"{WHERE} {address.url}", found, "", f"see {home.log}, or stop it: kill {address.pid}"
        ) from error
    return Found(address, home, secrets)


class Server:
    """A server that we started. A context manager: it is stopped at the end."""

    def __init__(self, process: "subprocess.Popen[bytes]", home: Home, secrets: Secrets, address: Address) -> None:
        self._process, self.home, self.secrets, self.address = process, home, secrets, address

    @property
    def url(self) -> str:
        """Give its address."""
        return self.address.url

    @property
    def owner(self) -> Account:
        """Give the account that may do all."""
        return self.secrets.owner

    def wait(self) -> None:
        """Wait until it is told to stop (`kill` of its process). Raises ReviewError where it ends in another way."""
        while (
            self._process.poll() is None
        ):  # a blocking wait would not see Ctrl-C once a library has a handler of its own
            time.sleep(_LOOK_S)
        self.home.clear_address()
        if self._process.returncode:
            raise _died(self._process, self.home, "stopped by itself")

    def stop(self) -> None:
        """Stop it in order; by force where that takes too long. Does nothing to a server that has stopped."""
        _stop(self._process)
        self.home.clear_address()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _silent(what: str, done: int, total: int) -> None:
    pass


def start(
    folder: Path, config: ServeConfig | None = None, *, tell: Tell = _silent, environment: Environment | None = None
) -> Server:
    """Start a server in a folder and wait until it answers.

    Makes, where it is missing: the private environment, the folder, secrets, accounts, the workspace, the database's
    newest schema. `tell` hears what is being done. Raises ReviewError where a server runs there already, a port is
    taken, the environment cannot be made, or the server ends while it starts (with the end of its log).
    """
    config, environment = config or ServeConfig(), environment or Environment()
    home = Home(folder)
    home.make()
    with _taken(home, tell) as lock, _listen(config.port) as listening:
        home.clear_address()  # of a server that was killed
        python = environment.ensure(tell)
        secrets = home.add_accounts(config.reviewers)
        accounts = [vars(account) for account in secrets.accounts]
        order = {"auth_key": secrets.auth_key, "accounts": accounts, "workspace": config.workspace}
        tell("start Argilla", 0, 0)
        try:
            process = _launch(python, home, order, lock, listening)
        except _BrokenError as broken:
            tell("repair environment", 0, 0)
            try:
                process = _launch(environment.rebuild(tell), home, order, lock, listening)
            except _BrokenError as again:
                raise ReviewError(
                    WHERE, f"its environment lacks something ({again})", "", f"see {home.log}"
                ) from broken
        port = listening.getsockname()[1]
    try:
        address = home.set_address(f"http://127.0.0.1:{port}", process.pid, port)
    except BaseException:
        _stop(process)
        raise
    return Server(process, home, secrets, address)


class _BrokenError(Exception):
    """The private environment lacks something that the server imports."""


def _taken(home: Home, tell: Tell) -> IO[bytes]:
    """Take the folder's lock. Where another process starts or stops a server, wait and see what comes of it."""
    deadline = time.monotonic() + START_S
    while (lock := home.lock()) is None:
        if (running := find(home.folder)) is not None:
            found = f"runs already at {running.url} (process {running.address.pid})"
            raise ReviewError(f"{WHERE} {home.folder}", found, "", "use it, or stop it first")
        if time.monotonic() > deadline:
            found = "another process starts or stops a server there"
            raise ReviewError(f"{WHERE} {home.folder}", found, "", "wait for it, or name another folder with --home")
        tell("wait for another start or stop", 0, 0)
        time.sleep(0.2)
    return lock


def _listen(port: int | None) -> socket.socket:
    """Listen on this machine alone: on the port that was asked for, or on the first free one from the usual one on."""
    for number in [port] if port is not None else range(USUAL_PORT, USUAL_PORT + PORTS_TRIED):
        with suppress(OSError):
            return _bound(number)
    with _bound(0) as any_free:
        free = any_free.getsockname()[1]
    taken = f"port {port}" if port is not None else f"ports {USUAL_PORT} to {USUAL_PORT + PORTS_TRIED - 1}"
    raise ReviewError(WHERE, f"{taken} cannot be had: taken, or not allowed", "", f"use another, such as --port {free}")


def _bound(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen(128)
    except OSError:
        listening.close()
        raise
    return listening


def _launch(
    python: Path, home: Home, order: dict[str, Any], lock: IO[bytes], listening: socket.socket
) -> "subprocess.Popen[bytes]":
    """Start the process and wait until it serves. Raises _BrokenError where its environment lacks something."""
    shutil.rmtree(home.temporary, ignore_errors=True)  # the server copies its pages there, 14 MB, and leaves them
    home.temporary.mkdir(mode=0o700)
    with home.new_log() as log:
        try:
            process = subprocess.Popen(
                [python, "-E", "-s", LAUNCH],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_server_env(home, listening.getsockname()[1]),
                cwd=home.folder,
                pass_fds=(lock.fileno(), listening.fileno()),
                start_new_session=True,  # Ctrl-C is for us; we stop it in order
                umask=0o077,
            )
        except OSError as error:
            raise _BrokenError(str(error)) from error
    try:
        _await_ready(process, home, {**order, "socket": listening.fileno()})
    except BaseException:
        _stop(process)
        raise
    return process


def _await_ready(process: "subprocess.Popen[bytes]", home: Home, order: dict[str, Any]) -> None:
    """Hand over what must not be seen, and wait for the answer."""
    assert process.stdin is not None  # noqa: S101 # pipes were asked for
    assert process.stdout is not None  # noqa: S101 # likewise
    with suppress(BrokenPipeError):  # it is dead, and says why below
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
    readable, _, _ = select.select([process.stdout], [], [], START_S)
    if not readable:
        raise ReviewError(WHERE, f"not ready after {START_S:g} s", "", f"see {home.log}: {home.log_end()}")
    said: dict[str, Any] = json.loads(process.stdout.readline() or b"{}")
    if "broken" in said:
        raise _BrokenError(said["broken"])
    if not said.get("ready"):
        process.wait(STOP_S)
        raise _died(process, home, "ended while it started")


def _server_env(home: Home, port: int) -> dict[str, str]:
    """Give the server's variables: ours, without those that would configure it otherwise."""
    foreign = ("ARGILLA_", "PYTHON", "SPACE_", "VIRTUAL_ENV", "OAUTH2_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {
        **kept,
        "ARGILLA_HOME_PATH": str(home.folder),
        # Relative to its working folder: in a URL, a path with ? or % would be another one.
        "ARGILLA_DATABASE_URL": "sqlite+aiosqlite:///argilla.db?check_same_thread=False",
        "ARGILLA_SEARCH_ENGINE": "embedded",
        "ARGILLA_DATABASE_SQLITE_TIMEOUT": "30",
        "ARGILLA_CORS_ORIGINS": json.dumps([f"http://127.0.0.1:{port}", f"http://localhost:{port}"]),
        "ARGILLA_SHOW_HUGGINGFACE_SPACE_PERSISTENT_STORAGE_WARNING": "false",
        "HF_HUB_OFFLINE": "1",  # with it, and with the next, telemetry is off
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TMPDIR": str(home.temporary),
    }


def _stop(process: "subprocess.Popen[bytes]") -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    for force in (lambda: None, process.terminate, process.kill):
        force()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
            return


def _died(process: "subprocess.Popen[bytes]", home: Home, how: str) -> ReviewError:
    end = home.log_end() or "it said nothing"
    return ReviewError(WHERE, f"{how} (exit code {process.returncode}): {end}", "", f"the whole log: {home.log}")
