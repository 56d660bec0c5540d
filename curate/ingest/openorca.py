"""OpenOrca: {id, system_prompt, question, response}. The part of `id` before the dot names the FLAN submix."""

from collections.abc import Mapping
from typing import Any

from curate.ingest.fields import (
    Fields,
    Turn,
    give_back,
    optional_text,
    own_id,
    pack,
    single_turn,
    text,
    unpack,
    usable_id,
)
from schemas.record import Message, compose

_NAME = "openorca"
NEEDS = "'question' and 'response' (and 'id', 'system_prompt' where there are such)"
SUBMIXES = frozenset({"niv", "t0", "cot", "flan"})
"""The FLAN submixes that OpenOrca's ids begin with (the data card of Open-Orca/OpenOrca)."""

_CARRIED = frozenset({"id", "system_prompt", "question", "response"})
_OPTIONAL = ("system_prompt",)


def parse(row: Mapping[str, Any]) -> Fields:
    """Read one row. Raises RowError. A system prompt stays even when it is empty: normalize removes such."""
    question, response = text(row, "question"), text(row, "response")
    system = optional_text(row, "system_prompt")
    key = row.get("id")
    messages: list[Turn] = [{"role": "user", "content": question}, {"role": "assistant", "content": response}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    prefix = key.partition(".")[0] if isinstance(key, str) else ""
    plain = isinstance(key, str) and key != "" and system is not None and len(row) == 4
    return Fields(
        messages,
        category=prefix if prefix in SUBMIXES else None,
        extra=None if plain else _extra(row, key),
    )


def _extra(row: Mapping[str, Any], key: Any) -> dict[str, Any] | None:
    carried = _CARRIED if usable_id(key) else _CARRIED - {"id"}
    return pack(_NAME, row, carried, _OPTIONAL, {"id": key} if isinstance(key, int) and usable_id(key) else None)


def render(record: Mapping[str, Any]) -> dict[str, Any]:
    """Write one record; a context joins the question as it does for a trainer. Raises RowError where it does not fit.

    Reads: source_key, messages, context, tools, extra.
    """
    turn = single_turn(record)
    question = compose((Message("user", turn.question),), record["context"])[0].content
    extra = unpack(_NAME, record)
    key = own_id(record, extra)
    fields: dict[str, Any] = {} if key is None else {"id": key}
    fields |= {"system_prompt": turn.system, "question": question, "response": turn.answer}
    return give_back(fields, _OPTIONAL, extra)
