"""The other dataset: `--against` names a version whose rows stand above all."""

import re

from schemas.config import DedupConfig
from schemas.dataset import Dataset, open_dataset
from schemas.errors import ConfigError, CorruptObjectError

_PINNED = re.compile(r"(?P<reference>.+):(?P<id>[0-9a-f]{16})")


def pin(dataset: Dataset, config: DedupConfig) -> DedupConfig:
    """Check the names in the settings, and name the other dataset's version exactly: its number, and how its id begins.

    Raises ConfigError for a source that is not there, and for the dataset itself.
    """
    sources = sorted({shard.source for shard in dataset.shards})
    if unknown := [name for name in config.source_priority if name not in sources]:
        raise ConfigError(
            "dedup, source_priority", f"no source is named {', '.join(unknown)}", f"one of {', '.join(sources)}"
        )
    if config.against is None:
        return config
    reference, other = _open(dataset, config.against)
    if other.manifest.name == dataset.manifest.name:
        raise ConfigError(
            f"dedup, against {config.against}",
            "the dataset itself",
            "another one: its own rows are compared in any case",
        )
    if "@" not in reference and not reference.endswith(".json"):
        reference = f"{reference}@{other.manifest.seq}"
    return config.model_copy(update={"against": f"{reference}:{other.manifest.id[:16]}"})


def open_other(dataset: Dataset, config: DedupConfig) -> Dataset | None:
    """Open the other dataset's version, if there is one."""
    return _open(dataset, config.against)[1] if config.against else None


def _open(dataset: Dataset, against: str) -> tuple[str, Dataset]:
    pinned = _PINNED.fullmatch(against)
    reference = pinned["reference"] if pinned else against
    other = open_dataset(reference, dataset.root)
    if pinned and not other.manifest.id.startswith(pinned["id"]):
        raise CorruptObjectError(
            f"dedup, against {against}",
            f"{reference} has the id {other.manifest.id[:16]} here",
            "the version that the settings name",
            f"name it as {reference} to take it as it is now",
        )
    return reference, other
