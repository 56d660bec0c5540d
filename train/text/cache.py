"""Tokens that were made before: folders in the user's cache, each whole or not there, and checked when it is read.

    $SFT_CACHE, else $XDG_CACHE_HOME/sft, else ~/.cache/sft
      tokens/KEY/00000.arrow, 00001.arrow, …    shards (train.text.shard)
      tokens/KEY/entry.json                     their names, sizes and sha256
      tokens/.KEY.XXXXXXXX/                     one that is being written; removed when a day old

KEY digests all that decides tokens. A folder is written under another name and then renamed, so that two runs at once,
or one that is killed, leave nothing half; whatever the disk did to it later, the hashes tell. Together they take at
most MOST_BYTES: beyond, those that were not used for longest go. Nothing here is needed: what fails is said, and done
without.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from schemas.cache import user_cache
from train.text import shard
from train.text.shard import Table

MOST_BYTES = 20 << 30
"""About 4,000 million tokens: some tens of large datasets, and little beside the models in a user's cache."""

STALE_S = 86_400.0
"""Seconds after which a folder that was never finished is taken for one whose run was killed."""


class TokenCache:
    """The tokens that were made before, by key. `say` gets a line where something cannot be had, or goes."""

    def __init__(self, folder: Path | None = None, say: Callable[[str], None] = lambda _: None) -> None:
        self.folder = (folder or user_cache()) / "tokens"
        self._say = say

    def find(self, key: str) -> list[Table] | None:
        """Give the shards of an entry, mapped; None where there is none, or not as it was written."""
        place = self.folder / key
        try:
            files = json.loads((place / "entry.json").read_text())["files"]
            paths = [place / file["name"] for file in files]
            with ThreadPoolExecutor() as pool:
                whole = list(pool.map(_sha256, paths)) == [file["sha256"] for file in files]
            found = [shard.opened(path) for path in paths] if whole else None
            with suppress(PermissionError):  # a cache that can only be read
                os.utime(place)  # used now; the longest unused go first
        except (FileNotFoundError, NotADirectoryError):
            found = None
            whole = not place.is_dir()  # a folder without all of its files is none of ours
        except (OSError, ValueError, LookupError, TypeError):
            found, whole = None, False
        if not whole:
            self._say(f"cached tokens {place} are not what was written: made anew")
            shutil.rmtree(place, ignore_errors=True)
        return found

    def draft(self, key: str) -> Path | None:
        """Make the folder that an entry is written in; None, said, where that cannot be."""
        place = self.folder / f".{key}.{token_hex(4)}"  # containers that share a cache share process ids too
        try:
            place.mkdir(parents=True)
        except OSError as error:
            self._say(f"tokens are not kept for the next start: {place.parent}: {_said(error)}")
            return None
        return place

    def drop(self, draft: Path, error: OSError) -> None:
        """Give a draft up, and say why."""
        self._say(f"tokens are not kept for the next start: {draft.parent}: {_said(error)}")
        self.discard(draft)

    def discard(self, draft: Path) -> None:
        """Remove a draft; what of it is mapped can still be read."""
        shutil.rmtree(draft, ignore_errors=True)

    def keep(self, draft: Path, key: str, hashes: Sequence[str]) -> list[Table]:
        """Put a draft in its place, and give its shards. Where another run was first, its entry is as good."""
        files = [{"name": name_of(i), "sha256": sha256} for i, sha256 in enumerate(hashes)]
        tables = [shard.opened(draft / file["name"]) for file in files]  # mapped: they outlive the folder's name
        try:
            (draft / "entry.json").write_text(json.dumps({"files": files}))
            draft.rename(self.folder / key)
        except OSError as error:
            if not (self.folder / key / "entry.json").is_file():  # else another run was quicker
                self.drop(draft, error)
        shutil.rmtree(draft, ignore_errors=True)
        self._make_room(key)
        return tables

    def _make_room(self, used: str) -> None:
        """Remove entries, the longest unused first, while there is more than MOST_BYTES; and drafts of killed runs."""
        entries: list[tuple[float, int, Path]] = []
        for place in self.folder.glob("*"):
            try:
                age = place.stat().st_mtime
                if not place.name.startswith("."):
                    entries.append((age, sum(file.stat().st_size for file in place.iterdir()), place))
                elif time.time() - age > STALE_S:
                    shutil.rmtree(place, ignore_errors=True)
            except OSError:  # another run was quicker
                continue
        held = sum(size for _, size, _ in entries)
        for _, size, place in sorted(entries):
            if held <= MOST_BYTES:
                break
            if place.name != used:
                shutil.rmtree(place, ignore_errors=True)
                held -= size
                self._say(f"cached tokens {place.name[:12]}… ({size / 1e9:.1f} GB) removed: the longest unused")


def name_of(number: int) -> str:
    """Name a shard's file."""
    return f"{number:05d}.arrow"


def write(table: Table, path: Path) -> str:
    """Write a shard, and give the sha256 of its file. Raises OSError."""
    shard.write(table, path)
    return _sha256(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _said(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
