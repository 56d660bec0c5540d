"""A page that a command writes: whole, or not at all."""

import os
from pathlib import Path

from cli.render import say
from schemas.errors import ConfigError


def write_page(path: Path, html: str) -> None:
    """Write a page beside its name, then put it in place. Raises ConfigError where it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(html, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(f"--html {path}", error.strerror or str(error), "a file that can be written") from error
    say(f"wrote {path}")
