"""Which weights a model is: digests over its files, or over the weights themselves.

Reading 16 GB at every start takes time, so the digest of a large file is remembered in the user's cache, by device,
inode, size and times, as a store does for its objects: a file whose bytes change gets another ctime and is read again.
"""

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from schemas.objects import file_sha256

REMEMBERED_BYTES = 64 * 2**20
"""Files from this size on are remembered: below it, reading takes less than a tenth of a second."""


def remembered_sha256(path: Path) -> str:
    """Give the sha256 of a file, from memory where the file is large and the same as when it was last read."""
    if path.stat().st_size < REMEMBERED_BYTES:
        return file_sha256(path)
    s = path.stat()
    key = f"{s.st_dev} {s.st_ino} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns}"
    memory = _memory()
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


def _memory() -> Path:
    user = os.environ.get("XDG_CACHE_HOME")
    cache = os.environ.get("SFT_CACHE") or (Path(user) if user else Path.home() / ".cache") / "sft"
    return Path(cache) / "model-digests.log"


def folder_digest(folder: Path, *, code: bool = False) -> str:
    """Sha256 over the names and bytes of configuration and weights, and with `code` of the Python files: 64 hex."""
    suffixes = {".safetensors", ".py"} if code else {".safetensors"}
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.name == "config.json" or file.suffix in suffixes:
            digest.update(file.name.encode() + b"\0" + bytes.fromhex(remembered_sha256(file)))
    return digest.hexdigest()


def weights_digest(weights: Iterable[tuple[str, Tensor]]) -> str:
    """Sha256 over the names and bytes of weights, in the order of their names: 64 hex digits."""
    digest = hashlib.sha256()
    for name, weight in sorted(weights, key=lambda pair: pair[0]):
        digest.update(name.encode() + b"\0" + weight.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
