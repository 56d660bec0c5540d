"""Law 4: format -> record -> format is the identity on what the format defines; `extra` carries the rest."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.ingest.formats import FORMATS
from tests.curate.ingest.conftest import DATA, Read

WORDS = st.text(max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["_alpaca", "_dolly", "_openorca", "_sharegpt", "_openai", "note", "score"]) | WORDS
MAYBE = WORDS | st.none()


def some(required: Mapping[str, st.SearchStrategy[Any]], optional: Mapping[str, st.SearchStrategy[Any]]) -> Any:
    """Rows with all of the required fields, some of the optional ones, and unknown fields besides."""
    known = {*required, *optional}
    unknown = st.dictionaries(NAMES.filter(lambda name: name not in known), VALUES, max_size=3)
    fixed = st.fixed_dictionaries(dict(required), optional=dict(optional))
    return st.builds(lambda more, row: {**more, **row}, unknown, fixed)


IDS = st.sampled_from(["flan.1", "x#2", "0" * 32 + "-1", "a", "a#1#1"]) | WORDS | st.none() | st.integers() | VALUES
TOOLS = st.lists(st.dictionaries(WORDS, VALUES, max_size=2), max_size=2)
GPT_ROLES = ["human", "gpt", "system", "tool", "observation", "user", "assistant", "Human", " GPT ", "bot", "developer"]
CALLS = st.lists(st.fixed_dictionaries({"name": WORDS, "arguments": VALUES}), min_size=1, max_size=2)
GPT_TURN = some({"from": st.sampled_from(GPT_ROLES), "value": WORDS}, {}) | some(
    {"from": st.just("function_call"), "value": CALLS.map(json.dumps) | CALLS.map(lambda c: json.dumps(c[0])) | WORDS},
    {},
)
PARTS = st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": WORDS}), max_size=3)
TOOL_CALLS = st.lists(
    st.fixed_dictionaries({"id": WORDS, "type": st.just("function"), "function": VALUES}), min_size=1, max_size=2
)
AI_TURN = (
    some(
        {
            "role": st.sampled_from(["system", "user", "assistant", "tool", "developer", "User"]),
            "content": WORDS | PARTS,
        },
        {"name": MAYBE, "tool_call_id": WORDS, "weight": st.integers(0, 1), "tool_calls": st.just([]) | st.none()},
    )
    | some({"role": st.just("assistant"), "tool_calls": TOOL_CALLS}, {"content": MAYBE | PARTS, "name": MAYBE})
    | some({"role": st.just("assistant"), "content": st.none(), "function_call": st.just({"name": "f"})}, {})
    | some({"role": st.just("assistant"), "content": st.none(), "refusal": WORDS}, {})
)
ROWS = {
    "alpaca": some({"instruction": WORDS, "output": WORDS}, {"input": MAYBE}),
    "dolly": some({"instruction": WORDS, "response": WORDS}, {"context": MAYBE, "category": MAYBE}),
    "openorca": some({"question": WORDS, "response": WORDS}, {"id": IDS, "system_prompt": MAYBE}),
    "sharegpt": some(
        {"conversations": st.lists(GPT_TURN, min_size=1, max_size=4)},
        {"id": IDS, "system": MAYBE, "tools": TOOLS | TOOLS.map(json.dumps) | st.none() | st.just("")},
    ),
    "openai": some(
        {"messages": st.lists(AI_TURN, min_size=1, max_size=4)}, {"tools": TOOLS | TOOLS.map(json.dumps) | st.none()}
    ),
}


def exact(rows: Any) -> list[str]:
    """Text that differs where 1, 1.0 and true differ."""
    return [json.dumps(row, sort_keys=True) for row in rows]


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_every_row_comes_back_as_it_was(read: Read, format: str) -> None:
    @given(st.lists(ROWS[format], min_size=1, max_size=4))
    def holds(rows: list[dict[str, Any]]) -> None:
        records = read(rows, format)
        assert [record["verdict"] for record in records] == [None] * len(rows)
        assert exact(FORMATS[format].render(record) for record in records) == exact(rows)

    holds()


@pytest.mark.parametrize(
    ("row", "roles", "context"),
    [
        ({"instruction": "q", "input": "c", "output": "a"}, ["user", "assistant"], "c"),
        ({"instruction": "q", "context": "c", "response": "a", "category": "qa"}, ["user", "assistant"], "c"),
        (
            {"id": "flan.7", "system_prompt": "", "question": "q", "response": "a"},
            ["system", "user", "assistant"],
            None,
        ),
        (
            {"system": "s", "conversations": [{"from": "human", "value": "q"}, {"from": "observation", "value": "o"}]},
            ["system", "user", "observation"],
            None,
        ),
        (
            {"messages": [{"role": "developer", "content": "s"}, {"role": "user", "content": "q"}]},
            ["developer", "user"],
            None,
        ),
    ],
)
def test_the_record_says_who_spoke(read: Read, row: dict[str, Any], roles: list[str], context: str | None) -> None:
    [record] = read([row], "auto")
    assert [turn["role"] for turn in record["messages"]] == roles
    assert record["context"] == context
    assert record["extra"] is None or "_sharegpt" in record["extra"]


def test_openorca_gives_its_id_and_the_flan_submix(read: Read) -> None:
    rows = [{"id": i, "system_prompt": "s", "question": "q", "response": "a"} for i in ("flan.7", "gpt.7", "cot.1", 5)]
    found = read(rows, "openorca")
    assert [(r["source_key"], r["category"]) for r in found] == [
        ("flan.7", "flan"),
        ("gpt.7", None),
        ("cot.1", "cot"),
        ("5", None),
    ]


def test_calls_of_tools_come_in_as_json(read: Read) -> None:
    """ShareGPT's function_call and OpenAI's tool_calls give the same record."""
    call = {"name": "add", "arguments": {"a": 1}}
    [gpt] = read([{"conversations": [{"from": "function_call", "value": json.dumps(call)}]}], "sharegpt")
    calls = [{"type": "function", "function": call}]
    [ai] = read([{"messages": [{"role": "assistant", "content": None, "tool_calls": calls}]}], "openai")
    assert gpt["messages"] == ai["messages"]
    assert json.loads(gpt["messages"][0]["tool_calls"]) == calls


def test_text_parts_are_joined(read: Read) -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    [record] = read([{"messages": [{"role": "user", "content": parts}]}], "openai")
    assert record["messages"][0]["content"] == "one two"


def test_an_edited_text_is_not_overwritten_by_the_one_it_replaced(read: Read) -> None:
    """What `extra` keeps of a turn is used only while the turn still says the same; unknown fields always."""
    parts = [{"type": "text", "text": " padded "}]
    [record] = read([{"messages": [{"role": "user", "content": parts, "weight": 1}]}], "openai")
    record["messages"][0]["content"] = "padded"
    assert FORMATS["openai"].render(record) == {"messages": [{"role": "user", "content": "padded", "weight": 1}]}


def test_a_removed_system_turn_moves_nothing_to_another_turn(read: Read) -> None:
    turns = [{"from": "system", "value": ""}, {"from": "user", "value": "q"}, {"from": "gpt", "value": "a", "score": 5}]
    [record] = read([{"conversations": turns}], "sharegpt")
    del record["messages"][0]
    assert FORMATS["sharegpt"].render(record) == {"conversations": turns[1:]}


def test_an_emptied_context_comes_back_as_an_empty_input(read: Read) -> None:
    """Normalize makes an empty context None; other programs want the field. A row without it stays without it."""
    empty, absent = read([{"instruction": "q", "input": "", "output": "a"}, {"instruction": "q", "output": "a"}])
    assert FORMATS["alpaca"].render({**empty, "context": None})["input"] == ""
    assert "input" not in FORMATS["alpaca"].render(absent)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "format", "rows"),
    [("alpaca_9k.json", "alpaca", 9229), ("dolly_3k.jsonl", "dolly", 2996), ("openorca_283.jsonl", "openorca", 284)],
)
def test_real_rows_come_back_as_they_were(read: Read, name: str, format: str, rows: int) -> None:
    """None is rejected. (openorca_283 holds 284 rows: its ids go from orca.0 to orca.283.)"""
    path: Path = DATA / name
    if not path.exists():
        pytest.skip(f"no real data at {path.parent}")
    text = path.read_text(encoding="utf-8")
    original = json.loads(text) if name.endswith(".json") else [json.loads(line) for line in text.split("\n") if line]
    records = read(path, format)
    assert len(records) == rows
    assert not [record for record in records if record["verdict"]]
    assert exact(FORMATS[format].render(record) for record in records) == exact(original)
