"""OpenAI messages: {messages: [{role, content, name?, tool_calls?, …}], tools?}.

`content` is text, null beside tool calls, or a list of text parts, which the record joins. Whatever else a message
holds (`tool_call_id`, `weight`, `refusal` …) is kept for its turn.
"""

import json
from collections.abc import Mapping
from typing import Any

from curate.ingest.fields import Fields, Turn, pack, unpack
from curate.ingest.row import RowError, json_text, kind
from curate.ingest.turns import clean, differences, role_name, turn_list, write_turns
from schemas.record import Message, compose

_NAME = "openai"
NEEDS = "'messages', a list of turns with 'role' and 'content' (and 'tools' where there are such)"

_TURN = frozenset({"role", "content", "name", "tool_calls", "function_call"})


def parse(row: Mapping[str, Any]) -> Fields:
    """Read one row. Raises RowError."""
    turns = turn_list(row, "messages")
    messages = [_read(turn, f"turn {i}") for i, turn in enumerate(turns, 1)]
    shape: dict[str, Any] = {}
    if changes := differences(turns, messages, _write):
        shape["turns"] = changes
    carried = {"messages"}
    tools: str | None = None
    if given := row.get("tools"):
        if isinstance(given, str):
            shape["tools"] = "text"
            tools = _json(given)
        elif isinstance(given, list):
            tools = json_text(given)
        else:
            raise RowError("ingest:wrong_type", f"'tools' is {kind(given)}; expected a list")
        carried.add("tools")
    extra = None if not shape and len(row) == len(carried) else pack(_NAME, row, carried, (), shape)
    return Fields(messages, tools=tools, extra=extra)


def _json(tools: str) -> str:
    try:
        json.loads(tools)
    except (ValueError, RecursionError):
        raise RowError("ingest:wrong_type", "'tools' is text that is not JSON") from None
    return tools


def _read(turn: Mapping[str, Any], where: str) -> Turn:
    role = role_name(turn, "role", where)
    if role == "function_call":
        raise RowError("ingest:unknown_role", f"'role' of {where} is {turn['role']!r}")
    calls = _calls(turn, where)
    silent = calls is not None or (role == "assistant" and isinstance(turn.get("refusal"), str))
    message: Turn = {"role": role, "content": _content(turn, where, silent=silent)}
    name = turn.get("name")
    if name is not None:
        if not isinstance(name, str):
            raise RowError("ingest:wrong_type", f"'name' of {where} is {kind(name)}; expected text")
        message["name"] = name
    if calls is not None:
        message["tool_calls"] = calls
    return message


def _calls(turn: Mapping[str, Any], where: str) -> str | None:
    calls = turn.get("tool_calls")
    if calls is None and turn.get("function_call") is not None:
        calls = [{"type": "function", "function": turn["function_call"]}]
    if calls is None or calls == []:
        return None
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise RowError("ingest:wrong_type", f"'tool_calls' of {where} is {kind(calls)}; expected a list of objects")
    return json_text(calls)


def _content(turn: Mapping[str, Any], where: str, *, silent: bool) -> str:
    content = turn.get("content")
    if isinstance(content, str):
        return content
    if content is None:
        if silent:
            return ""
        raise RowError("ingest:missing_field", f"'content' of {where} is {'null' if 'content' in turn else 'missing'}")
    if not isinstance(content, list):
        raise RowError("ingest:wrong_type", f"'content' of {where} is {kind(content)}; expected text or text parts")
    parts: list[str] = []
    for i, part in enumerate(content, 1):
        words = part.get("text") if isinstance(part, dict) and part.get("type", "text") == "text" else None
        if not isinstance(words, str):
            found = part.get("type", "without text") if isinstance(part, dict) else kind(part)
            raise RowError("ingest:wrong_type", f"part {i} of {where} is {found}; expected a text part")
        parts.append(words)
    return "".join(parts)


def _write(message: Turn) -> dict[str, Any]:
    calls = message.get("tool_calls")
    written: dict[str, Any] = {"role": message["role"], "content": message["content"]}
    if message.get("name") is not None:
        written["name"] = message.get("name")
    if calls:
        written["content"] = message["content"] or None
        written["tool_calls"] = json.loads(calls)
    return written


def render(record: Mapping[str, Any]) -> dict[str, Any]:
    """Write one record; a context joins the first question as it does for a trainer. Raises RowError.

    Reads: messages, context, tools, extra.
    """
    messages = clean(record["messages"])
    if not messages:
        raise RowError("no messages", "the row could not be read when it came in")
    if record["context"]:
        plain = [Message(m["role"], m["content"]) for m in messages]
        for message, composed in zip(messages, compose(plain, record["context"]), strict=True):
            message["content"] = composed.content
    extra = unpack(_NAME, record)
    fields: dict[str, Any] = {
        "messages": write_turns(messages, extra.shape.get("turns", {}), _read, _write, _TURN),
    }
    if record["tools"] is not None:
        fields["tools"] = record["tools"] if extra.shape.get("tools") == "text" else json.loads(record["tools"])
    return fields | {name: value for name, value in extra.unknown.items() if name not in fields}
