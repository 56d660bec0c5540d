"""The record: the columns of a text object, and what can be computed from one row alone.

A record is one row of somebody's file brought to conversational form. `context` stays apart from the messages so that
rules can judge it and exports give it back; `compose` is the one recorded way in which it joins the first user turn.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, starmap
from typing import Any

import polars as pl

from schemas.errors import StoreError

SCHEMA_VERSION = 1
ROLES = ("system", "user", "assistant", "tool")

ROLE_NAMES = {
    "human": "user",
    "prompter": "user",
    "question": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "answer": "assistant",
    "developer": "system",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
}
"""Other names of the roles, as found in public chat logs (lower case). Ingest lets them in, normalize replaces them."""

COMPOSE_RULE = "context-after-blank-line/1"
"""Named in every manifest: the context follows the first user turn after one blank line."""

MESSAGE = pl.Struct({"role": pl.String, "content": pl.String, "name": pl.String, "tool_calls": pl.String})

TEXT_SCHEMA = pl.Schema(
    {
        "id": pl.String,
        "source": pl.String,
        "source_key": pl.String,
        "source_file": pl.String,
        "source_row": pl.Int64,
        "messages": pl.List(MESSAGE),
        "context": pl.String,
        "tools": pl.String,
        "category": pl.String,
        "extra": pl.String,
        "content_hash": pl.String,
    }
)

EDITABLE = ("messages", "context", "content_hash")
"""The columns that an overlay may replace."""

OVERLAY_SCHEMA = pl.Schema(
    {
        "row": pl.UInt32,
        "messages": pl.List(MESSAGE),
        "context": pl.String,
        "content_hash": pl.String,
        "before_hash": pl.String,
        "edits": pl.List(pl.String),
    }
)
"""A sparse overlay: `row` is the position in the shard, then the rewritten row in full and what was done to it."""

VERDICT_SCHEMA = pl.Schema({"verdict": pl.String, "detail": pl.String})
"""The first columns of every annotation: null = keep, else a reason of `schemas.reasons`; and the evidence."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `tool_calls` is the JSON text of the calls that an assistant turn makes."""

    role: str
    content: str
    name: str | None = None
    tool_calls: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One conversation as a trainer reads it: context composed in, nothing else changed."""

    id: str
    source: str
    messages: tuple[Message, ...]
    tools: str | None = None
    weight: float = 1.0


_plain_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _blake(*parts: bytes) -> str:
    """Blake2b-128 of length-prefixed parts, as 32 hex digits: no two different lists of parts read the same."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def lineage_id(source: str, source_key: str) -> str:
    """Give the id that a row keeps through all edits: 32 hex digits of (source, source_key)."""
    return _blake(source.encode(), source_key.encode())


def raw_key(raw: str, occurrence: int) -> str:
    """Give the source_key of a row without an id of its own: hash of the raw row, and its how-manieth occurrence."""
    return f"{_blake(raw.encode('utf-8', 'surrogatepass'))}-{occurrence}"


def content_hash(messages: Sequence[Mapping[str, Any]], context: str | None) -> str:
    """Hash what is said: 32 hex digits of the messages and the context exactly as they stand.

    Not normalised first: a tokenizer sees the difference between composed and decomposed letters, so it is an edit.
    """
    turns = [[m["role"], m["content"], m.get("name"), m.get("tool_calls")] for m in messages]
    return _blake(_plain_json([turns, context]).encode())


def compose(messages: Sequence[Message], context: str | None) -> tuple[Message, ...]:
    """Join the context to the first user turn, by `COMPOSE_RULE`. Blank contexts add nothing."""
    if not context or not context.strip():
        return tuple(messages)
    composed = list(messages)
    for i, message in enumerate(composed):
        if message.role == "user":
            joined = f"{message.content}\n\n{context}" if message.content.strip() else context
            composed[i] = Message("user", joined, message.name, message.tool_calls)
            break
    return tuple(composed)


def last_answer(messages: Sequence[Message]) -> int | None:
    """Give the index of the turn that is the answer: the last assistant turn.

    None where it says nothing, calls tools, or nothing stands before it: then there is no text to compare with.
    """
    turns = [i for i, message in enumerate(messages) if message.role == "assistant"]
    if not turns or turns[-1] == 0:
        return None
    answer = messages[turns[-1]]
    return turns[-1] if answer.content.strip() and not answer.tool_calls else None


def record_of(row: Mapping[str, Any]) -> Record:
    """Make the trainer's record of one row. Reads: id, source, messages, context, tools, weight?."""
    messages = [Message(m["role"], m["content"], m["name"], m["tool_calls"]) for m in row["messages"]]
    return Record(
        id=row["id"],
        source=row["source"],
        messages=compose(messages, row["context"]),
        tools=row["tools"],
        weight=1.0 if row.get("weight") is None else float(row["weight"]),
    )


def records_of(rows: pl.DataFrame) -> Iterator[Record]:
    """Make the trainer's records of many rows, in order: as `record_of`, but column by column, which is quicker.

    Reads: id, source, messages, context, tools, weight?.
    """
    counts: list[int] = rows["messages"].list.len().to_list()
    turns = rows.filter(pl.col("messages").list.len() > 0)["messages"].explode()
    said = zip(*(turns.struct.field(name).to_list() for name in ("role", "content", "name", "tool_calls")), strict=True)
    messages = starmap(Message, said)
    weights: list[float | None] = rows["weight"].to_list() if "weight" in rows.columns else [None] * len(rows)
    others = (rows[name].to_list() for name in ("id", "source", "context", "tools"))
    for count, name, source, context, tools, weight in zip(counts, *others, weights, strict=True):
        turn = compose(tuple(islice(messages, count)), context)
        yield Record(name, source, turn, tools, 1.0 if weight is None else float(weight))


def of_turns(text: pl.Expr, wanted: pl.Expr) -> pl.Expr:
    """Give, as a list, what the wanted turns say; nulls are left out. Both expressions are of a turn. Reads: messages.

    A filter within `list.eval` would be shorter: polars 2.1 panics in it where a column has several chunks and is a
    part of a longer one.
    """
    return pl.col("messages").list.eval(pl.when(wanted).then(text)).list.drop_nulls()


def turns_text(role: str) -> pl.Expr:
    """Contents of all turns of one role, joined by newlines; "" where there is none. Reads: messages."""
    turn = pl.element().struct
    return of_turns(turn.field("content"), turn.field("role") == role).list.join("\n")


def prompt_text() -> pl.Expr:
    """Everything the model is given: system and user turns, then the context. Reads: messages, context."""
    turn = pl.element().struct
    asked = of_turns(turn.field("content"), turn.field("role") != "assistant")
    parts = [asked.list.join("\n"), pl.col("context")]
    return pl.concat_str(parts, separator="\n", ignore_nulls=True)


def response_text() -> pl.Expr:
    """Everything the model should say: the assistant turns. Reads: messages."""
    return turns_text("assistant")


def check_schema(schema: pl.Schema, expected: pl.Schema, where: str) -> None:
    """Raise StoreError that names every missing, extra and mistyped column."""
    missing = [name for name in expected if name not in schema]
    extra = [name for name in schema if name not in expected]
    mistyped = [
        f"{n} is {schema[n]} instead of {expected[n]}" for n in expected if n in schema and schema[n] != expected[n]
    ]
    problems = [
        *([f"missing columns {', '.join(missing)}"] if missing else []),
        *([f"unknown columns {', '.join(extra)}"] if extra else []),
        *mistyped,
    ]
    if problems:
        raise StoreError(where, "; ".join(problems), f"the columns of schema version {SCHEMA_VERSION}")
