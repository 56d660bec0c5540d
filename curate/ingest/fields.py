"""What the format modules share: the fields of a record that a row gives, and what becomes of all the others.

A row's unknown fields go to `extra` as they are. What a format defines and the record has no place for (a field that
was absent rather than empty, a role by another name, content in parts) goes to one reserved field of `extra`, named
`_FORMAT`, and only this format's `render` reads it: format -> record -> format is then the identity.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict, TypeGuard

from curate.ingest.row import RowError, kind
from schemas.record import ROLE_NAMES

RESERVED = frozenset({"_alpaca", "_dolly", "_openorca", "_sharegpt", "_openai"})


class Turn(TypedDict):
    """One message as `schemas.record.MESSAGE` has it."""

    role: str
    content: str
    name: NotRequired[str | None]
    tool_calls: NotRequired[str | None]


@dataclass(slots=True)
class Fields:
    """What a format reads from one row."""

    messages: list[Turn]
    context: str | None = None
    tools: str | None = None
    category: str | None = None
    extra: dict[str, Any] | None = None


@dataclass(slots=True)
class Extra:
    """`extra`, taken apart: the unknown fields, and what one format kept for itself."""

    unknown: dict[str, Any] = field(default_factory=dict[str, Any])
    shape: dict[str, Any] = field(default_factory=dict[str, Any])


def text(row: Mapping[str, Any], name: str) -> str:
    """Give a text that the format needs. Raises RowError when it is missing, null or no text."""
    value = row.get(name)
    if value.__class__ is str:
        return value  # pyright: ignore[reportReturnType] - the class was just compared; isinstance costs twice as much
    if value is None:
        found = "null" if name in row else f"missing among {', '.join(map(repr, list(row)[:12])) or 'no fields'}"
        raise RowError("ingest:missing_field", f"{name!r} is {found}")
    raise RowError("ingest:wrong_type", f"{name!r} is {kind(value)}; expected text")


def optional_text(row: Mapping[str, Any], name: str) -> str | None:
    """Give a text that may be missing or null. Raises RowError when it is something else."""
    value = row.get(name)
    if value is None or value.__class__ is str:
        return value
    raise RowError("ingest:wrong_type", f"{name!r} is {kind(value)}; expected text or null")


def usable_id(value: Any) -> TypeGuard[str | int]:
    """Whether a value can name a row: a text that is not empty, or a whole number."""
    return (isinstance(value, str) and value != "") or (isinstance(value, int) and not isinstance(value, bool))


def pack(
    name: str,
    row: Mapping[str, Any],
    carried: Collection[str],
    optional: Sequence[str] = (),
    shape: dict[str, Any] | None = None,
) -> dict[str, Any] | None:
    """Collect what the record does not carry: unknown fields, optional ones that are null, marks of absent ones."""
    extra = {key: value for key, value in row.items() if key not in carried or value is None}
    shape = shape or {}
    missing = [key for key in optional if key not in row]
    if missing:
        shape["missing"] = missing
    taken = {key: extra.pop(key) for key in RESERVED.intersection(extra)}
    if taken:
        shape["fields"] = taken
    if shape:
        extra[f"_{name}"] = shape
    return extra or None


def unpack(name: str, record: Mapping[str, Any]) -> Extra:
    """Take `extra` apart again for one format. Reads: extra."""
    raw = record["extra"]
    if not raw:
        return Extra()
    try:
        unknown = json.loads(raw)
    except (ValueError, RecursionError):
        return Extra()
    if not isinstance(unknown, dict):
        return Extra()
    own: dict[str, Any] = {}
    for key in RESERVED.intersection(unknown):
        shape = unknown.pop(key)
        if isinstance(shape, dict):
            unknown.update(shape.get("fields", {}))
            own = shape if key == f"_{name}" else own
    return Extra(unknown, own)


def give_back(fields: dict[str, Any], optional: Sequence[str], extra: Extra) -> dict[str, Any]:
    """Join a rendered row with its unknown fields. Optional fields that are None here are "", null or absent.

    Null where the row had null, absent where it had none, and "" otherwise: normalize makes empty texts None, and other
    programs want the field to be there.
    """
    missing = extra.shape.get("missing", ())
    for key in optional:
        if fields[key] is None:
            if key in missing or extra.unknown.get(key, "") is None:
                del fields[key]
            else:
                fields[key] = ""
    return fields | {key: value for key, value in extra.unknown.items() if key not in fields}


def canonical_role(role: str) -> str:
    """Give system, user, assistant or tool for any known name of it."""
    return ROLE_NAMES.get(role, role)


@dataclass(frozen=True, slots=True)
class SingleTurn:
    """A conversation of one question and one answer."""

    system: str | None
    question: str
    answer: str


def single_turn(record: Mapping[str, Any]) -> SingleTurn:
    """Give the one question and answer of a record. Raises RowError with the reason where there is more, or less.

    Reads: messages, tools.
    """
    turns = record["messages"]
    if not turns:
        raise RowError("no messages", "the row could not be read when it came in")
    if record["tools"] or any(turn.get("tool_calls") for turn in turns):
        raise RowError("tools", "the conversation uses tools")
    roles = [canonical_role(turn["role"]) for turn in turns]
    if roles == ["user", "assistant"]:
        return SingleTurn(None, turns[0]["content"], turns[1]["content"])
    if roles == ["system", "user", "assistant"]:
        return SingleTurn(turns[0]["content"], turns[1]["content"], turns[2]["content"])
    if roles.count("user") > 1 or roles.count("assistant") > 1:
        raise RowError("several turns", f"{len(turns)} turns; one question and one answer fit")
    raise RowError("other roles", f"turns of {', '.join(roles)}; one question and one answer fit")


def without_system(record: Mapping[str, Any]) -> SingleTurn:
    """Give the one question and answer of a record without a system prompt. Raises RowError. Reads: messages, tools."""
    turn = single_turn(record)
    if turn.system and turn.system.strip():
        raise RowError("system prompt", "the format has no place for a system prompt")
    return turn


RAW_KEY = re.compile(r"[0-9a-f]{32}-[1-9][0-9]*")
NUMBERED = re.compile(r"(.*)#([1-9][0-9]*)", re.DOTALL)


def own_id(record: Mapping[str, Any], extra: Extra) -> str | int | None:
    """Give the id that the source itself gave the row; None where it gave none. Reads: source_key."""
    if "id" in extra.shape:
        return extra.shape["id"]
    key: str = record["source_key"]
    if RAW_KEY.fullmatch(key):
        return None
    numbered = NUMBERED.fullmatch(key)
    return numbered[1] if numbered else key
