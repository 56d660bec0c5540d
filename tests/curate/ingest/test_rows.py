"""A row that cannot be read is one rejected row with place, reason and raw text; its neighbours are read."""

import json
from pathlib import Path
from typing import Any

import pytest

from curate.ingest import ingest
from curate.store import Store
from schemas.config import IngestConfig
from schemas.errors import InputError
from schemas.reasons import REASONS
from tests.curate.ingest.conftest import Read, alpaca, compressed, lines, read_back

SAMPLES = Path(__file__).parents[3] / "sample_data"
DEEP = b'{"instruction": "q", "output": "a", "x": ' + b"[" * 64 + b"]" * 64 + b"}"
FAR_TOO_DEEP = b"[" * 100_000 + b"]" * 100_000
BROKEN = {
    "cut": (b'{"instruction": "q", "output', "ingest:broken_json", "Unterminated string"),
    "no JSON": (b"nope", "ingest:broken_json", "Expecting value at character 1"),
    "two values": (b'{"instruction": "q"} {"output": "a"}', "ingest:broken_json", "after the value"),
    "NaN": (b'{"instruction": "q", "output": "a", "score": NaN}', "ingest:broken_json", "NaN is not JSON"),
    "Infinity": (b'{"instruction": "q", "output": -Infinity}', "ingest:broken_json", "Infinity is not JSON"),
    "field twice": (
        b'{"output": "a", "instruction": "q", "output": "b"}',
        "ingest:broken_json",
        "'output' stands twice",
    ),
    "control character": (b'{"instruction": "a\tb", "output": "a"}', "ingest:broken_json", "control character"),
    "endless number": (b'{"instruction": "q", "output": ' + b"7" * 5000 + b"}", "ingest:broken_json", "digits"),
    "NUL": (b"\0\0\0", "ingest:broken_json", "Expecting value"),
    "array": (b"[1, 2]", "ingest:not_an_object", "a list"),
    "null": (b"null", "ingest:not_an_object", "null"),
    "text": (b'"hello"', "ingest:not_an_object", "text"),
    "missing": (b'{"instruction": "q", "input": ""}', "ingest:missing_field", "'output' is missing"),
    "null field": (b'{"instruction": null, "output": "a"}', "ingest:missing_field", "'instruction' is null"),
    "number": (b'{"instruction": "q", "output": 5}', "ingest:wrong_type", "'output' is a number"),
    "bool": (b'{"instruction": "q", "output": true}', "ingest:wrong_type", "true or false"),
    "wrong input": (b'{"instruction": "q", "input": [], "output": "a"}', "ingest:wrong_type", "'input' is a list"),
    "Latin-1": (b'{"instruction": "caf\xe9", "output": "a"}', "ingest:bad_encoding", "not UTF-8"),
    "half a pair": (b'{"instruction": "\\ud83d", "output": "a"}', "ingest:bad_unicode", "surrogate"),
    "half a pair in a name": (b'{"instruction": "q", "output": "a", "\\udfff": 1}', "ingest:bad_unicode", "surrogate"),
    "half a pair in a missing field": (b'{"\\udfff": "q", "output": "a"}', "ingest:bad_unicode", "surrogate"),
    "deep": (DEEP, "ingest:too_deep", "64 levels"),
    "far too deep": (FAR_TOO_DEEP, "ingest:too_deep", "64 levels"),
    "open brackets": (b"[" * 100_000, "ingest:too_deep", "64 levels"),
}


@pytest.mark.parametrize(("row", "reason", "says"), BROKEN.values(), ids=BROKEN)
def test_a_broken_line_is_one_rejected_row(read: Read, row: bytes, reason: str, says: str) -> None:
    first, broken, last = read(lines(alpaca(1), row + b"\n", alpaca(3)))
    assert (first["verdict"], last["verdict"], broken["verdict"]) == (None, None, reason)
    assert reason in REASONS
    assert says in broken["detail"]
    assert broken["detail"].startswith("rows.jsonl, line 2: ")
    assert (broken["source_row"], broken["messages"]) == (2, [])
    assert broken["extra"] == row.decode("utf-8", "backslashreplace")


def test_64_levels_are_read(read: Read) -> None:
    rows = read(lines(DEEP.replace(b"[[", b"[", 1).replace(b"]]", b"]", 1) + b"\n"))
    assert rows[0]["verdict"] is None


