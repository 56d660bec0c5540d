"""Configuration, written once: one frozen model per stage; the docstring under a field is its help text.

`cli/options.py` turns the fields into command line options, a recipe (TOML) fills the same models, and the manifest
records the resolved values. Bounds live here, with one reason or source per threshold. `schemas/train_config.py` holds
the trainer's.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Words = Annotated[str, Field(min_length=1)]


class Config(BaseModel):
    """Base of every configuration: frozen, no unknown keys, help text from the docstring under each field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)


class IngestConfig(Config):
    """How files become rows of a source."""

    source: Words | None = None
    """Name of the source; by default the name of the format."""
    license: Words | None = None
    """Licence of the rows, as an SPDX expression such as CC-BY-SA-3.0."""
    terms: Words | None = None
    """Further terms of use, in words, such as those of the provider whose model wrote the answers."""
    generated_by: Words | None = None
    """The model that wrote the answers, where one did."""
    strict: bool = False
    """Stop at the first row that cannot be read, and commit nothing."""
    max_row_mb: Annotated[int, Field(ge=1, le=1024)] = 64
    """Longest row that is read, in MB; a longer one is rejected (a bound on memory, far above any real row)."""


class NormalizeConfig(Config):
    """What normalize rewrites. Each edit is logged with the row."""

    nfc: bool = True
    """Join letters and accents to their composed form (Unicode NFC)."""
    line_ends: bool = True
    """Make line ends uniform (LF)."""
    control_characters: bool = True
    """Remove control and zero-width characters (tabs, line ends and joiners inside words stay)."""
    surrounding_blanks: bool = True
    """Remove blanks before and after each text."""
    role_names: bool = True
    """Replace other names of roles (human, gpt, bot, model …) by system, user, assistant, tool."""
    empty_system: bool = True
    """Remove system prompts and contexts without text (a context field that is "" is none, and no edit)."""


class RulesConfig(Config):
    """Which rules judge the rows."""

    disable: tuple[str, ...] = ()
    """Rules that do not judge, by name (see `sft curate rules --list`)."""
    short_words: Annotated[int, Field(ge=0)] = 3
    """Responses with fewer words are flagged; not rejected, as most one-word answers of Alpaca are right."""


class SignalsConfig(Config):
    """What goes into the heuristic quality."""

    good_response_words: Annotated[int, Field(ge=1)] = 80
    """Responses from this length on get full marks for length (a long-answer baseline is hard to beat: zhao24b)."""
    max_repetition: Annotated[float, Field(gt=0.0, le=1.0)] = 0.6
    """Share of repeated 10-byte pieces at which the quality is 0 (data-juicer, alpaca-cot-en-refine: 0.6)."""
    min_alphanumeric: Share = 0.1
    """Share of letters and digits at which the quality is 0 (data-juicer, alpaca-cot-en-refine: 0.1)."""
    good_alphanumeric: Share = 0.6
    """Share of letters and digits, blanks apart, from which on the quality is full (medians: code 0.82, prose 0.97)."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.good_alphanumeric <= self.min_alphanumeric:
            raise ValueError("good_alphanumeric should be above min_alphanumeric")
        return self


class DedupConfig(Config):
    """What counts as a duplicate, and which of two rows stays."""

    threshold: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    """Jaccard similarity of word n-grams from which on a row is a near-duplicate."""
    compare: Literal["fields", "record"] = "fields"
    """What must be alike: fields (the record, what is asked and answered, and the answer, each) or record (the whole
    record alone, as other tools have it: two questions about one long text are duplicates then)."""
    ngram: Annotated[int, Field(ge=1, le=32)] = 5
    """Words in an n-gram; shorter texts use as many as they have."""
    num_perm: Annotated[int, Field(ge=16, le=1024)] = 128
    """MinHash permutations per signature."""
    recall: Annotated[float, Field(ge=0.5, lt=1.0)] = 0.99
    """Share of pairs at the threshold that the candidate search must find; decides the bands."""
    seed: int = 1
    """Seed of the MinHash permutations."""
    source_priority: tuple[str, ...] = ()
    """Sources whose rows stay before those of others, most trusted first."""
    against: Words | None = None
    """Another dataset (NAME, NAME@7, NAME@tag) whose rows stand above all: what is in there is left out here."""
    max_source_loss: Annotated[float, Field(gt=0.0, le=1.0, exclude=True)] = 0.5
    """Largest share of a source's rows that may go before dedup stops and shows the clusters (exit 1)."""
    max_cluster_loss: Annotated[float, Field(gt=0.0, le=1.0, exclude=True)] = 0.1
    """Largest share of all rows that may go to one cluster before dedup stops and shows the clusters (exit 1)."""
    guard_rows: Annotated[int, Field(ge=1, exclude=True)] = 100
    """Fewer rows than this may always go: that many are looked through by eye."""
    memory: Annotated[float, Field(ge=0.25, exclude=True)] = 3.0
    """Memory in GB that the search may take; beyond it, it works in a file of the store's tmp folder."""


class SplitConfig(Config):
    """How rows are divided into train, val and test without a leak."""

    train: Share = 0.8
    """Share of the clusters that goes to training."""
    val: Share = 0.1
    """Share of the clusters for validation during training."""
    test: Share = 0.1
    """Share of the clusters kept for the end."""
    salt: str = "sft"
    """Another salt gives another split. Changing it, or a share, deals all rows anew."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if abs(self.train + self.val + self.test - 1.0) > 1e-6:
            raise ValueError(f"train + val + test is {self.train + self.val + self.test:g} and should be 1")
        if self.train == 0.0 or self.val == 0.0:
            raise ValueError("train and val need a share above 0")
        return self


Format = Literal["alpaca", "dolly", "openorca", "sharegpt", "openai", "auto"]


ExportFormat = Literal["jsonl", "parquet", "alpaca", "dolly", "openorca", "sharegpt", "openai"]


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
    signals: SignalsConfig | None = None
    dedup: DedupConfig | None = None
    split: SplitConfig | None = None
