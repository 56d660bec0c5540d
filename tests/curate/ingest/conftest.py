"""Files of every container, and a source read back as plain rows."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.ingest import Ingested, ingest
from curate.store import Store
from schemas.config import IngestConfig

Rows = Sequence[Mapping[str, Any]]
CONTAINERS = ("json", "jsonl", "parquet", "csv", "arrow", "stream.arrow")
COMPRESSIONS = ("", ".gz", ".zst")
DATA = Path(__file__).parents[3].parent / "shared" / "data"


def write_rows(path: Path, rows: Rows) -> Path:
    """Write rows as what the file's name says."""
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    plain = path.with_name(name)
    if name.endswith(".jsonl"):
        plain.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif name.endswith(".json"):
        plain.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    elif name.endswith(".csv"):
        pl.DataFrame(rows).write_csv(plain, quote_style="necessary")
    else:
        _write_table(plain, pa.Table.from_pylist(list(rows)))
    if name != path.name:
        path.write_bytes(compressed(plain.read_bytes(), path.suffix))
        plain.unlink()
    return path


def _write_table(path: Path, table: pa.Table) -> None:
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=7)
        return
    new = pa.ipc.new_stream if path.name.endswith("stream.arrow") else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as file, new(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=5)


def compressed(data: bytes, suffix: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, {".gz": "gzip", ".zst": "zstd"}[suffix]) as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def read_back(store: Store, found: Ingested) -> list[dict[str, Any]]:
    """Give all rows of an ingested source, in order, each with its verdict and detail."""
    texts = [pl.read_ipc(store.root / f.path) for f in found.files if f.role == "text"]
    verdicts = [pl.read_ipc(store.root / f.path) for f in found.files if f.role == "annotation"]
    rows: list[dict[str, Any]] = []
    for text, verdict in zip(texts, verdicts, strict=True):
        casted = verdict.with_columns(pl.col("verdict", "detail").cast(pl.String))
        rows.extend(pl.concat([text, casted], how="horizontal").to_dicts())
    assert len(rows) == found.rows
    assert len({row["id"] for row in rows}) == len(rows)
    return rows


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


Read = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def read(store: Store, tmp_path: Path) -> Read:
    """Ingest a file, or bytes or rows as a file of the given name, and give the rows back."""

    def run(
        content: Path | bytes | Rows, format: str = "alpaca", *, name: str = "rows.jsonl", **config: Any
    ) -> list[dict[str, Any]]:
        path = content if isinstance(content, Path) else tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif not isinstance(content, Path):
            write_rows(path, content)
        found = ingest(store, [str(path)], format, IngestConfig(**config))  # pyright: ignore[reportArgumentType] # settings of any type
        rows = read_back(store, found)
        assert found.rejected == {
            reason: sum(row["verdict"] == reason for row in rows)
            for reason in sorted({row["verdict"] for row in rows if row["verdict"]})
        }
        assert found.source.inputs[0].bytes == path.stat().st_size
        return rows

    return run


def alpaca(n: int, **more: Any) -> dict[str, Any]:
    return {"instruction": f"What is {n} and one?", "input": "", "output": f"It is {n + 1}.", **more}


def lines(*rows: Any) -> bytes:
    return b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows)