BALANCED = {name: case for name, case in BROKEN.items() if name not in ("cut", "two values", "open brackets")}


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize(("row", "reason", "says"), BALANCED.values(), ids=BALANCED)
def test_a_broken_element_is_one_rejected_row(read: Read, row: bytes, reason: str, says: str, position: int) -> None:
    elements = [json.dumps(alpaca(i)).encode() for i in range(2)]
    elements.insert(position, row)
    records = read(b"[\n" + b",\n".join(elements) + b"\n]\n", name="rows.json")
    expected = [None, None]
    expected.insert(position, reason)
    assert [r["verdict"] for r in records] == expected
    broken = records[position]
    assert says in broken["detail"]
    assert broken["extra"] == row.decode("utf-8", "backslashreplace")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param((b'"output": "It is 3."', b'"output": "It is 3.'), id="quote lost at the end"),
        pytest.param((b'"What is 2', b"What is 2"), id="quote lost at the beginning"),
        pytest.param((b'"It is 3."}', b'"It is 3."'), id="brace lost"),
        pytest.param((b'"It is 3."}', b'"It is 3."}}'), id="brace too many"),
        pytest.param((b'"It is 3."}', b'"It is 3."]'), id="wrong bracket"),
        pytest.param((b'"input": "", "output": "It is 3.', b'"input": "" "output": "It is 3.'), id="comma lost"),
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_reading_goes_on_after_a_broken_element(read: Read, change: tuple[bytes, bytes], indent: int | None) -> None:
    """Whether quotes and brackets balance or not, and on one line as well as on many."""
    text = json.dumps([alpaca(i) for i in range(6)]).encode()
    assert text.count(change[0]) == 1
    text = text.replace(*change)
    if indent:
        text = text.replace(b"}, {", b"},\n {").replace(b'", "', b'",\n  "')
    records = read(text, name="rows.json")
    assert [r["verdict"] for r in records] == [None, None, "ingest:broken_json", None, None, None]
    assert "It is 3" in records[2]["extra"]
    assert "It is 4" not in records[2]["extra"]


@pytest.mark.parametrize(
    ("turn", "reason", "says"),
    [
        ({"from": "alien", "value": "x"}, "ingest:unknown_role", "'alien'"),
        ({"from": 7, "value": "x"}, "ingest:wrong_type", "'from' of turn 2 is a number"),
        ({"value": "x"}, "ingest:missing_field", "'from' of turn 2 is missing among 'value'"),
        ({"from": "gpt", "value": None}, "ingest:missing_field", "'value' of turn 2 is null"),
        ({"from": "gpt", "value": {"a": 1}}, "ingest:wrong_type", "'value' of turn 2 is an object"),
        ("hello", "ingest:wrong_type", "turn 2 is text"),
    ],
)
def test_a_broken_turn_is_named(read: Read, turn: Any, reason: str, says: str) -> None:
    human = {"from": "human", "value": "q"}
    _, broken = read([{"conversations": [human]}, {"conversations": [human, turn]}], "sharegpt")
    assert broken["verdict"] == reason
    assert says in broken["detail"]


@pytest.mark.parametrize(
    ("row", "reason", "says"),
    [
        ({"messages": []}, "ingest:no_messages", "empty list"),
        ({"messages": "hello"}, "ingest:wrong_type", "'messages' is text"),
        ({"messages": [{"role": "user", "content": None}]}, "ingest:missing_field", "'content' of turn 1 is null"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "ingest:wrong_type", "image_url"),
        ({"messages": [{"role": "user", "content": "q", "name": 5}]}, "ingest:wrong_type", "'name' of turn 1"),
        ({"messages": [{"role": "function_call", "content": "q"}]}, "ingest:unknown_role", "function_call"),
        ({"messages": [{"role": "user", "content": "q"}], "tools": "{"}, "ingest:wrong_type", "not JSON"),
        ({"messages": [{"role": "assistant", "tool_calls": ["x"]}]}, "ingest:wrong_type", "tool_calls"),
    ],
)
def test_a_broken_message_is_named(read: Read, row: Any, reason: str, says: str) -> None:
    _, broken = read([{"messages": [{"role": "user", "content": "q"}]}, row], "openai")
    assert broken["verdict"] == reason
    assert says in broken["detail"]


