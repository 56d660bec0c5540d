"""Alpaca: {instruction, input, output}. `input` is the material that the instruction works on: the context."""

from collections.abc import Mapping
from typing import Any

from curate.ingest.fields import Fields, give_back, optional_text, pack, text, unpack, without_system

_NAME = "alpaca"
NEEDS = "'instruction' and 'output' (and 'input' where there is one)"

_CARRIED = ("instruction", "input", "output")
_OPTIONAL = ("input",)


def parse(row: Mapping[str, Any]) -> Fields:
    """Read one row. Raises RowError."""
    instruction, output = text(row, "instruction"), text(row, "output")
    context = optional_text(row, "input")
    plain = context is not None and len(row) == 3
    return Fields(
        [{"role": "user", "content": instruction}, {"role": "assistant", "content": output}],
        context=context,
        extra=None if plain else pack(_NAME, row, _CARRIED, _OPTIONAL),
    )


def render(record: Mapping[str, Any]) -> dict[str, Any]:
    """Write one record. Raises RowError where it does not fit. Reads: messages, context, tools, extra."""
    turn = without_system(record)
    fields = {"instruction": turn.question, "input": record["context"], "output": turn.answer}
    return give_back(fields, _OPTIONAL, unpack(_NAME, record))
