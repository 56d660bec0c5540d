"""A folder that is written whole or not at all."""

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from schemas.errors import ConfigError


@contextmanager
def new_folder(to: Path) -> Generator[Path]:
    """Give a new folder that becomes `to` when all went well, and is removed otherwise.

    A link to a folder stays, and the folder that it names is the one that is written. Raises ConfigError where `to` is
    in use, is the folder that the process is in (it would stay in the old one), or cannot be written.
    """
    given, to = to, Path(os.path.realpath(to))
    partial = to.parent / f".{to.name}.{os.getpid()}.partial"
    try:
        if to.exists() and (not to.is_dir() or any(to.iterdir())):
            found = "a folder with files in it" if to.is_dir() else "a file"
            raise ConfigError(str(given), found, "a new or empty folder", "name another one with --to, or remove it")
        if to == Path.cwd():
            raise ConfigError(str(given), "the folder that you are in", "another one", "name a new one with --to")
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        yield partial
        if to.exists():
            to.rmdir()
        partial.rename(to)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(str(given), reason, "a folder that can be written", "name another one with --to") from error
    finally:
        with suppress(OSError):
            shutil.rmtree(partial, ignore_errors=True)
