"""Rows as training tools read them: a conversation in `messages`, and what people need to know where it comes from.

The columns are what `datasets` and TRL expect: `messages` is a list of {role, content}, with `name` and `tool_calls`
only where some row has them, and `tools` is JSON text. The context stands in the first user turn, as it does for our
own trainer (schemas.record.compose), and beside it in `context`. The fields that a format does not define (`extra`) and
the names of files stay behind: no stage has looked at them.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl
import pyarrow as pa

from schemas.dataset import Dataset, Shard
from schemas.record import record_of

SLICE_ROWS = 4_096
"""Rows that are turned into Python values at a time."""

CALLS = pa.list_(
    pa.struct(
        [
            ("id", pa.string()),
            ("type", pa.string()),
            ("function", pa.struct([("name", pa.string()), ("arguments", pa.string())])),
        ]
    )
)
"""Tool calls as OpenAI's chat API has them; the arguments are JSON text, as tools differ in what they take."""

COLUMNS: dict[str, str] = {
    "id": "Lineage id of the row: 32 hex digits that stay the same through edits and versions.",
    "messages": "The conversation: turns with a role (system, user, assistant, tool) and their content.",
    "source": "Name of the source that the row comes from.",
    "category": "Category that the source gave the row, where it has one.",
    "context": "Material that the first user turn works on; it stands at the end of that turn, too.",
    "tools": "JSON of the tool definitions, where the conversation has tools.",
    "language": "Language of the answer (ISO 639-1), null where it is not certain.",
    "task": "Kind of task, recognised from the prompt.",
    "quality": "Heuristic quality from 0 to 1, made of cheap measures of form.",
    "weight": "How often the row is seen in an epoch.",
    "name": "Name of the speaker or the tool, where there is one.",
    "tool_calls": "Calls of tools that the turn makes.",
}
"""What each column, and each field of a turn, holds, in one sentence."""


@dataclass(frozen=True)
class Shape:
    """Which of the parts that are not always there the rows of a version have.

    `tool_calls`: "calls" where all are of the form `CALLS`, "text" (JSON) where some are not, None without any.
    """

    names: bool
    tools: bool
    tool_calls: Literal["calls", "text"] | None
    signals: bool
    weights: bool

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the joined view that are read."""
        more = (*(("language", "task", "quality") if self.signals else ()), *(("weight",) if self.weights else ()))
        return ("id", "source", "messages", "category", "context", "tools", *more)

    @property
    def schema(self) -> Any:
        """The schema of the files, a `pyarrow.Schema` (pyarrow ships no types)."""
        turn = [("role", pa.string()), ("content", pa.string())]
        turn += [("name", pa.string())] if self.names else []
        turn += [("tool_calls", CALLS if self.tool_calls == "calls" else pa.string())] if self.tool_calls else []
        fields = [("id", pa.string()), ("messages", pa.list_(pa.struct(turn)))]
        fields += [(name, pa.string()) for name in ("source", "category", "context")]
        fields += [("tools", pa.string())] if self.tools else []
        fields += [("language", pa.string()), ("task", pa.string()), ("quality", pa.float32())] if self.signals else []
        fields += [("weight", pa.float32())] if self.weights else []
        return pa.schema(fields)


def shape_of(dataset: Dataset) -> Shape:
    """Look which parts the kept rows of a version have. Reads: messages, tools, weight, kept."""
    names = tools = weights = False
    stages = {stage for shard in dataset.shards for stage in shard.annotations}
    calls: set[str] = set()
    for shard in dataset.shards:
        kept = shard.view(["messages", "tools", "weight", "kept"]).filter("kept").collect()
        turns = kept["messages"].explode(empty_as_null=True).struct.unnest()
        names |= turns["name"].is_not_null().any()
        tools |= kept["tools"].is_not_null().any()
        calls.update(turns["tool_calls"].drop_nulls().unique())
        weights |= kept["weight"].is_not_null().any()
    form = ("calls" if all(_calls(text) is not None for text in calls) else "text") if calls else None
    return Shape(names, tools, form, "signals" in stages, weights)


def _calls(text: str) -> list[dict[str, Any]] | None:
    """Read tool calls in the form `CALLS`; None where they say more than it can hold, or something else."""
    found: list[dict[str, Any]] = []
    for call in json.loads(text):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return None
        if set(call) - {"id", "type", "function"} or set(function) - {"name", "arguments"}:
            return None
        if any(not isinstance(call.get(key), str | None) for key in ("id", "type")):
            return None
        arguments = function.get("arguments")
        told = arguments if isinstance(arguments, str | None) else json.dumps(arguments, ensure_ascii=False)
        function = {"name": function["name"], "arguments": told}
        found.append({"id": call.get("id"), "type": call.get("type"), "function": function})
    return found


def published(shard: Shard, shape: Shape, *, split: str | None) -> Iterator[Any]:
    """Give the kept rows of a shard, of one split (None: all), as `pyarrow.Table`s, in the order of the source.

    Reads: the columns of `shape`, kept, split.
    """
    rows = shard.view([*shape.columns, "kept", *(["split"] if split else [])]).filter("kept")
    if split:
        rows = rows.filter(pl.col("split") == split)
    frame = rows.with_columns(pl.selectors.float().fill_nan(None)).collect()
    for part in frame.iter_slices(SLICE_ROWS):
        yield pa.Table.from_pylist([_row(row, shape) for row in part.iter_rows(named=True)], schema=shape.schema)


def _row(row: Mapping[str, Any], shape: Shape) -> dict[str, Any]:
    record = record_of(row)
    turns: list[dict[str, Any]] = []
    for message in record.messages:
        turn: dict[str, Any] = {"role": message.role, "content": message.content}
        if shape.names:
            turn["name"] = message.name
        if shape.tool_calls:
            calls = message.tool_calls
            turn["tool_calls"] = _calls(calls) if calls and shape.tool_calls == "calls" else calls
        turns.append(turn)
    more = {"messages": turns, "context": row["context"] or None}
    return {name: row[name] for name in shape.columns} | more | ({"weight": record.weight} if shape.weights else {})
