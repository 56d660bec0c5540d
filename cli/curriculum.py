"""The column of `--curriculum`: what a dataset says of its train records, by which the first epoch is ordered."""

from typing import TYPE_CHECKING

from schemas.errors import ConfigError
from schemas.stages import ANNOTATION_COLUMNS

if TYPE_CHECKING:
    import polars as pl

    from schemas.dataset import Dataset

LENGTH = "tokens"
"""Orders by the length of the tokenised examples, which the trainer knows itself."""


def read_scores(dataset: "Dataset", curriculum: str | None) -> "pl.DataFrame | None":
    """Read what orders the first epoch: columns `id` and `score` of the train records; None where nothing is read.

    Raises ConfigError, with the columns that there are, for one that is unknown, no number, or empty.
    """
    if curriculum is None or curriculum.removeprefix("-") == LENGTH:
        return None
    import polars as pl

    column = curriculum.removeprefix("-")
    kinds = {name: kind for stage in ANNOTATION_COLUMNS.values() for name, kind in stage.items()}
    numbers = [name for name, kind in kinds.items() if kind.is_numeric()]
    here = pl.col("kept") & (pl.col("split") == "train")
    if column in numbers:
        rows = dataset.scan(["id", column, "kept", "split"]).filter(here)
        found = rows.select("id", score=pl.col(column).fill_nan(None)).collect(engine="streaming")
        if found["score"].is_not_null().any():
            return found
        said = f"no train record has a value of {column}"
    else:
        said = f"{column} is no number" if column in kinds else f"no column {column}"
    counted = dataset.scan([*numbers, "kept", "split"]).filter(here).select(pl.col(numbers).fill_nan(None).count())
    filled = [name for name, count in counted.collect(engine="streaming").row(0, named=True).items() if count]
    raise ConfigError(
        f"--curriculum {curriculum}",
        f"{said} in {dataset.manifest.name}@{dataset.manifest.seq}",
        f"one of {', '.join([LENGTH, *filled])}",
        "run sft curate score for perplexity, ifd and others",
    )
