"""The examples of a split in columns: what a run reads, whether its tokens are in memory or in mapped files.

    chunks[0]   input_ids    a a a a a b b b      int32, examples end to end
                supervised   . . A A A . B B      bool, aligned with input_ids
    chunks[1]   input_ids    c c c c              another file
                supervised   . . . C

    example     a  b  c
    chunk_of    0  0  1        which chunk holds its tokens
    starts      0  5  0        where they begin in it
    lengths     5  3  4        how many they are

One example is a view of its slice, so a million of them cost no million objects. `keys` are 64 bits of each example's
id: what draws (the order of a run) are made of. The parts of a record that was split are named ID#1, ID#2, …
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

PART = "#"
"""Stands between a record's id (hex digits) and the number of a part of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One record as the trainer reads it. `supervised` marks the tokens that are targets, aligned with `input_ids`."""

    id: str
    source: str
    weight: float
    input_ids: npt.NDArray[np.int32]  # (tokens,)
    supervised: npt.NDArray[np.bool_]  # (tokens,)
    prompt: int = 0
    answer: int = 0
    """Fingerprints of what it asks and answers (`prints.py`)."""

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def targets(self) -> int:
        """How many tokens are targets; the first token of an example is nobody's."""
        return int(self.supervised[1:].sum())


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """The tokens of many examples end to end: arrays in memory, or views of a mapped file."""

    input_ids: npt.NDArray[np.int32]  # (N,)
    supervised: npt.NDArray[np.bool_]  # (N,)


