"""Packed rows as tensors: records end to end, nothing between them.

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

A batch may be padded to a fixed size: tokens at its end that are nobody's targets, in segments of their own. Nothing of
a record sees them, for attention ends at a record's bounds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from train.plan import Row
from train.text.tokens import Example, Tokens

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
    padding: int = 0

    @property
    def tokens(self) -> int:
        """How many tokens of records the batch holds."""
        return self.input_ids_1N.shape[1] - self.padding

    def to(self, device: torch.device) -> "PackedBatch":
        """Give the same batch on a device, as `sent` does."""
        return self.moved(lambda tensor: sent(tensor, device))

    def moved(self, move: Callable[[Tensor], Tensor]) -> "PackedBatch":
        """Give a batch whose tensors went through `move`."""
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: move(value) for name, value in held.items() if isinstance(value, Tensor)})


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Give a tensor on a device. To a GPU it goes from pinned memory, so that nobody waits for the copy."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def make_batch(
    examples: Sequence[Example],
    rows: Sequence[Row],
    *,
    pad_tokens: int | None = None,
    pad_records: int | None = None,
    pad_longest: int | None = None,
) -> PackedBatch:
    """Lay the records of `rows` end to end, on the CPU. Needs at least one record.

    With `pad_tokens` the batch has that many tokens, whatever its rows hold, and with `pad_records` bounds of that many
    records: what is compiled always sees the same shapes. `pad_longest` is the longest record of any batch, which then
    is told to kernels whatever this batch's longest is. Raises ValueError where the rows hold more than that; the
    padding needs the bounds of one record itself.
    """
    records = tuple(i for row in rows for i in row)
    if isinstance(examples, Tokens):
        ids, supervised, lengths = examples.end_to_end(np.asarray(records, np.int64))
    else:
        few = Tokens.of([examples[i] for i in records])
        ids, supervised, lengths = few.end_to_end(np.arange(len(records)))
    bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    supervised[bounds[:-1][lengths > 0]] = False
    labels = np.where(supervised, ids, IGNORE)
    positions = np.arange(len(ids)) - np.repeat(bounds[:-1], lengths)
    segment = np.repeat(np.arange(len(records)), lengths)
    predicted = np.flatnonzero(supervised)
    records_M = segment[predicted]
    padding, longest = 0, int(lengths.max())
    if pad_tokens is not None or pad_records is not None:
        padding = 0 if pad_tokens is None else pad_tokens - len(ids)
        bounds = _padded_bounds(bounds, padding, longest, pad_records)
        ids = np.pad(ids, (0, padding))  # token 0: every vocabulary has it
        labels = np.pad(labels, (0, padding), constant_values=IGNORE)
        positions = np.append(positions, np.arange(padding) % longest)  # no position that the model was not made for
        segment = np.pad(segment, (0, padding), constant_values=len(records))
        longest = int(np.diff(bounds).max())
        rounded = 1 << (longest - 1).bit_length()  # few values, so that kernels are made for few
        longest = rounded if pad_longest is None else max(longest, pad_longest)
    return PackedBatch(
        input_ids_1N=torch.from_numpy(ids)[None],
        labels_1N=torch.from_numpy(labels)[None],
        position_ids_1N=torch.from_numpy(positions)[None],
        cu_seqlens_S=torch.from_numpy(bounds.astype(np.int32)),
        segment_N=torch.from_numpy(segment),
        targets_M=torch.from_numpy(predicted - 1),
        records_M=torch.from_numpy(records_M),
        max_seqlen=longest,
        records=records,
        targets=len(predicted),
        padding=padding,
    )


def idle_batch(examples: Sequence[Example], row: Row, **shape: int) -> PackedBatch:
    """Make a batch for a process that has no rows left while others have: one record, and no targets at all."""
    batch = make_batch(examples, [row[:1]], **shape)
    nothing = torch.zeros(0, dtype=torch.int64)
    labels_1N = torch.full_like(batch.labels_1N, IGNORE)
    return replace(batch, labels_1N=labels_1N, targets_M=nothing, records_M=nothing, records=(), targets=0)


def _padded_bounds(
    bounds: npt.NDArray[np.int64], padding: int, longest: int, pad_records: int | None
) -> npt.NDArray[np.int64]:
    """Bound the padding by itself, in pieces no longer than the longest record where bounds are left for that.

    One long piece would cost as much attention as a record of that length. Bounds that remain repeat the end.
    """
    pieces = -(-padding // longest)
    if pad_records is not None:
        left = pad_records - (len(bounds) - 1)
        if left < min(1, pieces):
            raise ValueError(f"{len(bounds) - 1} records and padding do not fit into bounds of {pad_records}")
        pieces = min(pieces, left)
    if padding < 0:
        raise ValueError(f"the rows hold {bounds[-1]} tokens, more than the {bounds[-1] + padding} of a batch")
    ends = bounds[-1] + padding * np.arange(1, pieces + 1) // max(1, pieces)
    whole = np.append(bounds, ends)
    return whole if pad_records is None else np.pad(whole, (0, pad_records + 1 - len(whole)), mode="edge")
