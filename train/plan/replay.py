"""Replay: records of another dataset in every epoch, so that a model keeps what it learnt from their like.

They are read round after round, each round all of them in a drawn order. An epoch takes as many as make up the share
and the next epoch goes on from there: few records repeat, of many every epoch sees others, and none is seen twice
before all were seen once, neither in the run nor within an epoch.
"""

import numpy as np
import numpy.typing as npt

from train.plan.draw import Pool


class Replay:
    """The records of replay, read on from epoch to epoch."""

    def __init__(self, pool: Pool, share: float, seed: int) -> None:
        if not 0 < share < 1:
            raise ValueError(f"replay's share is {share}, and must be above 0 and below 1")
        self._pool, self._share = pool, share
        self._rounds = pool.endless(seed, "replay")
        self._left = np.zeros(0, np.int64)

    def take(self, others: int) -> npt.NDArray[np.int64]:
        """Draw places in the pool that make up the share of an epoch with `others`, to the nearest record."""
        wanted = round(others * self._share / (1 - self._share))
        begun = self._left[:wanted]
        taken, self._left = [begun], self._left[wanted:]
        wanted -= len(begun)
        while wanted:
            drawn = next(self._rounds)
            # What this epoch has from the round before comes last in this one.
            drawn = drawn[np.argsort(np.isin(drawn, begun), kind="stable")]
            taken.append(drawn[:wanted])
            self._left = drawn[wanted:]
            wanted -= len(taken[-1])
        return np.concatenate(taken)
