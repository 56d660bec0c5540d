"""Generated instruction rows in any number, the same for the same seed: for benchmarks of size."""

import hashlib
from collections.abc import Iterator

import numpy as np
import polars as pl

from schemas.record import TEXT_SCHEMA, content_hash, lineage_id

SHARD_ROWS = 65_536
WORDS_PER_PROMPT, WORDS_PER_RESPONSE = 18, 60
"""About the mean of Alpaca and Dolly: 420 characters a row."""


def generated(rows: int, *, seed: int = 0, source: str = "generated") -> Iterator[pl.DataFrame]:
    """Give text shards of rows whose words are drawn by Zipf's law from 30,000 made-up words."""
    draw = np.random.default_rng(seed)
    letters = "aeiourtnslkmdpbgf"
    vocabulary = np.array(["".join(draw.choice(list(letters), size=n)) for n in draw.integers(2, 9, 30_000)])
    for start in range(0, rows, SHARD_ROWS):
        count = min(SHARD_ROWS, rows - start)
        lengths = draw.poisson((WORDS_PER_PROMPT, WORDS_PER_RESPONSE), (count, 2)) + 3
        picks = np.minimum(draw.zipf(1.2, int(lengths.sum())), len(vocabulary)) - 1
        yield _shard(vocabulary[picks], lengths, start, source)


def _shard(words: np.ndarray, lengths: np.ndarray, start: int, source: str) -> pl.DataFrame:
    ends = np.cumsum(lengths.ravel())
    texts = [" ".join(words[a:b]) for a, b in zip(np.concatenate([[0], ends[:-1]]), ends, strict=True)]
    full = []
    for i in range(len(lengths)):
        turns = [
            {"role": role, "content": text, "name": None, "tool_calls": None}
            for role, text in (("user", texts[2 * i] + "?"), ("assistant", texts[2 * i + 1] + "."))
        ]
        key = hashlib.blake2b(str(start + i).encode(), digest_size=16).hexdigest()
        full.append((lineage_id(source, key), key, start + i + 1, turns, content_hash(turns, None)))
    columns = ["id", "source_key", "source_row", "messages", "content_hash"]
    frame = pl.DataFrame(full, schema={c: TEXT_SCHEMA[c] for c in columns}, orient="row")
    fixed = {"source": source, "source_file": "generated.jsonl"}
    absent = [c for c in TEXT_SCHEMA if c not in columns and c not in fixed]
    return frame.with_columns(
        **{c: pl.lit(v) for c, v in fixed.items()}, **{c: pl.lit(None, dtype=TEXT_SCHEMA[c]) for c in absent}
    ).select(list(TEXT_SCHEMA))
