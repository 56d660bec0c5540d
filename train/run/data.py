"""What a run is trained on: records, and the digests that name them. Nothing here knows of stores."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from schemas.record import Record


@dataclass(frozen=True, slots=True)
class Origin:
    """A source of rows, as the manifest states it: for the model card. `uris` are files on the hub (hf://)."""

    name: str
    license: str | None = None
    uris: tuple[str, ...] = ()


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
    replay_digest: str = ""
    """Names the version that `replay` is of."""
    replay_known: frozenset[str] = frozenset()
    """Ids in `replay` of records that stand in train or val too, by id or by content: they are not replayed."""
    scores: pl.DataFrame | None = None
    """What `TrainConfig.curriculum` orders by: columns `id` and `score` (null where there is none)."""
    general: Sequence[Record] | None = None
    """The records that forgetting is measured on (`TrainConfig.general`); None where nothing is measured."""
    clusters: Sequence[tuple[str, str]] = ()
    """(val id, train id) of rows of one near-duplicate cluster, as the dataset knows them: preflight refuses them."""
    origins: tuple[Origin, ...] = ()
    """Where the rows come from."""
