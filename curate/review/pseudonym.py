"""Pseudonyms: names that stand for reviewers, the same person always by the same one.

A pseudonym is a keyed hash of the name. The key lies in the store and is in no version, so that who has a version alone
cannot find out who a reviewer is by hashing names; who has the key can.
"""

import re
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import polars as pl

from curate.review.secret import secret_key

_PSEUDONYM = re.compile(r"^reviewer-[0-9a-f]{12}$")


def pseudonyms(root: Path) -> Callable[[str], str]:
    """Give what turns a name into its pseudonym, with a store's key; a pseudonym stays what it is."""
    key = secret_key(root, "pseudonyms", "another key would give the same people other names")

    def named(name: str) -> str:
        if _PSEUDONYM.match(name):
            return name
        return f"reviewer-{blake2b(name.encode(), key=key, digest_size=6).hexdigest()}"

    return named


def has_pseudonyms(ledger: pl.DataFrame) -> bool:
    """Whether some of the reviewers go by pseudonyms. Reads: reviewer."""
    return any(_PSEUDONYM.match(name) for name in ledger["reviewer"].unique())
