"""From records to examples: tokenised, masked, proven, made to fit; every record in the outcome once.

Records come in slices. Each becomes a shard (`shard.py`), here or in a process (`workers.py`), in memory or as a file
that is mapped from then on; so memory is bounded by the slices under way, not by the dataset. Shards know no bound on
length, so one cached entry (`cache.py`) serves every `max_tokens`; records above it are refused, or cut
(`overlong.py`), afterwards, and what was cut is an entry of its own.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Literal

import numpy as np
import pyarrow as pa

from schemas.dataset import Records, find
from schemas.manifest import digest
from schemas.record import Record
from train.text import shard
from train.text.cache import TokenCache, name_of
from train.text.chat import PINNED_DATE, Template
from train.text.overlong import TOLD, Cut
from train.text.refusal import FATAL, Refusal, Refusals
from train.text.shard import Table
from train.text.tokens import Tokens
from train.text.workers import Job, Workers

ENCODING = 2
"""Goes up whenever the same record, tokenizer and template would give another shard."""

SHARD = 16_384
"""Rows of a slice: some tens of megabytes of text, and 2 s of one core."""

CUT = 1_024
"""Long records that are cut together: each is tokenised several times until it fits."""

CACHED = 4_096
"""Records from which on their tokens are kept for the next start: fewer are made in half a second."""

Overlong = Literal["reject"] | Cut


@dataclass(frozen=True, slots=True)
class Encoded:
    """All records, each an example or a refusal. `trimmed`: records whose text lost outer space.

    `cut`: records that are among the examples though not whole, and what was done (`truncated`, `split`). The parts of
    a split record are examples of their own; `tokens.record_id` gives the record that an example belongs to.
    """

    examples: Tokens
    refusals: Sequence[Refusal]
    trimmed: int
    cut: Sequence[Refusal] = field(default=())


def encode(
    records: Sequence[Record],
    template: Template,
    *,
    max_tokens: int,
    strict: bool = True,
    overlong: Overlong = "reject",
) -> Encoded:
    """Turn records into examples of at most `max_tokens` tokens, or refusals, in this process and in memory.

    Raises ModelError, naming a record and how many there are, where the template or tokenizer is to blame: it fails,
    leaves out a turn, ends an assistant turn without a stop token, or the decoded mask is not the assistant's text.
    Without `strict` these are refusals like the others.
    """
    return Encoder(template).encode(records, max_tokens=max_tokens, strict=strict, overlong=overlong)


class Encoder:
    """Encodes splits with one template; `workers` as in TrainConfig. Its processes end with the context."""

    def __init__(self, template: Template, *, workers: int | None = 0, cache: TokenCache | None = None) -> None:
        self._template, self._cache = template, cache
        self._workers = Workers(template, workers)

    def __enter__(self) -> "Encoder":
        return self

    def __exit__(self, *exception: object) -> None:
        self._workers.__exit__(*exception)

    def encode(
        self,
        records: Sequence[Record],
        *,
        max_tokens: int,
        strict: bool = True,
        overlong: Overlong = "reject",
        progress: Callable[[int], None] = lambda _: None,
    ) -> Encoded:
        """Encode a split as `encode` does; `progress` hears of the records that are done."""
        named = isinstance(records, Records) and len(records) >= CACHED and self._cache is not None
        key = self._key(records.digest) if named and isinstance(records, Records) else None
        tables = self._tables(key, lambda: _slices(records), len(records), strict=strict, progress=progress)
        examples = Tokens.joined([Tokens.of(()), *map(shard.examples_of, tables)])
        refusals = Refusals.joined([shard.refusals_of(table) for table in tables])
        trimmed = sum(map(shard.trimmed_of, tables))
        long = examples.chosen(examples.lengths > max_tokens)
        if strict:
            refusals.raise_fatal(self._template.name, len(records))
        if not len(long):
            return Encoded(examples, refusals, trimmed)
        examples = examples.chosen(examples.lengths <= max_tokens)
        if overlong == "reject":
            return Encoded(examples, Refusals.joined([refusals, _overlong(long, max_tokens)]), trimmed)
        # Cut records decide by the bound how they are cut, so they are an entry of their own.
        key = key and digest([key, overlong, max_tokens])
        jobs = lambda: _cut_jobs(records, long, overlong, max_tokens)  # noqa: E731 # asked only where no cache knows
        tables = self._tables(key, jobs, len(long), strict=False, progress=lambda _: None)
        told = Refusals.joined([shard.refusals_of(table) for table in tables]).table
        cut = np.isin(np.asarray(told["reason"].to_pylist(), np.str_), TOLD)
        return Encoded(
            Tokens.joined([examples, *map(shard.examples_of, tables)]),
            Refusals.joined([refusals, Refusals(told.filter(pa.array(~cut)))]),
            trimmed,
            Refusals(told.filter(pa.array(cut))),
        )

    def _key(self, records: str) -> str:
        """Digest all that decides the tokens of records that are named by a digest."""
        tokenizer = self._template.tokenizer
        special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
        versions = [version(package) for package in ("tokenizers", "transformers", "jinja2")]
        made_by = [ENCODING, PINNED_DATE, self._template.text, self._template.backend.to_str(), special, versions]
        return digest([records, *made_by])

    def _tables(
        self,
        key: str | None,
        jobs_of: Callable[[], Sequence[Job]],
        records: int,
        *,
        strict: bool,
        progress: Callable[[int], None],
    ) -> list[Table]:
        """Give the shards of some jobs: from the cache, or made, and then put there."""
        cache = self._cache if key else None
        if cache and key and (found := cache.find(key)) is not None:
            progress(records)
            return found
        draft = cache.draft(key) if cache and key else None
        tables: list[Table] = []
        hashes: list[str] = []
        try:
            jobs = [
                Job(job.records, draft / name_of(i), job.cut, job.lengths, job.max_tokens) if draft else job
                for i, job in enumerate(jobs_of())
            ]
            done = 0
            for job, made in zip(jobs, self._workers.made(jobs, records), strict=True):
                table: Table = shard.opened(job.path) if made.table is None and job.path else made.table
                if cache and draft and made.error:
                    cache.drop(draft, made.error)  # what is mapped stays readable; later shards come as tables
                    draft = None
                tables.append(table)
                hashes.append(made.sha256)
                done += table.num_rows
                progress(table.num_rows)
                if strict and not set(table["reason"].unique().to_pylist()).isdisjoint(FATAL):
                    Refusals.joined([*map(shard.refusals_of, tables)]).raise_fatal(self._template.name, done)
            if cache and key and draft:
                tables = cache.keep(draft, key, hashes)
        except BaseException:
            if cache and draft:
                cache.discard(draft)
            raise
        return tables


def _slices(records: Sequence[Record]) -> list[Job]:
    parts: Iterable[Iterable[Record]]
    if isinstance(records, Records):
        parts = records.slices(SHARD)
    else:
        parts = (list(records[at : at + SHARD]) for at in range(0, len(records), SHARD))
    return [Job(part) for part in parts]


def _cut_jobs(records: Sequence[Record], long: Tokens, cut: Cut, max_tokens: int) -> list[Job]:
    """Look the long records up, and make jobs of some of them each."""
    ids: list[str] = long.ids.to_pylist()
    found = find(records, ids)
    lengths = long.lengths.tolist()
    return [
        Job([found[name] for name in ids[at : at + CUT]], None, cut, tuple(lengths[at : at + CUT]), max_tokens)
        for at in range(0, len(ids), CUT)
    ]


def _overlong(long: Tokens, max_tokens: int) -> Refusals:
    """Refuse examples that are too long."""
    lengths = long.lengths.tolist()
    columns = {
        "id": long.ids,
        "source": pa.array(long.sources, pa.string()).take(pa.array(long.source_of)),
        "reason": pa.array(["overlong"] * len(long), pa.string()),
        "detail": pa.array([f"{n} tokens, the context holds {max_tokens}" for n in lengths], pa.string()),
        "tokens": pa.array(lengths, pa.int64()),
    }
    return Refusals(pa.table(columns))
