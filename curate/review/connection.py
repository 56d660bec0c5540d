"""Which Argilla a command speaks to: the one that is named, or else the store's own.

Keys come from the environment or from the store's own secrets, and never from the command line, where others can read
them.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import ConfigError

if TYPE_CHECKING:
    from curate.review.client import Server

URL_VARIABLE, KEY_VARIABLE = "ARGILLA_API_URL", "ARGILLA_API_KEY"
WORKSPACE = "review"
"""The workspace that is used where none is named."""


def connect_for(home: Path, url: str | None = None, workspace: str = WORKSPACE) -> "Server":
    """Connect to `url`, else to ARGILLA_API_URL, else to the Argilla that runs with the folder `home`.

    Raises ConfigError where there is none, or no key; and what `client.connect` raises.
    """
    from curate.review.client import connect  # noqa: PLC0415 # the SDK takes half a second to import

    url = url or os.environ.get(URL_VARIABLE)
    key = (os.environ.get(KEY_VARIABLE) or "").strip()
    own = None if url and key else _own(home)
    if url and not key and own and own[0] == url.rstrip("/").replace("//localhost:", "//127.0.0.1:"):
        key = own[1]
    if url and not key:
        raise ConfigError(
            f"Argilla at {url}", "no API key", f"the key of an owner or admin in the environment, {KEY_VARIABLE}"
        )
    if url and key:
        if not (key.isascii() and key.isprintable()):  # such a header cannot be sent, and the refusal would show it
            raise ConfigError(KEY_VARIABLE, "it holds characters that no API key has", "the key alone, in one line")
        return connect(url, key, workspace)
    if own is None:
        raise ConfigError(
            "Argilla",
            f"none runs for {home}, and no other is named",
            "a server to speak to",
            "start one in another terminal with sft curate review serve, "
            f"or set {URL_VARIABLE} and {KEY_VARIABLE} to use another",
        )
    return connect(*own, workspace)


def _own(home: Path) -> tuple[str, str] | None:
    """Give URL and owner's key of the Argilla that runs with a folder; None where none does."""
    from curate.review.server import process  # noqa: PLC0415 # as above: only where it is asked for

    running = process.find(home)
    return (running.url.rstrip("/"), running.owner.api_key) if running else None
