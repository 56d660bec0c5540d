"""Dolly: {instruction, context, response, category}."""

from collections.abc import Mapping
from typing import Any

from curate.ingest.fields import Fields, give_back, optional_text, pack, text, unpack, without_system

_NAME = "dolly"
NEEDS = "'instruction' and 'response' (and 'context', 'category' where there are such)"

_CARRIED = ("instruction", "context", "response", "category")
_OPTIONAL = ("context",)


def parse(row: Mapping[str, Any]) -> Fields:
    """Read one row. Raises RowError."""
    instruction, response = text(row, "instruction"), text(row, "response")
    context, category = optional_text(row, "context"), optional_text(row, "category")
    plain = context is not None and category is not None and len(row) == 4
    return Fields(
        [{"role": "user", "content": instruction}, {"role": "assistant", "content": response}],
        context=context,
        category=category,
        extra=None if plain else pack(_NAME, row, _CARRIED, _OPTIONAL),
    )


def render(record: Mapping[str, Any]) -> dict[str, Any]:
    """Write one record. Raises RowError where it does not fit. Reads: messages, context, tools, category, extra."""
    turn = without_system(record)
    fields = {"instruction": turn.question, "context": record["context"], "response": turn.answer}
    if record["category"] is not None:
        fields["category"] = record["category"]
    return give_back(fields, _OPTIONAL, unpack(_NAME, record))
