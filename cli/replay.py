"""The dataset of `--replay`: opened beside the one that is trained on, and what the two have in common."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import ConfigError
from schemas.train_config import TrainConfig

if TYPE_CHECKING:
    from schemas.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Replayed:
    """A version to replay. `config` names it by its number, so that a resumed run replays the same."""

    dataset: "Dataset"
    config: TrainConfig
    digest: str
    known: frozenset[str]


def open_replay(config: TrainConfig, dataset: "Dataset", store: Path) -> Replayed | None:
    """Open the dataset that `config` replays beside `dataset`; None where it replays none.

    `known` are the ids of its train records that the train or val split of `dataset` holds too, by id or by content.
    Raises ConfigError for an unknown dataset, for the very version that is trained on, and for one that has no train
    records beyond those of `dataset`.
    """
    replayed = config.replayed()
    if replayed is None or config.replay is None:
        return None
    from schemas.dataset import open_dataset
    from schemas.manifest import digest

    reference, share = replayed[0], config.replay.rpartition(":")[2]
    other = open_dataset(reference, store)
    manifest, where = other.manifest, f"--replay {config.replay}"
    if manifest.id == dataset.manifest.id:
        expected = "another dataset: replay keeps what a model learnt elsewhere"
        raise ConfigError(where, f"{reference} is the version that is trained on", expected)
    total, known = _known(other, dataset)
    if not total:
        raise ConfigError(where, "no kept rows in split train", "at least one", "run sft curate split on it")
    if len(known) == total:
        found = f"its {total:,} train records all stand in {dataset.manifest.name} too"
        raise ConfigError(where, found, "records of its own to replay")
    pinned = str(Path(reference).resolve()) if reference.endswith(".json") else f"{manifest.name}@{manifest.seq}"
    return Replayed(
        other,
        config.model_copy(update={"replay": f"{pinned}:{share}"}),
        digest([manifest.id, manifest.train_visible]),
        known,
    )


def _known(other: "Dataset", dataset: "Dataset") -> tuple[int, frozenset[str]]:
    """Count the train records of `other`, and give the ids of those whose id or content is in `dataset`."""
    import polars as pl

    def rows(of: "Dataset", *splits: str) -> pl.LazyFrame:
        kept = of.scan(["id", "content_hash", "kept", "split"]).filter(pl.col("kept") & pl.col("split").is_in(splits))
        return kept.select("id", "content_hash")

    theirs = rows(other, "train").collect(engine="streaming")
    ours = rows(dataset, "train", "val").collect(engine="streaming")
    same = [theirs.join(ours, on=column, how="semi")["id"] for column in ("id", "content_hash")]
    return len(theirs), frozenset(pl.concat(same).to_list())
