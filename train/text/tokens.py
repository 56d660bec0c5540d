"""The examples of a split, end to end in columns: what a run reads, whether they are in memory or in mapped files.

    input_ids    a a a a a b b b c c c c      int32, all examples end to end
    supervised   . . A A A . B B . . . C      bool, aligned with input_ids
    bounds       0         5     8       12   int64, where each example begins, and the end

One example is a view of its slice, so a million of them cost no million objects. `keys` are 64 bits of each example's
id: what draws (the order of a run) are made of.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One record as the trainer reads it. `supervised` marks the tokens that are targets, aligned with `input_ids`."""

    id: str
    source: str
    weight: float
    input_ids: npt.NDArray[np.int32]  # (tokens,)
    supervised: npt.NDArray[np.bool_]  # (tokens,)

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def targets(self) -> int:
        """How many tokens are targets; the first token of an example is nobody's."""
        return int(self.supervised[1:].sum())


@dataclass(frozen=True, slots=True, eq=False)
class Tokens(Sequence[Example]):
    """Examples in columns. Lengths: E examples, N tokens."""

    ids: pa.StringArray  # (E,)
    sources: tuple[str, ...]
    source_of: npt.NDArray[np.int32]  # (E,) index into sources
    weights: npt.NDArray[np.float64]  # (E,)
    targets: npt.NDArray[np.int32]  # (E,) how many tokens are targets
    keys: npt.NDArray[np.uint64]  # (E,) the first 64 bits of blake2b of the id
    bounds: npt.NDArray[np.int64]  # (E + 1,)
    input_ids: npt.NDArray[np.int32]  # (N,)
    supervised: npt.NDArray[np.bool_]  # (N,)

    @classmethod
    def of(cls, examples: Sequence[Example]) -> "Tokens":
        """Copy examples into columns. Columns that are there already are given as they are."""
        if isinstance(examples, Tokens):
            return examples
        sources = tuple(sorted({e.source for e in examples}))
        number = {source: i for i, source in enumerate(sources)}
        lengths = np.fromiter((len(e) for e in examples), np.int64, len(examples))
        return cls(
            ids=pa.array([e.id for e in examples], pa.string()),
            sources=sources,
            source_of=np.fromiter((number[e.source] for e in examples), np.int32, len(examples)),
            weights=np.fromiter((e.weight for e in examples), np.float64, len(examples)),
            targets=np.fromiter((e.targets for e in examples), np.int32, len(examples)),
            keys=np.fromiter((key_of(e.id) for e in examples), np.uint64, len(examples)),
            bounds=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
            input_ids=np.concatenate([np.zeros(0, np.int32), *(e.input_ids for e in examples)]),
            supervised=np.concatenate([np.zeros(0, np.bool_), *(e.supervised for e in examples)]),
        )

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """How many tokens each example has, (E,)."""
        return np.diff(self.bounds)

    def __len__(self) -> int:
        return len(self.bounds) - 1

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
        piece = slice(int(self.bounds[i]), int(self.bounds[i + 1]))
        return Example(
            self.ids[i].as_py(),
            self.sources[self.source_of[i]],
            float(self.weights[i]),
            self.input_ids[piece],
            self.supervised[piece],
        )

    def __iter__(self) -> Iterator[Example]:
        return (self[i] for i in range(len(self)))


def key_of(name: str) -> int:
    """Give the 64 bits that draws about a record are made of: from its id alone, the same on every machine."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")
