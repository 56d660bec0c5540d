"""A shard: some thousand records as tokens, a table with one row per record, in memory or as a mapped Arrow file.

| column | type | what |
|---|---|---|
| id, source, weight | string, string, double | the record |
| key | uint64 | 64 bits of the id (`tokens.key_of`) |
| prompt, answer | uint64 | fingerprints of what it asks and answers (`prints.py`); 0 if refused |
| reason, detail | string | why it is refused; null for one that can be trained on |
| tokens, targets | int64, int32 | how many; tokens are null where they were never counted |
| trimmed | bool | the template cut outer space of its turns |
| input_ids, supervised | large_list<int32>, large_list<uint8> | its tokens, and which are targets; empty if refused |

One file has one record batch, so that the tokens of all its records are one array of the mapped file.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.record import Record
from train.text.chat import Template
from train.text.mask import masked
from train.text.refusal import SCHEMA as REFUSAL_SCHEMA
from train.text.refusal import Refusal, Refusals
from train.text.rendering import Rendered, render
from train.text.tokens import Chunk, Tokens, key_of
from train.text.words import Words

Table = Any
"""A pyarrow.Table: pyarrow tells no types."""

BATCH = 1_024
"""Records that are rendered and tokenised at a time."""

BATCH_LETTERS = 1 << 23
"""Letters after which a batch ends: a token takes some 300 bytes while it is looked at."""


def tokenise(records: Iterable[Record], template: Template, words: Words) -> Table:
    """Make the shard of some records: each is rendered, tokenised, masked and proven, or refused."""
    tables = [_batch((), template, words), *(_batch(batch, template, words) for batch in _batches(records))]
    return pa.concat_tables(tables).combine_chunks()


def _batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Cut records into batches, each of BATCH records or, where they are long, of little more than BATCH_LETTERS."""
    batch: list[Record] = []
    letters = 0
    for record in records:
        batch.append(record)
        letters += sum(len(message.content) for message in record.messages)
        if len(batch) == BATCH or letters > BATCH_LETTERS:
            yield batch
            batch, letters = [], 0
    if batch:
        yield batch


def _batch(records: Sequence[Record], template: Template, words: Words) -> Table:
    found = render(records, template)
    rendered = [one for one in found if isinstance(one, Rendered)]
    marked = masked(rendered, template, words)
    refusals: list[Refusal | None] = []
    counts: list[int | None] = []
    trimmed: list[bool] = []
    targets = np.zeros(len(records), np.int32)
    kept = np.zeros(len(records), np.int64)
    at = 0
    for i, one in enumerate(found):
        if isinstance(one, Refusal):
            refusals.append(one)
            counts.append(one.tokens)
            trimmed.append(False)
            continue
        refusal = marked.refusals[at]
        refusals.append(refusal)
        counts.append(int(marked.lengths[at]))
        trimmed.append(one.trimmed)
        targets[i] = marked.targets[at]
        kept[i] = 0 if refusal else marked.lengths[at]
        at += 1
    bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
    prints = template.prints(marked.input_ids, marked.supervised, bounds)
    return _table(records, refusals, counts, trimmed, targets, bounds, prints, marked.input_ids, marked.supervised)


def _table(  # noqa: PLR0917 # one column each
    records: Sequence[Record],
    refusals: Sequence[Refusal | None],
    counts: Sequence[int | None],
    trimmed: Sequence[bool],
    targets: npt.NDArray[np.int32],
    bounds: npt.NDArray[np.int64],
    prints: tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]],
    input_ids: npt.NDArray[np.int32],
    supervised: npt.NDArray[np.bool_],
) -> Table:
    offsets = pa.array(bounds, pa.int64())
    return pa.table(
        {
            "id": pa.array([r.id for r in records], pa.string()),
            "source": pa.array([r.source for r in records], pa.string()),
            "weight": pa.array([r.weight for r in records], pa.float64()),
            "key": pa.array(np.fromiter((key_of(r.id) for r in records), np.uint64, len(records))),
            "prompt": pa.array(prints[0]),
            "answer": pa.array(prints[1]),
            "reason": pa.array([r.reason if r else None for r in refusals], pa.string()),
            "detail": pa.array([r.detail if r else None for r in refusals], pa.string()),
            "tokens": pa.array(counts, pa.int64()),
            "targets": pa.array(targets, pa.int32()),
            "trimmed": pa.array(trimmed, pa.bool_()),
            "input_ids": pa.LargeListArray.from_arrays(offsets, pa.array(input_ids, pa.int32())),
            "supervised": pa.LargeListArray.from_arrays(offsets, pa.array(supervised.view(np.uint8), pa.uint8())),
        }
    )


def with_refusals(table: Table, refusals: Sequence[Refusal]) -> Table:
    """Give a shard with more rows, of records that are refused or told about."""
    told = Refusals.of(refusals).table
    empty = pa.array(np.zeros(len(refusals) + 1, np.int64))
    none = pa.array(np.zeros(len(refusals), np.uint64))
    fixed = {
        "weight": pa.array(np.ones(len(refusals))),
        "key": none,
        "prompt": none,
        "answer": none,
        "targets": pa.array(np.zeros(len(refusals), np.int32)),
        "trimmed": pa.array(np.zeros(len(refusals), np.bool_)),
        "input_ids": pa.LargeListArray.from_arrays(empty, pa.array([], pa.int32())),
        "supervised": pa.LargeListArray.from_arrays(empty, pa.array([], pa.uint8())),
    }
    columns = [fixed[name] if name in fixed else told[name] for name in table.column_names]
    return pa.concat_tables([table, pa.table(columns, schema=table.schema)]).combine_chunks()


def write(table: Table, path: Path) -> None:
    """Write a shard as one record batch."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=max(1, table.num_rows))


def opened(path: Path) -> Table:
    """Map a shard's file into memory: what is not read costs nothing."""
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def examples_of(table: Table) -> Tokens:
    """Give the records of a shard that can be trained on; their tokens stay where they are."""
    ids, supervised = _one(table["input_ids"]), _one(table["supervised"])
    bounds = ids.offsets.to_numpy() if table.num_rows else np.zeros(1, np.int64)
    good = np.flatnonzero(table["reason"].is_null().to_numpy())
    sound = table.select(["id", "source", "weight", "key", "prompt", "answer", "targets"]).take(
        pa.array(good, pa.int64())
    )
    source = _one(sound["source"]).dictionary_encode()
    return Tokens(
        ids=_one(sound["id"]),
        sources=tuple(source.dictionary.to_pylist()),
        source_of=source.indices.to_numpy(zero_copy_only=False).astype(np.int32),
        weights=sound["weight"].to_numpy(),
        targets=sound["targets"].to_numpy(),
        keys=sound["key"].to_numpy(),
        prompts=sound["prompt"].to_numpy(),
        answers=sound["answer"].to_numpy(),
        lengths=(bounds[1:] - bounds[:-1])[good],
        chunk_of=np.zeros(len(good), np.int32),
        starts=bounds[:-1][good],
        chunks=(Chunk(ids.values.to_numpy(), supervised.values.to_numpy().view(np.bool_)),),
    )


def refusals_of(table: Table) -> Refusals:
    """Give the records of a shard that are refused."""
    refused = table.select(REFUSAL_SCHEMA.names).filter(table["reason"].is_valid())
    return Refusals(refused.cast(REFUSAL_SCHEMA))


def trimmed_of(table: Table) -> int:
    """Count the records of a shard whose turns lost outer space."""
    return int(np.count_nonzero(table["trimmed"].to_numpy()))


def _one(column: Any) -> Any:
    """Give a column as one array; it is copied only where it is several."""
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
