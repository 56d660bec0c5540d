"""Normalize: the same text however it was typed, encoded or exported; every edit is logged with its row.

A vectorised pass finds the rows that may need an edit; only these are rewritten, in Python, until nothing changes any
more, so normalising twice changes nothing. The outcome is a sparse overlay; normalize never rejects.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from curate.stage import Output, Progress, ShardOutput, Stage
from curate.wrappers import SIGNS, unwrap
from schemas.config import NormalizeConfig
from schemas.dataset import Dataset, Shard
from schemas.record import OVERLAY_SCHEMA, ROLE_NAMES, ROLES, VERDICT_SCHEMA, content_hash

BLANKS = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
"""Unicode's White_Space: what polars strips; Python's own idea of blanks has four control characters more."""

_LEAD = "\xc2-\xf4\x80-\x9f"  # so begins UTF-8 that was read as Latin-1: it is left whole for the rules to mend
_LINE_END = re.compile(f"\r\n|[\r\v\f\u2028\u2029]|(?<![{_LEAD}])\x85")  # the mandatory breaks of UAX #14
_CONTROL = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f\u2060\ufeff]"  # Cc without tab and line ends; word joiner, byte order mark
    f"|(?<![{_LEAD}])[\x80-\x84\x86-\x9f]"  # the rest of Cc
    "|(?<![\xc2\xc3])\xad"  # soft hyphen
)
_SOUTH_EAST_ASIAN = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_SPACE_OF_NO_WIDTH = re.compile(  # separates words where no blank does: Thai, Lao, Burmese, Khmer
    f"(?<![{_SOUTH_EAST_ASIAN}])\u200b|\u200b(?![{_SOUTH_EAST_ASIAN}])"
)
_VIRAMA = "\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d4d\u0dca"
_JOINER = re.compile(  # ZWNJ and ZWJ shape a word (Persian, Indic) or an emoji; after a virama even at a word's end
    f"(?<![^\\s\u200b-\u200d])[\u200c\u200d]|(?<![{_VIRAMA}])[\u200c\u200d](?![^\\s\u200b-\u200d])"
)
_SUSPECT = r"[\x00-\x08\x0b-\x1f\x7f-\x{9f}\x{ad}\x{200b}-\x{200d}\x{2028}\x{2029}\x{2060}\x{feff}]"  # any of the above
_BLANK_LINES = re.compile(f"\\A(?:[{BLANKS}]*\n)+")
_INDENTED_LINE = re.compile("\n[ \t]+[^ \t\n]")

_ORDER = (
    "edit:nfc",
    "edit:line_ends",
    "edit:control_characters",
    "edit:surrounding_blanks",
    "edit:role_names",
    "edit:empty_system",
    "edit:empty_context",
    "edit:unwrapped",
)


@dataclass(frozen=True)
class Rewritten:
    """A row after normalising, and the names of what was done to it (none: the row is as it was)."""

    messages: list[dict[str, Any]]
    context: str | None
    edits: tuple[str, ...]


def strip_blanks(text: str) -> str:
    """Remove blank lines and blanks around a text, but keep the indentation that its lines share: it may be code."""
    text = _BLANK_LINES.sub("", text.rstrip(BLANKS))
    return text if _INDENTED_LINE.search(text) else text.lstrip(BLANKS)


def normalize_text(text: str, config: NormalizeConfig, edits: set[str]) -> str:
    """Normalise one text until nothing changes any more; add the names of the edits to `edits`."""
    while True:
        start = text
        for name, edited in _passes(text, config):
            if edited != text:
                edits.add(name)
                text = edited
                break
        if text == start:
            return text


def _passes(text: str, config: NormalizeConfig) -> Iterator[tuple[str, str]]:
    if config.line_ends:
        yield "edit:line_ends", _LINE_END.sub("\n", text)
    if config.control_characters:
        yield "edit:control_characters", _JOINER.sub("", _SPACE_OF_NO_WIDTH.sub("", _CONTROL.sub("", text)))
    if config.nfc:
        yield "edit:nfc", unicodedata.normalize("NFC", text)
    if config.surrounding_blanks:
        yield "edit:surrounding_blanks", strip_blanks(text)


def normalize_row(messages: Sequence[Mapping[str, Any]], context: str | None, config: NormalizeConfig) -> Rewritten:
    """Normalise one row: roles, every text, what has no text, and wrappers, also one inside another."""
    edits: set[str] = set()
    turns = [dict(message) for message in messages]
    while True:
        while config.unwrap and (found := unwrap(turns, context)):
            edits.add("edit:unwrapped")
            turns, context = found.messages, found.context
        before = turns, context
        turns, context = _normalize_turns(turns, context, config, edits)
        if (turns, context) == before:
            return Rewritten(turns, context, tuple(edit for edit in _ORDER if edit in edits))


def _normalize_turns(
    messages: Sequence[Mapping[str, Any]], context: str | None, config: NormalizeConfig, edits: set[str]
) -> tuple[list[dict[str, Any]], str | None]:
    turns: list[dict[str, Any]] = []
    for message in messages:
        turn = dict(message)
        if config.role_names:
            role = turn["role"].strip(BLANKS).lower()
            role = ROLE_NAMES.get(role, role)
            if role in ROLES and role != turn["role"]:
                turn["role"] = role
                edits.add("edit:role_names")
        if turn["content"] is not None:
            turn["content"] = normalize_text(turn["content"], config, edits)
        if config.empty_system and turn["role"] == "system" and not (turn["content"] or "").strip(BLANKS):
            edits.add("edit:empty_system")
            continue
        turns.append(turn)
    if context:  # "" is how Alpaca and Dolly write that there is none: no edit
        context = normalize_text(context, config, edits)
        if config.empty_system and not context.strip(BLANKS):
            context = None
            edits.add("edit:empty_context")
    return turns, context


def _may_change(text: pl.Expr) -> pl.Expr:
    """Say whether any pass may change a text: never false where one does."""
    return (
        text.str.contains(_SUSPECT)
        | (text.str.strip_chars(BLANKS) != text)
        | (text.str.len_bytes() != text.str.len_chars()) & (text.str.normalize("NFC") != text)
    ).fill_null(value=False)


def candidates(frame: pl.DataFrame) -> pl.DataFrame:
    """Choose the rows that may need an edit.

    Reads: row, messages, context. Adds: nothing; gives the same columns of fewer rows.
    """
    turns = frame.select("row", "messages").explode("messages", empty_as_null=False, keep_nulls=False)
    turn = pl.col("messages").struct
    role, content = turn.field("role"), turn.field("content")
    empty_system = (role == "system") & (content.fill_null("").str.strip_chars(BLANKS) == "")
    wrapped = content.str.contains_any(list(SIGNS)).fill_null(value=False)
    odd_turns = turns.filter(_may_change(content) | ~role.is_in(ROLES) | empty_system | wrapped).get_column("row")
    return frame.filter(pl.col("row").is_in(odd_turns.implode()) | _may_change(pl.col("context")))


def normalize_shard(shard: Shard, config: NormalizeConfig) -> pl.DataFrame:
    """Give the overlay of one shard: the rows that change, in full (schemas.record.OVERLAY_SCHEMA).

    Reads: messages, context, content_hash, kept. Adds: before_hash, edits.
    """
    frame = (
        shard.view(["messages", "context", "content_hash", "kept"], before_stage="normalize")
        .with_row_index("row")
        .filter(pl.col("kept") & pl.col("messages").is_not_null())
        .collect()
    )
    changed: list[dict[str, Any]] = []
    for row in candidates(frame).iter_rows(named=True):
        after = normalize_row(row["messages"], row["context"], config)
        if after.edits:
            changed.append(
                {
                    "row": row["row"],
                    "messages": after.messages,
                    "context": after.context,
                    "content_hash": content_hash(after.messages, after.context),
                    "before_hash": row["content_hash"],
                    "edits": after.edits,
                }
            )
    return pl.DataFrame(changed, schema=OVERLAY_SCHEMA)


def run(dataset: Dataset, config: NormalizeConfig, progress: Progress) -> Iterator[Output]:
    """Normalise every row that ingest could read."""
    for shard in dataset.shards:
        overlay = normalize_shard(shard, config)
        no_verdict = [pl.repeat(None, shard.rows, dtype=dtype).alias(name) for name, dtype in VERDICT_SCHEMA.items()]
        yield ShardOutput(shard, pl.select(no_verdict), overlay)
        progress(shard.rows)


STAGE = Stage("normalize", 2, NormalizeConfig, run, features=("overlays",))