@dataclass(frozen=True, slots=True, eq=False)
class Tokens(Sequence[Example]):
    """Examples in columns. E examples; each is a slice of one chunk."""

    ids: pa.StringArray  # (E,)
    sources: tuple[str, ...]
    source_of: npt.NDArray[np.int32]  # (E,) index into sources
    weights: npt.NDArray[np.float64]  # (E,)
    targets: npt.NDArray[np.int32]  # (E,) how many tokens are targets
    keys: npt.NDArray[np.uint64]  # (E,) the first 64 bits of blake2b of the id
    prompts: npt.NDArray[np.uint64]  # (E,) fingerprints of what they ask
    answers: npt.NDArray[np.uint64]  # (E,) and of what they answer
    lengths: npt.NDArray[np.int64]  # (E,) how many tokens
    chunk_of: npt.NDArray[np.int32]  # (E,) index into chunks
    starts: npt.NDArray[np.int64]  # (E,) where its tokens begin in the chunk
    chunks: tuple[Chunk, ...]

    @classmethod
    def of(cls, examples: Sequence[Example]) -> "Tokens":
        """Copy examples into columns. Columns that are there already are given as they are."""
        if isinstance(examples, Tokens):
            return examples
        sources = tuple(sorted({e.source for e in examples}))
        number = {source: i for i, source in enumerate(sources)}
        lengths = np.fromiter((len(e) for e in examples), np.int64, len(examples))
        ids = np.concatenate([np.zeros(0, np.int32), *(e.input_ids for e in examples)])
        supervised = np.concatenate([np.zeros(0, np.bool_), *(e.supervised for e in examples)])
        return cls(
            ids=pa.array([e.id for e in examples], pa.string()),
            sources=sources,
            source_of=np.fromiter((number[e.source] for e in examples), np.int32, len(examples)),
            weights=np.fromiter((e.weight for e in examples), np.float64, len(examples)),
            targets=np.fromiter((e.targets for e in examples), np.int32, len(examples)),
            keys=np.fromiter((key_of(e.id) for e in examples), np.uint64, len(examples)),
            prompts=np.fromiter((e.prompt for e in examples), np.uint64, len(examples)),
            answers=np.fromiter((e.answer for e in examples), np.uint64, len(examples)),
            lengths=lengths,
            chunk_of=np.zeros(len(examples), np.int32),
            starts=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])[:-1],
            chunks=(Chunk(ids, supervised),),
        )

    @classmethod
    def joined(cls, parts: Sequence["Tokens"]) -> "Tokens":
        """Put the examples of several one after another; their tokens stay where they are."""
        parts = [part for part in parts if len(part)] or parts[:1]
        if len(parts) == 1:
            return parts[0]
        sources = tuple(sorted({source for part in parts for source in part.sources}))
        number = {source: i for i, source in enumerate(sources)}
        renamed = [np.asarray([number[s] for s in part.sources], np.int32) for part in parts]
        before = np.cumsum([0, *(len(part.chunks) for part in parts)])

        def column(name: str, dtype: type[np.generic]) -> npt.NDArray[Any]:
            return np.concatenate([np.zeros(0, dtype), *(getattr(part, name) for part in parts)])

        ids = pa.chunked_array([part.ids for part in parts], pa.string()).combine_chunks()
        none = np.zeros(0, np.int32)
        return cls(
            # Many texts may need several arrays; the ids of fewer than 60 million records fit into one.
            ids=ids if isinstance(ids, pa.StringArray) else pa.concat_arrays(ids.chunks),
            sources=sources,
            source_of=np.concatenate([none, *(r[p.source_of] for r, p in zip(renamed, parts, strict=True))]),
            weights=column("weights", np.float64),
            targets=column("targets", np.int32),
            keys=column("keys", np.uint64),
            prompts=column("prompts", np.uint64),
            answers=column("answers", np.uint64),
            lengths=column("lengths", np.int64),
            chunk_of=np.concatenate(
                [none, *(p.chunk_of + np.int32(b) for p, b in zip(parts, before[:-1].tolist(), strict=True))]
            ),
            starts=column("starts", np.int64),
            chunks=tuple(chunk for part in parts for chunk in part.chunks),
        )

    def chosen(self, wanted: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> "Tokens":
        """Give some of the examples, by a mask or by their indices; the tokens of all stay where they are."""
        at = np.flatnonzero(wanted) if wanted.dtype == np.bool_ else wanted
        if len(at) == len(self) and np.array_equal(at, np.arange(len(self))):
            return self
        return Tokens(
            self.ids.take(pa.array(at, pa.int64())),
            self.sources,
            self.source_of[at],
            self.weights[at],
            self.targets[at],
            self.keys[at],
            self.prompts[at],
            self.answers[at],
            self.lengths[at],
            self.chunk_of[at],
            self.starts[at],
            self.chunks,
        )

    def end_to_end(
        self, records: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """Copy some examples end to end: their input_ids and supervised, (N,), and how long each is. At least one."""
        lengths, starts = self.lengths[records], self.starts[records]
        places = list(
            zip(
                (self.chunks[chunk] for chunk in self.chunk_of[records].tolist()),
                map(slice, starts.tolist(), (starts + lengths).tolist()),
                strict=True,
            )
        )
        ids = np.concatenate([chunk.input_ids[piece] for chunk, piece in places], dtype=np.int64)
        return ids, np.concatenate([chunk.supervised[piece] for chunk, piece in places]), lengths

    def tokens_at(self, offset: int) -> npt.NDArray[np.int32]:
        """Give one token of every example, (E,), counted from its beginning; -1 where it has no so many."""
        found = np.full(len(self), -1, np.int32)
        for chunk, of in enumerate(self.chunks):
            here = np.flatnonzero((self.chunk_of == chunk) & (self.lengths > offset))
            found[here] = of.input_ids[self.starts[here] + offset]
        return found

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, at: int) -> Example: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Example, ...]: ...
    def __getitem__(self, at: int | slice) -> Example | tuple[Example, ...]:
        if isinstance(at, slice):
            return tuple(self[i] for i in range(*at.indices(len(self))))
        if not -len(self) <= at < len(self):
            raise IndexError(f"example {at} of {len(self)}")
        i = at % len(self)
        chunk, start = self.chunks[self.chunk_of[i]], int(self.starts[i])
        piece = slice(start, start + int(self.lengths[i]))
        return Example(
            self.ids[i].as_py(),
            self.sources[self.source_of[i]],
            float(self.weights[i]),
            chunk.input_ids[piece],
            chunk.supervised[piece],
            int(self.prompts[i]),
            int(self.answers[i]),
        )

    def __iter__(self) -> Iterator[Example]:
        return (self[i] for i in range(len(self)))


def key_of(name: str) -> int:
    """Give the 64 bits that draws about a record are made of: from its id alone, the same on every machine."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")


def record_id(name: str) -> str:
    """Give the id of the record that an example was made of: its own, without the number of a part."""
    return name.partition(PART)[0]
