"""Pseudonyms: names that stand for reviewers, the same person always by the same one.

A pseudonym is a keyed hash of the name. The key lies in the store and is in no version, so that who has a version alone
cannot find out who a reviewer is by hashing names; who has the key can.
"""

import os
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import polars as pl

from schemas.errors import StoreError

KEY_FILE = Path("review") / "pseudonyms.key"
"""Where the key lies in a store."""
KEY_BYTES = 32
_PSEUDONYM = re.compile(r"^reviewer-[0-9a-f]{12}$")


def pseudonyms(root: Path) -> Callable[[str], str]:
    """Give what turns a name into its pseudonym, with a store's key; a pseudonym stays what it is."""
    key = _key(root)

    def named(name: str) -> str:
        if _PSEUDONYM.match(name):
            return name
        return f"reviewer-{blake2b(name.encode(), key=key, digest_size=6).hexdigest()}"

    return named


def has_pseudonyms(ledger: pl.DataFrame) -> bool:
    """Whether some of the reviewers go by pseudonyms. Reads: reviewer."""
    return any(_PSEUDONYM.match(name) for name in ledger["reviewer"].unique())


def _key(root: Path) -> bytes:
    """Read the store's key; make it where there is none. It is put in place whole, so that two processes have one."""
    path = root / KEY_FILE
    try:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            own = path.with_name(f"{path.name}.{os.getpid()}")
            own.touch(mode=0o600)
            own.write_bytes(secrets.token_bytes(KEY_BYTES))
            with suppress(FileExistsError):  # another process was faster
                os.link(own, path)
            own.unlink()
        key = path.read_bytes()
    except OSError as error:
        raise StoreError(f"key {path}", error.strerror or str(error), "a file that can be read and written") from error
    if len(key) != KEY_BYTES:
        remedy = "restore it: another key would give the same people other names"
        raise StoreError(f"key {path}", f"{len(key)} bytes", f"{KEY_BYTES}", remedy)
    return key
