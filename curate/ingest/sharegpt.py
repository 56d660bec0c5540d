"""ShareGPT: {conversations: [{from, value}], id?, system?, tools?}.

`human` and `gpt` are user and assistant; other names of roles stay as they are until normalize. A `function_call` turn
is an assistant turn that calls tools: its JSON becomes `tool_calls`. `system` beside the turns becomes the first one.
"""

import json
from collections.abc import Mapping
from typing import Any

from curate.ingest.fields import Fields, Turn, own_id, pack, text, unpack, usable_id
from curate.ingest.row import RowError, json_text, kind
from curate.ingest.turns import clean, differences, role_name, turn_list, write_turns
from schemas.record import Message, compose

_NAME = "sharegpt"
NEEDS = "'conversations', a list of turns with 'from' and 'value' (and 'id', 'system', 'tools' where there are such)"

_FROM_TO_ROLE = {"human": "user", "gpt": "assistant"}
_ROLE_TO_FROM = {role: name for name, role in _FROM_TO_ROLE.items()}
_TURN = frozenset({"from", "value"})


def parse(row: Mapping[str, Any]) -> Fields:
    """Read one row. Raises RowError."""
    turns = turn_list(row, "conversations")
    messages = [_read(turn, f"turn {i}") for i, turn in enumerate(turns, 1)]
    shape: dict[str, Any] = {}
    if changes := differences(turns, messages, _write):
        shape["turns"] = changes
    carried = {"conversations"}
    system = row.get("system")
    if system is not None:
        messages.insert(0, {"role": "system", "content": text(row, "system")})
        shape["system"] = True
        carried.add("system")
    tools = _tools(row.get("tools"))
    if tools is not None:
        carried.add("tools")
        if not isinstance(row["tools"], str):
            shape["tools"] = "json"
    if usable_id(row.get("id")):
        carried.add("id")
        if not isinstance(row["id"], str):
            shape["id"] = row["id"]
    extra = None if not shape and len(row) == len(carried) else pack(_NAME, row, carried, (), shape)
    return Fields(messages, tools=tools, extra=extra)


def _tools(value: Any) -> str | None:
    if value is None or value in ("", []):
        return None
    if isinstance(value, str):
        try:
            json.loads(value)
        except (ValueError, RecursionError):
            raise RowError("ingest:wrong_type", "'tools' is text that is not JSON") from None
        return value
    if isinstance(value, list | dict):
        return json_text(value)
    raise RowError("ingest:wrong_type", f"'tools' is {kind(value)}; expected JSON text or a list")


def _read(turn: Mapping[str, Any], where: str) -> Turn:
    name = role_name(turn, "from", where)
    value = turn.get("value")
    if value is None:
        raise RowError("ingest:missing_field", f"'value' of {where} is {'null' if 'value' in turn else 'missing'}")
    if not isinstance(value, str):
        raise RowError("ingest:wrong_type", f"'value' of {where} is {kind(value)}; expected text")
    if name == "function_call":
        calls = _calls(value)
        return {"role": "assistant", "content": "" if calls else value, "tool_calls": calls}
    return {"role": _FROM_TO_ROLE.get(name, name), "content": value}


def _calls(value: str) -> str | None:
    """Read the JSON of a function_call turn, {name, arguments} or a list of such, as OpenAI's tool_calls."""
    try:
        calls = json.loads(value)
    except (ValueError, RecursionError):
        return None
    calls = calls if isinstance(calls, list) else [calls]
    if not calls or not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        return None
    return json_text([{"type": "function", "function": call} for call in calls])


def _write(message: Turn) -> dict[str, Any]:
    calls = message.get("tool_calls")
    if calls:
        if message["content"]:
            raise RowError("text and tool call in one turn", "a turn is either of them")
        made = [call.get("function", call) for call in json.loads(calls)]
        return {"from": "function_call", "value": json_text(made[0] if len(made) == 1 else made)}
    return {"from": _ROLE_TO_FROM.get(message["role"], message["role"]), "value": message["content"]}


def render(record: Mapping[str, Any]) -> dict[str, Any]:
    """Write one record; a context joins the first question as it does for a trainer. Raises RowError.

    Reads: source_key, messages, context, tools, extra.
    """
    messages = clean(record["messages"])
    if not messages:
        raise RowError("no messages", "the row could not be read when it came in")
    if record["context"]:
        plain = [Message(m["role"], m["content"]) for m in messages]
        for message, composed in zip(messages, compose(plain, record["context"]), strict=True):
            message["content"] = composed.content
    extra = unpack(_NAME, record)
    fields: dict[str, Any] = {}
    key = own_id(record, extra)
    if key is not None:
        fields["id"] = key
    if extra.shape.get("system") and messages[0]["role"] == "system":
        fields["system"] = messages.pop(0)["content"]
    fields["conversations"] = write_turns(messages, extra.shape.get("turns", {}), _read, _write, _TURN)
    if record["tools"] is not None:
        fields["tools"] = json.loads(record["tools"]) if extra.shape.get("tools") == "json" else record["tools"]
    return fields | {name: value for name, value in extra.unknown.items() if name not in fields}
