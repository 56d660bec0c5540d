"""What a run is trained on: records, and the digests that name them. Nothing here knows of stores."""

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.record import Record


@dataclass(frozen=True, slots=True)
class Data:
    """The kept records of two splits, and what names them.

    Records are any sequence: a tuple, or `schemas.dataset.Records`, which reads them from the store when asked: they
    come in order from iteration, and a few by id from `schemas.dataset.find`.
    """

    name: str
    seq: int
    manifest: str
    train_visible: str
    train: Sequence[Record]
    val: Sequence[Record]
    warnings: tuple[str, ...] = ()
    reference: str = ""
    """What --resume opens the dataset by, from any folder; by default NAME@SEQ."""
    store: str | None = None
    """The absolute path of the store that --resume looks in."""
    replay: Sequence[Record] | None = None
    """The train records of the dataset that `TrainConfig.replay` names, to be mixed in; None without."""
    general: Sequence[Record] | None = None
    """The records that forgetting is measured on (`TrainConfig.general`); None where nothing is measured."""
