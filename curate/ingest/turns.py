"""Turns of a conversation format, and what a record's message has no place for.

A format says how a turn is read and how a message is written. What writing the message would not give back is kept by
turn: fields to set, and fields that were not there. It is put back only where the result still reads as the message,
so that an edited text is never overwritten by the one it replaced.

Turns are counted apart for the system and for everyone else: normalize removes empty system turns, and nothing else.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from curate.ingest.fields import Turn, canonical_role
from curate.ingest.row import RowError, kind
from schemas.record import ROLE_NAMES, ROLES

ReadTurn = Callable[[Mapping[str, Any], str], Turn]
WriteTurn = Callable[[Turn], dict[str, Any]]

_NAMES = frozenset(ROLES) | ROLE_NAMES.keys()


def role_name(turn: Mapping[str, Any], field: str, where: str) -> str:
    """Give the role of a turn by its name in lower case. Raises RowError where it is missing or not known."""
    value = turn.get(field)
    if value is None:
        found = "null" if field in turn else f"missing among {', '.join(map(repr, list(turn)[:8])) or 'no fields'}"
        raise RowError("ingest:missing_field", f"{field!r} of {where} is {found}")
    if not isinstance(value, str):
        raise RowError("ingest:wrong_type", f"{field!r} of {where} is {kind(value)}; expected text")
    name = value.strip().lower()
    if name not in _NAMES and name != "function_call":
        raise RowError("ingest:unknown_role", f"{field!r} of {where} is {value[:80]!r}")
    return name


def turn_list(row: Mapping[str, Any], field: str) -> list[Mapping[str, Any]]:
    """Give the turns of a row. Raises RowError where they are not a list of objects, or none."""
    turns = row.get(field)
    if turns is None:
        found = "null" if field in row else f"missing among {', '.join(map(repr, list(row)[:12])) or 'no fields'}"
        raise RowError("ingest:missing_field", f"{field!r} is {found}")
    if not isinstance(turns, list):
        raise RowError("ingest:wrong_type", f"{field!r} is {kind(turns)}; expected a list of turns")
    if not turns:
        raise RowError("ingest:no_messages", f"{field!r} is an empty list")
    for i, turn in enumerate(turns, 1):
        if not isinstance(turn, dict):
            raise RowError("ingest:wrong_type", f"turn {i} is {kind(turn)}; expected an object")
    return turns


def difference(turn: Mapping[str, Any], written: Mapping[str, Any]) -> dict[str, Any] | None:
    """Give what writing the message does not give back: fields to set, and fields that were not there."""
    if turn == written:
        return None
    change: dict[str, Any] = {}
    put = {key: value for key, value in turn.items() if key not in written or written[key] != value}
    gone = [key for key in written if key not in turn]
    if put:
        change["set"] = put
    if gone:
        change["gone"] = gone
    return change or None


def _places(roles: Sequence[str]) -> list[str]:
    counts = {True: 0, False: 0}
    places: list[str] = []
    for role in roles:
        system = canonical_role(role) == "system"
        places.append(f"{'s' if system else ''}{counts[system]}")
        counts[system] += 1
    return places


def differences(
    turns: Sequence[Mapping[str, Any]], messages: Sequence[Turn], write: WriteTurn
) -> dict[str, dict[str, Any]]:
    """Collect the differences of all turns, by place."""
    found = [difference(turn, write(message)) for turn, message in zip(turns, messages, strict=True)]
    if not any(found):
        return {}
    places = _places([message["role"] for message in messages])
    return {place: change for place, change in zip(places, found, strict=True) if change}


def write_turns(
    messages: Sequence[Turn],
    changes: Mapping[str, Mapping[str, Any]],
    read: ReadTurn,
    write: WriteTurn,
    defined: Collection[str],
) -> list[dict[str, Any]]:
    """Write the messages, each with what was kept for it. `defined` are the fields that the format itself defines."""
    if not changes:
        return [write(message) for message in messages]
    written: list[dict[str, Any]] = []
    for message, place in zip(messages, _places([m["role"] for m in messages]), strict=True):
        plain = write(message)
        change = changes.get(place)
        written.append(plain if change is None else _changed(message, plain, change, read, defined))
    return written


def _changed(
    message: Turn, plain: dict[str, Any], change: Mapping[str, Any], read: ReadTurn, defined: Collection[str]
) -> dict[str, Any]:
    put: dict[str, Any] = change.get("set", {})
    gone = change.get("gone", ())
    original = {key: value for key, value in (plain | put).items() if key not in gone}
    try:
        again = read(original, "the turn")
    except RowError:
        again = None
    if again is not None and _same(again, message):
        return original
    return plain | {key: value for key, value in put.items() if key not in defined}


def _same(a: Turn, b: Turn) -> bool:
    roles = canonical_role(a["role"]) == canonical_role(b["role"])
    return (
        roles
        and a["content"] == b["content"]
        and a.get("name") == b.get("name")
        and a.get("tool_calls") == b.get("tool_calls")
    )


def clean(messages: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """Give the messages of a record as turns. Reads: messages."""
    return [
        {"role": m["role"], "content": m["content"], "name": m.get("name"), "tool_calls": m.get("tool_calls")}
        for m in messages
    ]
