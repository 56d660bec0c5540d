"""Which weights a model is: a digest over its files.

Reading 16 GB at every start takes time, so the digest of a large file is remembered in the user's cache, by device,
inode, size and times, as a store does for its objects: a file whose bytes change gets another ctime and is read again.
"""

import hashlib
from contextlib import suppress
from pathlib import Path

from schemas.cache import user_cache
from schemas.objects import file_sha256

REMEMBERED_BYTES = 64 * 2**20
"""Files from this size on are remembered: below it, reading takes less than a tenth of a second."""


SETTINGS = frozenset({"config.json", "model.safetensors.index.json"})


def remembered_sha256(path: Path) -> str:
    """Give the sha256 of a file, from memory where the file is large and the same as when it was last read."""
    if path.stat().st_size < REMEMBERED_BYTES:
        return file_sha256(path)
    s = path.stat()
    key = f"{s.st_dev} {s.st_ino} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns}"
    memory = user_cache() / "model-digests.log"
    with suppress(OSError):
        for line in memory.read_text(encoding="ascii", errors="replace").splitlines():
            found, _, sha256 = line.rpartition(" ")
            if found == key and len(sha256) == 64:  # a line that a crash tore is for no file
                return sha256
    sha256 = file_sha256(path)
    with suppress(OSError):  # without a cache to write to, the file is read again next time
        memory.parent.mkdir(parents=True, exist_ok=True)
        with memory.open("a", encoding="ascii") as stream:
            stream.write(f"{key} {sha256}\n")
    return sha256


def folder_digest(folder: Path, *, code: bool = False) -> str:
    """Sha256 over the names and bytes of configuration, weights and their index: 64 hex digits.

    With `code` also of the Python files, in folders below too: transformers imports and runs those as well.
    """
    files = [file for file in folder.iterdir() if file.name in SETTINGS or file.suffix == ".safetensors"]
    files += folder.rglob("*.py") if code else ()
    digest = hashlib.sha256()
    for file in sorted(file for file in files if file.is_file()):
        name = file.relative_to(folder).as_posix()
        digest.update(name.encode() + b"\0" + bytes.fromhex(remembered_sha256(file)))
    return digest.hexdigest()
