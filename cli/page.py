"""A page that a command writes: whole, or not at all."""

import os
from pathlib import Path

from cli.render import say
from schemas.errors import ConfigError


def check_page(path: Path) -> None:
    """Raise ConfigError where no page can be written, before the work for it begins.

    Something that is there and is no file (a folder, a device) is left as it is: a page replaces what it is written to.
    """
    try:
        folder, taken = path.absolute().parent.is_dir(), path.exists() and not path.is_file()
    except OSError as error:
        raise _refused(path, error) from error
    if not folder:
        raise ConfigError(f"--html {path}", "its folder is not there", "a file in a folder that is")
    if taken:
        raise ConfigError(f"--html {path}", "it is there, and no file", "a file that can be written")


def write_page(path: Path, html: str) -> None:
    """Write a page beside its name, then put it in place. Raises ConfigError where it cannot be written."""
    check_page(path)
    temporary = path.with_name(f".sft-{os.getpid()}.tmp")  # short: a name of 255 bytes has room for no more
    try:
        temporary.write_text(html, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    say(f"wrote {path}")


def _refused(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"--html {path}", error.strerror or str(error), "a file that can be written")
