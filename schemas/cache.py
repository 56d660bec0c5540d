"""Where this user keeps what can be made or fetched again: mirrors of stores, tokens, digests, environments."""

import os
from pathlib import Path


def user_cache() -> Path:
    """Give that folder: SFT_CACHE, else `sft` in XDG_CACHE_HOME, else ~/.cache/sft. It need not be there."""
    if chosen := os.environ.get("SFT_CACHE"):
        return Path(chosen).expanduser().absolute()
    user = os.environ.get("XDG_CACHE_HOME")
    return (Path(user) if user else Path.home() / ".cache") / "sft"
