"""Scratch: working memory within a bound. What does not fit lies in a file without a name in the store's tmp folder."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import StoreError


@dataclass
class Scratch:
    """Gives out arrays; beyond `limit` bytes they lie in files that vanish with them, even if the process is killed."""

    limit: int
    folder: Path
    used: int = 0
    spilled: int = 0

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Give an array whose values are undefined; raise StoreError where the disk has no room for it."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if self.used + size <= self.limit or size == 0:
            self.used += size
            return np.empty(shape, dtype)
        self.spilled += size
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder) as file:
                os.posix_fallocate(file.fileno(), 0, size)
                return np.memmap(file, dtype, "r+", shape=shape)
        except OSError as error:
            raise StoreError(
                f"dedup, {self.folder}",
                f"{error.strerror}: no room for {size / 1e9:.1f} GB of working space",
                remedy="free some space, name another store, or raise --memory",
            ) from error

    def keep(self, values: NDArray[Any]) -> NDArray[Any]:
        """Take in an array that was made elsewhere."""
        mine = self.empty(values.shape, values.dtype)
        mine[...] = values
        return mine
