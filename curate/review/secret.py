"""Secrets of a store: random keys that lie beside its reviews, for their owner alone to read, and are in no version."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from schemas.errors import StoreError

KEY_BYTES = 32


def secret_key(root: Path, name: str, lost: str) -> bytes:
    """Read the key STORE/review/NAME.key; make it where there is none, whole, so that two processes have one.

    `lost` says what is lost with it. Raises StoreError where it cannot be read or written, or is no key.
    """
    path = root / "review" / f"{name}.key"
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
        raise StoreError(f"key {path}", f"{len(key)} bytes", f"{KEY_BYTES}", f"restore it: {lost}")
    return key
