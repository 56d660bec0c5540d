"""The key of a text: what counts as the same words, for rules, dedup and split alike.

Two texts with the same key differ in nothing but letter case and the number of blanks. Keys are compared by a 128-bit
hash, so that no stage holds the texts of a whole dataset.
"""

import hashlib

import polars as pl

from schemas.record import of_turns


def key_text(text: pl.Expr) -> pl.Expr:
    """Lower-case a text and collapse its blanks to single spaces; null becomes ""."""
    return text.fill_null("").str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars(" ")


def key_hash(*columns: pl.Series) -> pl.Series:
    """Hash the rows of one or several text columns: 32 hex digits of blake2b-128, lengths included."""
    digests: list[str] = []
    for parts in zip(*(column.fill_null("") for column in columns), strict=True):
        digest = hashlib.blake2b(digest_size=16)
        for part in parts:
            raw = part.encode()
            digest.update(len(raw).to_bytes(8, "little"))
            digest.update(raw)
        digests.append(digest.hexdigest())
    return pl.Series("key", digests, dtype=pl.String)


def answer_text() -> pl.Expr:
    """Give all that the assistant says and calls: contents and tool calls of its turns. Reads: messages.

    `schemas.record.response_text` leaves the calls out; without them, two different calls would read the same.
    """
    turn = pl.element().struct
    said = pl.concat_str([turn.field("content"), turn.field("tool_calls")], separator="\n", ignore_nulls=True)
    return of_turns(said, turn.field("role") == "assistant").list.join("\n")
