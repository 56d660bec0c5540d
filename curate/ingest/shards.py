"""Rows become shards: text objects of a bounded size, each with the annotation that says which rows could not be read.

A shard is cut at a number of rows or of bytes, whichever comes first, so that the same rows give the same objects on
any machine.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa

from curate.ingest.fields import Fields
from curate.ingest.keys import Keys, Name
from curate.ingest.row import RowError, json_text
from curate.store import Store
from schemas.manifest import FileEntry, Role
from schemas.record import TEXT_SCHEMA, VERDICT_SCHEMA, content_hash, lineage_id

SHARD_ROWS = 65_536
"""Rows in a shard: small enough to hold several at once, large enough that a million rows are 16 files."""
SHARD_BYTES = 64 * 1_000_000
"""Bytes of row text in a shard, which bounds memory where rows are long. One longer row makes a shard of its own."""

_EMPTY_HASH = content_hash([], None)


class _Rest(NamedTuple):
    """What the rows of a shard hold besides their messages, by column."""

    name: tuple[str, ...]
    own: tuple[bool, ...]
    file: tuple[str, ...]
    row: tuple[int, ...]
    context: tuple[str | None, ...]
    tools: tuple[str | None, ...]
    category: tuple[str | None, ...]
    extra: tuple[str | None, ...]
    content_hash: tuple[str, ...]
    verdict: tuple[str | None, ...]
    detail: tuple[str | None, ...]


@dataclass(slots=True)
class _Pending:
    """The rows of one shard under way. The columns of the messages are flat; `ends` says where each row's end.

    `rows` holds plain tuples in the order of _Rest: the garbage collector does not follow tuples of texts.
    """

    rows: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])
    ends: list[int] = field(default_factory=lambda: [0])
    role: list[str] = field(default_factory=list[str])
    content: list[str] = field(default_factory=list[str])
    name: list[str | None] = field(default_factory=list[str | None])
    tool_calls: list[str | None] = field(default_factory=list[str | None])
    bytes: int = 0


class ShardWriter:
    """Collects rows and writes a shard whenever one is full. `close` writes the last."""

    def __init__(self, store: Store, source: str, keys: Keys, first_shard: int) -> None:
        self._store, self._source, self._keys = store, source, keys
        self._shard = first_shard
        self._pending = _Pending()
        self.files: list[FileEntry] = []
        self.rows = 0
        self.rejected: Counter[str] = Counter()

    def keep(self, file: str, number: int, name: Name, fields: Fields, size: int) -> None:
        """Add a row that was read. `size` is its length in bytes. Raises UnicodeEncodeError before adding anything."""
        hashed = content_hash(fields.messages, fields.context)
        extra = None if fields.extra is None else json_text(fields.extra)
        pending = self._room(size)
        for turn in fields.messages:
            pending.role.append(turn["role"])
            pending.content.append(turn["content"])
            pending.name.append(turn.get("name"))
            pending.tool_calls.append(turn.get("tool_calls"))
        pending.ends.append(len(pending.role))
        pending.rows.append(
            (*name, file, number, fields.context, fields.tools, fields.category, extra, hashed, None, None)
        )

    def reject(self, file: str, number: int, name: Name, raw: str, error: RowError) -> None:
        """Add a row that could not be read, with its raw text and the reason."""
        pending = self._room(len(raw.encode()))
        pending.ends.append(len(pending.role))
        pending.rows.append((*name, file, number, None, None, None, raw, _EMPTY_HASH, error.reason, error.detail))
        self.rejected[error.reason] += 1

    def _room(self, size: int) -> _Pending:
        """Give the shard that the next row goes to."""
        pending = self._pending
        rows = len(pending.rows)
        if rows and (rows >= SHARD_ROWS or pending.bytes + size > SHARD_BYTES):
            self._flush()
            pending = self._pending
        pending.bytes += size
        self.rows += 1
        return pending

    def close(self) -> None:
        """Write the last shard."""
        if self._pending.rows:
            self._flush()

    def _flush(self) -> None:
        pending, self._pending = self._pending, _Pending()
        rest = _Rest(*zip(*pending.rows, strict=True))  # rows to columns
        text = _text(pending, rest, self._source, self._keys.number(rest.name, rest.own))
        verdicts = pl.DataFrame({"verdict": rest.verdict, "detail": rest.detail}, schema=VERDICT_SCHEMA)
        rejected = Counter(reason for reason in rest.verdict if reason is not None)
        characters = sum(map(len, pending.content)) + sum(len(c) for c in rest.context if c is not None)
        self._put(text, "text", {"characters": characters})
        self._put(verdicts, "annotation", dict(sorted(rejected.items())))
        self._shard += 1

    def _put(self, frame: pl.DataFrame, role: Role, statistics: dict[str, int]) -> None:
        self.files.append(
            self._store.put(
                frame, role=role, stage="ingest", source=self._source, shard=self._shard, statistics=statistics
            )
        )


def _text(pending: _Pending, rest: _Rest, source: str, keys: list[str]) -> pl.DataFrame:
    """Make the text frame of a shard. Adds: all of TEXT_SCHEMA."""

    def strings(values: Sequence[str | None]) -> Any:  # pyarrow has no types
        return pa.array(values, pa.large_string())

    turns = pa.StructArray.from_arrays(
        [strings(pending.role), strings(pending.content), strings(pending.name), strings(pending.tool_calls)],
        names=["role", "content", "name", "tool_calls"],
    )
    table = pa.table(
        {
            "id": strings([lineage_id(source, key) for key in keys]),
            "source": strings([source] * len(keys)),
            "source_key": strings(keys),
            "source_file": strings(rest.file),
            "source_row": pa.array(rest.row, pa.int64()),
            "messages": pa.LargeListArray.from_arrays(pa.array(pending.ends, pa.int64()), turns),
            "context": strings(rest.context),
            "tools": strings(rest.tools),
            "category": strings(rest.category),
            "extra": strings(rest.extra),
            "content_hash": strings(rest.content_hash),
        }
    )
    return pl.DataFrame(pl.from_arrow(table), schema=TEXT_SCHEMA)
