"""Compiled: functions that numba turns into machine code, kept on the disk for as long as the sources are the same.

numba's own cache looks at the file of each function and no further, and functions take in those of other files: a
change there would leave old machine code in use. Here the cache lies in a folder named by a hash of all the sources.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from shutil import rmtree
from typing import Any, Literal

from numba import njit
from numba.core import config

_CONFIG: Any = config
_HERE = Path(__file__).parent
_NAMES = ("letters", "words", "sketch", "compare", "bucket", "cluster", "growth")
_SOURCES = (*(_HERE / f"{name}.py" for name in _NAMES), _HERE.parents[1] / "schemas" / "record.py")
"""The files whose functions are compiled, and what they take from others: record.py holds the names of the roles."""


@cache
def cache_folder() -> Path | None:
    """Give the folder for the machine code of these sources: beside them, else in the user's own cache, else none."""
    digest = blake2b(b"".join(path.read_bytes() for path in _SOURCES), digest_size=8).hexdigest()
    for base in _places():
        folder = base / f"compiled-{digest}"
        try:
            for old in base.glob("compiled-*"):
                if old != folder:
                    rmtree(old, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:  # cannot be written: the next place
            continue
        if os.access(folder, os.W_OK):
            return folder
    return None


def _places() -> Iterator[Path]:
    yield _HERE / "__pycache__"
    with suppress(RuntimeError):  # a user without a home
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sft-toolkit"


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function when it is first called; it lets other threads run meanwhile."""
    return _compile(function, "never")


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a small function into those that call it."""
    return _compile(function, "always")


def _compile(function: Callable[..., Any], inline: Literal["never", "always"]) -> Callable[..., Any]:
    folder, before = cache_folder(), _CONFIG.CACHE_DIR
    _CONFIG.CACHE_DIR = str(folder or "")  # read while the function is decorated, and not later
    try:
        return njit(nogil=True, cache=folder is not None, inline=inline)(function)
    finally:
        _CONFIG.CACHE_DIR = before