def test_blank_lines_are_no_rows_but_count_as_lines(read: Read) -> None:
    rows = read(b"\xef\xbb\xbf\r\n" + lines(alpaca(1)).replace(b"\n", b"\r\n") + b"\n \t\n" + lines(alpaca(2)))
    assert [(r["source_row"], r["verdict"]) for r in rows] == [(2, None), (5, None)]


def test_csv_rows_that_break_the_rules_are_rejected(read: Read) -> None:
    content = b'instruction,output\r\nq,"a ""b""\r\nc"\r\nq\r\nq,"a"b\r\n\r\ncaf\xe9,a\r\nq,a\0\r\n'
    rows = read(content, name="rows.csv")
    reasons = [None, "ingest:wrong_columns", "ingest:broken_csv", "ingest:bad_encoding", None]
    assert [r["verdict"] for r in rows] == reasons
    assert [r["source_row"] for r in rows] == [1, 2, 3, 4, 5]
    assert rows[0]["messages"][1]["content"] == 'a "b"\r\nc'
    assert rows[3]["extra"] == "caf\\xe9,a"


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet"])
def test_a_row_above_the_limit_is_rejected_and_its_neighbours_are_read(read: Read, name: str) -> None:
    rows = [alpaca(1), {**alpaca(2), "output": "long " * 500_000}, alpaca(3)]
    first, long, last = read(rows, name=name, max_row_mb=1)
    assert (first["verdict"], long["verdict"], last["verdict"]) == (None, "ingest:too_long", None)
    assert "1 MB" in long["detail"]
    assert len(long["extra"]) < 3_000
    assert read(rows, name=name, max_row_mb=3)[1]["verdict"] is None


@pytest.mark.parametrize("name", ["rows.jsonl.zst", "rows.json.zst"])
def test_a_single_line_of_50_mb_is_a_row(read: Read, name: str) -> None:
    body = json.dumps({**alpaca(1), "output": "0123456789" * 5_000_000}).encode()
    text = b"[" + body + b"]" if ".json." in name else body
    [row] = read(compressed(text, ".zst"), name=name)
    assert row["verdict"] is None
    assert len(row["messages"][1]["content"]) == 50_000_000


@pytest.mark.parametrize("content", [lines(alpaca(1), b"{\n"), lines(alpaca(1), {"instruction": "q"})])
def test_strict_stops_at_the_first_row_that_cannot_be_read(read: Read, content: bytes) -> None:
    with pytest.raises(InputError, match=r"rows\.jsonl, line 2: .*--strict.*Nothing was committed"):
        read(content, strict=True)


def test_ids_that_repeat_are_kept_and_counted(store: Store, tmp_path: Path) -> None:
    rows = [{"id": i, "question": "q", "response": "a"} for i in ("a", "a", "a#2", "a", "b", 5, "5")]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines(*rows))
    found = ingest(store, [str(path)], "openorca", IngestConfig())
    assert [r["source_key"] for r in read_back(store, found)] == ["a", "a#2", "a#2#1", "a#3", "b", "5", "5#2"]
    assert any("3 rows repeat the id" in note for note in found.notes)


def test_a_broken_row_keeps_its_own_id(read: Read) -> None:
    """When its source mends it, the row is restored and not a new one."""
    rows = [{"id": "x", "question": "q"}, {"id": "y", "question": "q", "response": "a"}]
    assert [r["source_key"] for r in read(rows, "openorca")] == ["x", "y"]


@pytest.mark.parametrize("file", ["alpaca.json", "dolly.jsonl", "openorca.jsonl"])
def test_the_planted_rows_of_the_samples_are_rejected_and_no_others(read: Read, file: str) -> None:
    expected = json.loads((SAMPLES / "expected.json").read_text(encoding="utf-8"))
    facts = expected[file.partition(".")[0]]
    records = read(SAMPLES / file, "auto")
    planted = {
        p["row"]: p["expect"]["reject_reason"]
        for p in facts["planted"]
        if p["expect"].get("reject_reason", "").startswith("ingest:")
    }
    assert len(records) == facts["rows"]
    assert {r["source_row"]: r["verdict"] for r in records if r["verdict"]} == planted
