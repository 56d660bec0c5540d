"""Each container gives the same rows, streams them, and says clearly when it is damaged."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.ingest import ingest
from curate.store import Store
from schemas.config import IngestConfig
from schemas.errors import InputError
from tests.curate.ingest.conftest import COMPRESSIONS, CONTAINERS, Read, alpaca, compressed, lines, write_rows

ROWS = [alpaca(i) for i in range(20)]
NUMBERED = list(range(1, 21))


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_gives_the_same_ids(read: Read, container: str, compression: str) -> None:
    records = read(ROWS, name=f"rows.{container}{compression}")
    assert [r["id"] for r in records] == [r["id"] for r in read(ROWS)]
    assert [r["source_row"] for r in records] == NUMBERED
    assert {r["source_file"] for r in records} == {f"rows.{container}{compression}"}


@pytest.mark.parametrize("container", ["jsonl", "json", "parquet", "stream.arrow", "csv"])
@pytest.mark.parametrize("compression", ["", ".gz"])
def test_stdin_gives_the_same_ids(
    read: Read, store: Store, monkeypatch: pytest.MonkeyPatch, container: str, compression: str
) -> None:
    data = write_rows(store.root.parent / f"in.{container}{compression}", ROWS).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    found = ingest(store, ["-"], "auto", IngestConfig())
    text = pl.read_ipc(store.root / found.files[0].path)
    assert text["id"].to_list() == [r["id"] for r in read(ROWS)]
    assert set(text["source_file"]) == {"stdin"}
    assert found.source.inputs[0].uri == "-"


def test_a_parquet_file_that_fills_absent_fields_with_null_gives_the_same_ids(read: Read) -> None:
    rows = [{**alpaca(1), "note": "x"}, alpaca(2)]
    assert [r["id"] for r in read(rows, name="a.parquet")] == [r["id"] for r in read(rows)]


def test_values_that_json_does_not_have_come_in_as_text(read: Read, tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"instruction": ["q"], "output": ["a"], "f": [float("nan")], "b": [b"\xff!"], "d": [None]},
        schema_overrides={"d": pl.Datetime},
    ).with_columns(d=pl.datetime(2024, 1, 2), n=pl.lit("1.5").cast(pl.Decimal(10, 2)))
    frame.write_parquet(tmp_path / "odd.parquet")
    [record] = read(tmp_path / "odd.parquet")
    extra = json.loads(record["extra"])
    assert (extra["f"], extra["b"], extra["d"], extra["n"]) == ("nan", "\\xff!", "2024-01-02T00:00:00", "1.50")


def test_text_that_is_no_utf8_in_a_table_is_a_rejected_row(read: Read, tmp_path: Path) -> None:
    """Others of its batch are read; the raw text is kept with the bytes spelled out."""
    bad = pa.array([b"fine", b"caf\xe9", b"fine"], pa.binary()).view(pa.string())
    table = pa.table({"instruction": bad, "output": pa.array(["a", "b", "c"])})
    pq.write_table(table, tmp_path / "bad.parquet")
    with pa.OSFile(str(tmp_path / "bad.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    for name in ("bad.parquet", "bad.arrow"):
        records = read(tmp_path / name)
        assert [r["verdict"] for r in records] == [None, "ingest:bad_encoding", None]
        assert "caf\\\\xe9" in records[1]["extra"]


# damage ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("container", ["json", "jsonl", "parquet", "csv", "arrow", "stream.arrow"])
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.99])
def test_a_file_that_is_cut_off_is_an_error(
    read: Read, tmp_path: Path, container: str, compression: str, kept: float
) -> None:
    """Lines are whole rows: where nothing is compressed only the last one is known to be broken, and says so."""
    path = write_rows(tmp_path / f"rows.{container}{compression}", ROWS)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    if not compression and container in ("jsonl", "csv"):
        records = read(path, name=path.name)
        broken = [r for r in records if r["verdict"]]
        assert len(broken) <= 1
        assert container == "csv" or "may be cut off" in broken[0]["detail"]
    else:
        with pytest.raises(InputError, match=rf"rows\.{container}"):
            read(path)


def test_an_open_quote_does_not_swallow_the_rest_of_a_csv(read: Read) -> None:
    with pytest.raises(InputError, match="quote opened in line 3 is never closed"):
        read(b'instruction,output\nq,a\nq,"a\nq,a\nq,a\n', name="rows.csv")


def test_nothing_is_committed_for_a_damaged_file(store: Store, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl.gz", ROWS)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"rows\.jsonl\.gz: broken off.*nothing was committed"):
        ingest(store, [str(path)], "alpaca", IngestConfig())
    assert not (store.root / "datasets").exists()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b"", "empty"),
        ("a.jsonl", b"\n \n\t\r\n", "blanks"),
        ("a.json", b"[]", "no rows"),
        ("a.csv", b"instruction,output\n", "no rows"),
        ("a.csv", b"instruction;output\nq;a\n", "semicolons"),
        ("a.csv", b"instruction,output,output\nq,a,a\n", "twice"),
        ("a.json", b"hello", "no JSON"),
        ("a.txt", b"once upon a time", "no JSON"),
        ("a.json", b'{\n "instruction": "q",\n "output": "a"\n}\n', "one JSON object over several lines"),
        ("a.json", b'{\n "data": [\n  {"instruction": "q"}]}\n', r"jq \.data"),
        ("a.json", b'[{"instruction": "q", "output": "a"}] []', "after the end of the array"),
        ("a.jsonl", "hé".encode("utf-16"), "UTF-16"),
        ("a.parquet", b"[1, 2]", "no Parquet data"),
        ("a.parquet", b"PAR1 and nothing more", "damaged or cut off"),
        ("a.arrow", b"ARROW1 and nothing more", "damaged or cut off"),
        ("a.jsonl.gz", b'{"instruction": "q", "output": "a"}\n', "not gzip"),
        ("a.jsonl", b"\x1f\x8b\x08 not gzip", "broken off or damaged"),
        ("a.jsonl", b"{nope}\n{nope}\n", "none of its 2 rows can be read.*broken json"),
        ("a.jsonl", b"[1]\n7\n", "none of its 2 rows"),
    ],
)
def test_a_file_without_rows_says_why(read: Read, name: str, content: bytes, says: str) -> None:
    with pytest.raises(InputError, match=rf"a\..*{says}") as error:
        read(content, name=name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rows", "format", "says"),
    [
        ([{"question": "q", "response": "a"}], "alpaca", "They would fit openorca"),
        ([{"conversations": [{"from": "human", "value": "q"}]}], "openai", "They would fit sharegpt"),
        ([{"prompt": "q", "completion": "a"}], "alpaca", "they have 'prompt', 'completion'"),
        ([{"instruction": "q", "output": 5}], "alpaca", "'output' is a number"),
    ],
)
def test_a_wrong_format_is_named_with_the_one_that_would_fit(read: Read, rows: Any, format: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read(rows * 3, format)


# any bytes ------------------------------------------------------------------------------------------------------------

DAMAGE = st.lists(st.tuples(st.integers(0, 4000), st.binary(max_size=4), st.integers(0, 3)), max_size=4)


def damaged(data: bytes, damage: list[tuple[int, bytes, int]], cut: int | None) -> bytes:
    for at, put, gone in damage:
        place = at % (len(data) + 1)
        data = data[:place] + put + data[place + gone :]
    return data if cut is None else data[: cut % (len(data) + 1)]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("container", CONTAINERS)
def test_whatever_bytes_come_in_rows_or_an_error_come_out(
    read: Read, tmp_path: Path, container: str, compression: str
) -> None:
    """Law 10, over damaged files and over noise. Each row that was not touched is still there, in a text file."""
    name = f"rows.{container}"
    data = write_rows(tmp_path / name, [alpaca(i) for i in range(5)]).read_bytes()

    @given(DAMAGE, st.none() | st.integers(0, 4000), st.none() | st.binary(max_size=60))
    def holds(damage: list[tuple[int, bytes, int]], cut: int | None, noise: bytes | None) -> None:
        content = damaged(data, damage, cut) if noise is None else noise
        path = tmp_path / f"{name}{compression}"
        path.write_bytes(compressed(content, compression) if compression else content)
        try:
            records = read(path)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017 - either outcome is right, and both are checked
        else:
            assert records

    holds()


@given(st.binary(max_size=80))
def test_a_line_is_a_row_whatever_it_holds(content: bytes) -> None:
    """One row for each line that is not blank, between two that are read."""
    from curate.ingest.inputs import Input, Stream
    from curate.ingest.lines import line_rows

    good = b'{"a": 1}'
    data = good + b"\n" + content + b"\n" + good
    rows = list(line_rows(Stream(Input("x", "x", "x"), io.BytesIO(data)), 1_000_000))
    assert len(rows) == 2 + sum(bool(line.strip(b" \t\r")) for line in content.split(b"\n"))
    assert (rows[0].value, rows[-1].value) == ({"a": 1}, {"a": 1})


# memory ---------------------------------------------------------------------------------------------------------------

PEAK = """
import resource, sys
from pathlib import Path
from curate.ingest import ingest, shards
from curate.store import Store
from schemas.config import IngestConfig
shards.SHARD_BYTES = 8_000_000
ingest(Store(Path(sys.argv[1])), [sys.argv[2]], "alpaca", IngestConfig())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak_mb(store: Path, path: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(store), str(path)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.parametrize("container", ["jsonl", "json"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, container: str) -> None:
    """Four times the rows, the same peak: 20 MB and 80 MB of text, in shards of 8 MB."""
    peaks: list[int] = []
    for n in (200, 800):
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as file:
            file.write(b"[" if container == "json" else b"")
            for i in range(n):
                file.write(b"," if container == "json" and i else b"")
                file.write(lines({"instruction": f"row {i}", "output": "word " * 20_000}))
            file.write(b"]" if container == "json" else b"")
        path = tmp_path / f"{n}.{container}.zst"
        path.write_bytes(sink.getvalue().to_pybytes())
        peaks.append(peak_mb(tmp_path / str(n), path))
    assert peaks[1] < peaks[0] + 20
