"""Packed rows as tensors: records end to end, nothing between them, no padding.

    records          a a a a         b b b          two records of one row, supervised tokens in capitals
    input_ids_1N     u u A A         u B B
    labels_1N        . . A A         . B B          aligned with input_ids: the shift is in the loss, once
    position_ids_1N  0 1 2 3         0 1 2          restart with every record
    cu_seqlens_S     0       4             7        int32, where each record begins, and the end
    segment_N        0 0 0 0         1 1 1          which of the batch's records a token belongs to
    targets_M          1 2             4 5          where the hidden states stand that predict a target: one before it
    records_M          0 0             1 1          which of the batch's records a target belongs to

Legend: N tokens of the batch, M targets among them, S records + 1. The first token of a record is nobody's target: what
stands before it in the row is another record. What a GPU would have to be waited for (how many targets there are, and
where) is counted here, on the CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from train.plan import Row
from train.text.tokens import Example

IGNORE = -100
"""The label of a position that is no target, as torch's cross_entropy has it."""


@dataclass(frozen=True, slots=True, eq=False)
class PackedBatch:
    """The rows of one forward pass, laid end to end. `records` are indices into the examples they came from."""

    input_ids_1N: Tensor
    labels_1N: Tensor
    position_ids_1N: Tensor
    cu_seqlens_S: Tensor
    segment_N: Tensor
    targets_M: Tensor
    records_M: Tensor
    max_seqlen: int
    records: tuple[int, ...]
    targets: int

    @property
    def tokens(self) -> int:
        """How many tokens the batch holds."""
        return self.input_ids_1N.shape[1]

    def to(self, device: torch.device) -> "PackedBatch":
        """Give the same batch on a device."""
        if self.input_ids_1N.device == device:
            return self
        return PackedBatch(
            self.input_ids_1N.to(device),
            self.labels_1N.to(device),
            self.position_ids_1N.to(device),
            self.cu_seqlens_S.to(device),
            self.segment_N.to(device),
            self.targets_M.to(device),
            self.records_M.to(device),
            self.max_seqlen,
            self.records,
            self.targets,
        )


def make_batch(examples: Sequence[Example], rows: Sequence[Row]) -> PackedBatch:
    """Lay the records of `rows` end to end, on the CPU. Needs at least one record."""
    records = tuple(i for row in rows for i in row)
    lengths = np.asarray([len(examples[i]) for i in records])
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.concatenate([examples[i].input_ids for i in records]).astype(np.int64)
    supervised = np.concatenate([examples[i].supervised for i in records])
    supervised[bounds[:-1][lengths > 0]] = False
    segment = np.repeat(np.arange(len(records)), lengths)
    predicted = np.flatnonzero(supervised)
    return PackedBatch(
        input_ids_1N=torch.from_numpy(ids)[None],
        labels_1N=torch.from_numpy(np.where(supervised, ids, IGNORE))[None],
        position_ids_1N=torch.from_numpy(np.arange(len(ids)) - np.repeat(bounds[:-1], lengths))[None],
        cu_seqlens_S=torch.from_numpy(bounds.astype(np.int32)),
        segment_N=torch.from_numpy(segment),
        targets_M=torch.from_numpy(predicted - 1),
        records_M=torch.from_numpy(segment[predicted]),
        max_seqlen=int(lengths.max()),
        records=records,
        targets=int(supervised.sum()),
    )
