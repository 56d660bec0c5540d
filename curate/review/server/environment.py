"""The private environment of the embedded Argilla: a Python with argilla-server in it, which cannot share ours.

It lies in a cache folder that all stores share. It is built where it stays (a virtual environment cannot be moved), and
a mark is written last: without the mark, or with a file missing, it is removed and built anew.
"""

import csv
import fcntl
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from schemas.cache import user_cache
from schemas.errors import ReviewError

REQUIREMENTS = Path(__file__).parent / "requirements.txt"
"""Every package of the environment with its version."""

INDEX_SETTINGS = frozenset(
    {
        "PIP_INDEX_URL",
        "PIP_EXTRA_INDEX_URL",
        "PIP_FIND_LINKS",
        "PIP_NO_INDEX",
        "PIP_TRUSTED_HOST",
        "PIP_CERT",
        "PIP_CLIENT_CERT",
        "PIP_PROXY",
        "PIP_KEYRING_PROVIDER",
        "PIP_CONFIG_FILE",
        "PIP_CACHE_DIR",
        "PIP_NO_CACHE_DIR",
        "PIP_TIMEOUT",
        "PIP_DEFAULT_TIMEOUT",
        "PIP_RETRIES",
    }
)
"""What pip may take from the user's environment: where packages come from. All else (constraints, targets, --user)
would change what is installed, or where to."""

WHERE = "environment of the embedded Argilla"

PIP_OPTIONS = (
    "--no-deps",  # the list names them all
    "--prefer-binary",
    "--progress-bar=off",
    "--no-input",
    "--disable-pip-version-check",
)

FETCHING = ("Collecting ", "Processing ")
"""How pip's line about a package begins: one from an index, one from a folder."""

CONNECTION_BROKEN = "after connection broken by"
"""What pip says when it tries an index again."""

POLL_S = 0.2
"""How often the folder is looked at while packages are written to it."""

Tell = Callable[[str, int, int], None]
"""Is called with what is being done, how much of it is done, and of how much."""


class UnreachableIndexError(ReviewError):
    """The packages cannot be fetched: no package index answers."""


def _silent(what: str, done: int, total: int) -> None:
    pass


