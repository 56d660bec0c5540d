"""Where a file of a store lies, and that it lies there: nothing in a store is read or written through a link.

The store's folder itself may be a link, since whoever named the store knows where it is. Below it a link could lead
anywhere, and a store that came from elsewhere could have us read or overwrite what is not its own. Who wants objects on
another disk moves the whole store, or mounts the disk there.
"""

import os
import stat
from pathlib import Path

from schemas.errors import StoreError

MAX_BYTES = 64 << 20
"""Largest manifest, list of tags or run record that is read. A version of a thousand million rows has about 50 MB."""


def inside(root: Path, *parts: str) -> Path:
    """Give the path of something in a store; raise StoreError where a link stands on the way, or we may not look."""
    path = root
    for part in parts:
        path /= part
        try:
            is_link = path.is_symlink()
        except OSError as error:  # a folder that may not be entered, a name that is too long
            raise StoreError(f"store {root}", error.strerror or str(error), "a readable folder") from error
        if is_link:
            raise StoreError(
                f"store {root}",
                f"{path.relative_to(root)} is a symbolic link",
                "files and folders of its own",
                "put what it leads to in its place, or name the store that it leads to with --store",
            )
    return path


def check_store(root: Path) -> None:
    """Raise StoreError where there is no such folder; what only looks at a store makes none."""
    if not os.path.isdir(root):  # noqa: PTH112 # a name that is too long for a path is no folder, and no error
        raise StoreError(f"store {root}", "no such folder", "a store", "check --store")


def listed(folder: Path) -> list[str]:
    """Give the names in a folder, sorted; none where there is no such folder. Raises StoreError where it is unreadable.

    A folder that cannot be read is never an empty one: gc would take what is named there for garbage.
    """
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 # thousands of names, often: `iterdir` makes a path of each
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StoreError(str(folder), error.strerror or str(error), "a readable folder") from error


def read_bytes(path: Path, where: str) -> bytes:
    """Read a small file whole: a regular one of at most MAX_BYTES. Raises StoreError otherwise, also for a pipe."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise StoreError(where, "not a file", "a readable file")
            if found.st_size > MAX_BYTES:
                size = f"{found.st_size >> 20} MB"
                raise StoreError(where, f"too large ({size})", f"{MAX_BYTES >> 20} MB at most")
            return file.read()
    except OSError as error:
        raise StoreError(where, error.strerror or str(error), "a readable file") from error
