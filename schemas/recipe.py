"""The recipe: sources and the settings of each stage, in one file."""

from pydantic import Field

from schemas.config import (
    Config,
    DecontaminateConfig,
    DedupConfig,
    Format,
    IngestConfig,
    NormalizeConfig,
    PiiConfig,
    RulesConfig,
    ScoreConfig,
    SelectConfig,
    SignalsConfig,
    SplitConfig,
)


class SourceRecipe(IngestConfig):
    """One source of a recipe: its files, and how they are read."""

    format: Format
    """Format of the files; auto looks at the first rows and says what it decided."""
    inputs: tuple[str, ...] = Field(min_length=1)
    """Files, globs or hf://datasets/ paths; relative ones are looked up from the recipe's folder."""


class Recipe(Config):
    """A whole pipeline: the dataset, its sources, and the configuration of each stage.

    A stage that is left out does not run; an empty table runs it with the defaults.
    """

    dataset: str | None = None
    """Name of the dataset; `--name` stands above it."""
    sources: tuple[SourceRecipe, ...] = ()
    """Sources to ingest first, where they are not in the dataset yet."""
    normalize: NormalizeConfig | None = None
    rules: RulesConfig | None = None
    pii: PiiConfig | None = None
    signals: SignalsConfig | None = None
    dedup: DedupConfig | None = None
    decontaminate: DecontaminateConfig | None = None
    score: ScoreConfig | None = None
    select: SelectConfig | None = None
    split: SplitConfig | None = None