@dataclass(frozen=True)
class Environment:
    """A virtual environment with exactly the packages of a list."""

    requirements: Path = REQUIREMENTS

    @property
    def folder(self) -> Path:
        """Where it lies: one for each list of packages, version of Python, and kind of machine."""
        made_of = f"{sys.implementation.cache_tag} {platform.system()} {platform.machine()}".encode()
        digest = sha256(self.requirements.read_bytes() + made_of).hexdigest()
        return user_cache() / f"argilla-server-{digest[:12]}"

    @property
    def python(self) -> Path:
        """Give the environment's Python."""
        return self.folder / "bin" / "python"

    @property
    def packages(self) -> list[str]:
        """Give the names and versions that belong into it, as `name==version`."""
        lines = (line.partition("#")[0].strip() for line in self.requirements.read_text(encoding="utf-8").splitlines())
        return [line for line in lines if line]

    def is_whole(self) -> bool:
        """Say whether it was finished, its Python runs, and each file that was installed is there, as long as it was.

        The files are those that the packages list themselves (their RECORD); it takes about a quarter of a second.
        """
        records = self._installed()
        with suppress(OSError, ValueError, csv.Error):
            return len(records) == int(self._mark.read_text()) and self._python_runs() and all(map(_is_whole, records))
        return False

    def ensure(self, tell: Tell = _silent) -> Path:
        """Give its Python; build or repair the environment first where it must be.

        `tell` hears of the packages fetched and installed. Of two processes one builds and the other waits. Raises
        ReviewError where the packages cannot be had, or not be written; what was half done is removed.
        """
        if self.is_whole():
            return self.python
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with self._locked(tell) as lock:
                if not self.is_whole():  # another process may just have finished it
                    self._build(tell, lock)
        except OSError as error:
            found = f"{error.strerror or error} ({self.folder.parent})"
            raise _failed(found, "a folder to write to", "name another by SFT_CACHE") from error
        return self.python

    def rebuild(self, tell: Tell = _silent) -> Path:
        """Build it anew, because it did not work although it looks whole."""
        self._mark.unlink(missing_ok=True)
        return self.ensure(tell)

    @property
    def _mark(self) -> Path:
        """Give the file that is written last; it holds the number of packages."""
        return self.folder / "complete"

    def _installed(self) -> list[Path]:
        """Give the records of the packages that are there."""
        return sorted(self.folder.glob("lib/python*/site-packages/*.dist-info/RECORD"))

    def _python_runs(self) -> bool:
        with suppress(OSError):
            return subprocess.run([self.python, "-I", "-c", ""], capture_output=True, check=False).returncode == 0
        return False

    @contextmanager
    def _locked(self, tell: Tell) -> Generator[int]:
        """Hold the lock of the folder; gives its descriptor. What builds inherits it: were we killed, the next process
        waits until that has ended too, and does not build into what is still being written."""
        with self.folder.with_suffix(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tell("wait for another process", 0, 0)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock.fileno()

    def _build(self, tell: Tell, lock: int) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            tell("make environment", 0, 0)
            self._make(lock)
            self._install(tell, lock)
            self._mark.write_text(f"{len(self._installed())}\n")
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def _make(self, lock: int) -> None:
        made = subprocess.run(
            [sys.executable, "-m", "venv", self.folder],
            capture_output=True,
            text=True,
            env=_quiet_env(),
            pass_fds=[lock],
            check=False,
        )
        if made.returncode:
            remedy = "install Python's venv and ensurepip (python3-venv on Debian), or use another Argilla"
            raise _failed(_last_line(made.stdout + made.stderr), "a Python that can make environments", remedy)

    def _install(self, tell: Tell, lock: int) -> None:
        total = len(self.packages)
        command = [self.python, "-I", "-m", "pip", "install", *PIP_OPTIONS, "--requirement", self.requirements]
        there = len(self._installed())  # pip itself
        said: list[str] = []
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=_pip_env(),
            pass_fds=[lock],
        ) as pip:
            assert pip.stdout is not None  # noqa: S101 # a pipe was asked for
            try:
                for line in pip.stdout:
                    said.append(line)
                    if line.startswith(FETCHING):
                        tell("fetch packages", sum(one.startswith(FETCHING) for one in said), total)
                    if line.startswith("Installing collected packages"):
                        while pip.poll() is None:
                            tell("install packages", max(len(self._installed()) - there, 0), total)
                            time.sleep(POLL_S)
            except BaseException:
                pip.kill()
                raise
        if pip.returncode:
            expected = f"the {total} packages of {self.requirements}"
            if broken := [line for line in said if CONNECTION_BROKEN in line]:
                remedy = (
                    "check the network, or name an index that can be reached by PIP_INDEX_URL; or use another Argilla:"
                    " set ARGILLA_API_URL and ARGILLA_API_KEY"
                )
                found = f"no package index answers: {broken[-1].partition(CONNECTION_BROKEN)[2].strip()}"
                raise UnreachableIndexError(WHERE, found, expected, remedy)
            remedy = "the next start tries again; or use another Argilla: set ARGILLA_API_URL and ARGILLA_API_KEY"
            raise _failed(_last_line("".join(said)), expected, remedy)
        tell("install packages", total, total)


def _is_whole(record: Path) -> bool:
    """Say whether the files of one package are there, each as long as its RECORD says."""
    root = record.parent.parent
    with record.open(newline="", encoding="utf-8") as lines:
        for name, _, size in csv.reader(lines):
            if name.endswith(".pyc"):
                continue  # Python makes them again
            try:
                found = os.stat(os.path.join(root, name)).st_size  # noqa: PTH116, PTH118 # 15,000 of them
            except OSError:
                return False
            if size and found != int(size):  # a package may leave sizes out
                return False
    return True


def _quiet_env() -> dict[str, str]:
    """Give our environment without what would turn another Python's head."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_", "VIRTUAL_ENV"))}


def _pip_env() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in INDEX_SETTINGS}
    return {"PIP_RETRIES": "2", **_quiet_env(), **kept, "PIP_USER": "0"}  # 2: absent networks are said after seconds


def _last_line(said: str) -> str:
    """Give pip's last error, or its last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.upper().startswith("ERROR")]
    return (errors or lines or ["no reason was given"])[-1]


def _failed(found: str, expected: str, remedy: str) -> ReviewError:
    return ReviewError(WHERE, found, expected, remedy)
