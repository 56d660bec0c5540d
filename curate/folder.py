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

    Raises ConfigError where `to` is in use or cannot be written.
    """
    partial = to.parent / f".{to.name}.{os.getpid()}.partial"
    try:
        if to.exists() and (not to.is_dir() or any(to.iterdir())):
            found = "a folder with files in it" if to.is_dir() else "a file"
            raise ConfigError(str(to), found, "a new or empty folder", "name another one with --to, or remove it")
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        yield partial
        if to.exists():
            to.rmdir()
        partial.rename(to)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(str(to), reason, "a folder that can be written", "name another one with --to") from error
    finally:
        with suppress(OSError):
            shutil.rmtree(partial, ignore_errors=True)
