"""One optimizer step shared out among processes: each its rows, and all the same number of forward passes.

rows of a step      0 1 2 3 4 5 6        two ranks, passes of 2 rows
rank 0              │ 0 3 │ 4 6 │
rank 1              │ 1 2 │ 5   │        a pass with fewer rows, or none, is made all the same:
                                         processes that shard a model wait for each other in every pass
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from train.plan.plan import Row, Step

Pass = tuple[Row, ...]
"""The rows of one forward pass; () where a rank has none left."""


def passes(
    step: Step, lengths: Sequence[int] | npt.NDArray[np.int64], *, ranks: int, micro_batch: int
) -> tuple[tuple[Pass, ...], ...]:
    """Deal the rows of a step to ranks, each cut into forward passes of `micro_batch` rows: (ranks, passes).

    `lengths` are the tokens of each record. All ranks together have the rows of the step, each once; no rank has two
    rows more than another, nor more tokens by more than the longest row has. One rank has the rows as they come.
    """
    tokens = [sum(int(lengths[i]) for i in row) for row in step.rows]
    longest_first = sorted(range(len(tokens)), key=lambda row: -tokens[row])
    held: list[list[int]] = [[] for _ in range(ranks)]
    load = [0] * ranks
    for at in range(0, len(longest_first), ranks):
        # Of every so many rows the longest goes to the rank with the least, and so on: loads stay within one row.
        lightest_first = sorted(range(ranks), key=lambda rank: load[rank])
        for rank, row in zip(lightest_first, longest_first[at : at + ranks], strict=False):
            held[rank].append(row)
            load[rank] += tokens[row]
    count = -(-len(tokens) // (ranks * micro_batch))
    in_order = [[step.rows[row] for row in sorted(rows)] for rows in held]
    return tuple(tuple(tuple(rows[n * micro_batch : (n + 1) * micro_batch]) for n in range(count)) for rows in in_order)
