"""The folder of one server: who may log in and with what, where it runs, what it said.

argilla.db     the server's database (SQLite)
secrets.json   the key that signs log-ins; each account's password and API key. For its owner's eyes: mode 0600
server.json    while it runs: where
server.log     what the server said since its last start; server.log.1 before that
server.tmp     what the server unpacks at its start; removed before the next
lock           held by the server while it runs
"""

import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal

from schemas.errors import ReviewError

OWNER = "owner"
"""Name of the account that makes datasets and reads what all others said."""

PASSWORD_BYTES = 9
"""Twelve characters, 72 bits: nobody guesses it, and a person can type it. Argilla wants at least 8 characters."""


@dataclass(frozen=True)
class Account:
    """Somebody who may log in."""

    username: str
    role: Literal["owner", "annotator"]
    password: str
    api_key: str


@dataclass(frozen=True)
class Secrets:
    """All that must not leave the folder."""

    auth_key: str
    """Signs log-ins: with another key people would have to log in anew."""
    accounts: tuple[Account, ...]

    @property
    def owner(self) -> Account:
        """Give the account that owns the server."""
        return self.accounts[0]

    @property
    def reviewers(self) -> tuple[Account, ...]:
        """Give the accounts of the reviewers, in the order in which they were added."""
        return self.accounts[1:]


@dataclass(frozen=True)
class Address:
    """Where a server runs."""

    url: str
    pid: int
    port: int
    started: str
    """When, in UTC (ISO 8601)."""


class Home:
    """A server's folder. Made when something is first written to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.log = self.folder / "server.log"
        self.secrets_file = self.folder / "secrets.json"
        self.temporary = self.folder / "server.tmp"
        self._address_file = self.folder / "server.json"
        self._lock_file = self.folder / "lock"

    def make(self) -> None:
        """Make the folder, for its owner only; one that holds something already keeps its mode, as it may
        be a project's (each file of ours is its owner's alone in any case). Raises ReviewError where that cannot be."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not any(self.folder.iterdir()):
                self.folder.chmod(0o700)
        except OSError as error:
            raise self._failed(error.strerror or str(error), "a folder to write to", "name one with --home") from error

    def secrets(self) -> Secrets | None:
        """Read the secrets; None where there are none yet. Raises ReviewError where the file is not what we wrote."""
        try:
            return _parsed(self.secrets_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed(f"{self.secrets_file.name}: {error.strerror}", "a file that can be read", "") from error
        except (ValueError, LookupError, TypeError) as error:
            remedy = "put the file back, or remove it: all accounts then get new passwords and keys"
            raise self._failed(f"{self.secrets_file.name} cannot be read ({error})", "secrets", remedy) from error

    def add_accounts(self, reviewers: Sequence[str]) -> Secrets:
        """Give the secrets with an account for each reviewer; make what is missing, change nothing that is there."""
        there = self.secrets()
        accounts = list(there.accounts if there else [_account(OWNER, "owner")])
        names = {account.username for account in accounts}
        accounts.extend(_account(name, "annotator") for name in dict.fromkeys(reviewers) if name not in names)
        full = Secrets(there.auth_key if there else secrets.token_urlsafe(32), tuple(accounts))
        if full != there:
            self._write(self.secrets_file, asdict(full))
        return full

    def address(self) -> Address | None:
        """Read where the server was started last and not stopped since; None where nowhere."""
        with suppress(OSError, ValueError, TypeError):
            return Address(**json.loads(self._address_file.read_text(encoding="utf-8")))
        return None

    def set_address(self, url: str, pid: int, port: int) -> Address:
        """Write where the server runs."""
        address = Address(url, pid, port, datetime.now(UTC).isoformat(timespec="seconds"))
        self._write(self._address_file, asdict(address))
        return address

    def clear_address(self) -> None:
        """Forget where the server ran."""
        self._address_file.unlink(missing_ok=True)

    def new_log(self) -> IO[bytes]:
        """Begin a log; the one before is kept beside it."""
        with suppress(FileNotFoundError):
            self.log.replace(self.log.with_suffix(".log.1"))
        return open(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600), "wb")  # noqa: PTH123 # given away

    def log_end(self, lines: int = 3) -> str:
        """Give the last lines of the log, as one."""
        with suppress(OSError):
            text = self.log.read_text(encoding="utf-8", errors="replace")
            return " | ".join([line.strip() for line in text.splitlines() if line.strip()][-lines:])
        return ""

    def lock(self) -> IO[bytes] | None:
        """Take the lock that a running server holds; None where one does. It is free again when the file is closed by
        this process and by all that inherited it."""
        try:
            descriptor = os.open(self._lock_file, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._failed(
                f"{self._lock_file.name}: {error.strerror}", "a folder to write to", "name one with --home"
            ) from error
        file = open(descriptor, "rb+")  # noqa: PTH123, SIM115 # given away
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    @property
    def is_locked(self) -> bool:
        """Say whether a server holds the lock: it runs, starts or stops. Raises ReviewError where it is another's."""
        try:
            with self._lock_file.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            found, expected = f"{self._lock_file.name}: {error.strerror}", "a folder of your own"
            raise self._failed(found, expected, "name one with --home") from error
        return False

    def _write(self, path: Path, value: Any) -> None:
        """Write a file for its owner only, whole or not at all."""
        try:
            with _replaced(path) as file:
                file.write(json.dumps(value, ensure_ascii=False, indent=1).encode() + b"\n")
        except OSError as error:
            raise self._failed(
                f"{path.name}: {error.strerror}", "a folder to write to", "name one with --home"
            ) from error

    def _failed(self, found: str, expected: str, remedy: str) -> ReviewError:
        return ReviewError(f"review server's folder {self.folder}", found, expected, remedy)


@contextmanager
def _replaced(path: Path) -> Generator[IO[bytes]]:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with open(handle, "wb") as file:  # noqa: PTH123 # an open descriptor
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _parsed(text: str) -> Secrets:
    """Read secrets; raise ValueError, LookupError or TypeError for what we did not write."""
    found: Any = json.loads(text)
    accounts = tuple(Account(**account) for account in found["accounts"])
    if not accounts or accounts[0].role != "owner" or not isinstance(found["auth_key"], str):
        raise ValueError("no owner")
    return Secrets(found["auth_key"], accounts)


def _account(username: str, role: Literal["owner", "annotator"]) -> Account:
    return Account(username, role, secrets.token_urlsafe(PASSWORD_BYTES), secrets.token_urlsafe(32))
