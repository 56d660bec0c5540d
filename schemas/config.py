"""Configuration, written once: one frozen model per stage; the docstring under a field is its help text.

`cli/options.py` turns the fields into command line options, a recipe (TOML) fills the same models, and the manifest
records the resolved values. Bounds live here, with one reason or source per threshold. `schemas/train_config.py` holds
the trainer's.
"""

import os
from glob import iglob
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, cast, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_serializer, field_validator, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Words = Annotated[str, Field(min_length=1)]


class Config(BaseModel):
    """Base of every configuration: frozen, no unknown keys, help text from the docstring under each field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)

    files: ClassVar[tuple[str, ...]] = ()
    """Fields that may name files."""

    def started_from(self, folder: Path) -> Self:
        """Give the same settings with the files that lie in a folder named from there: a recipe's own."""

        def named(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(named(one) for one in cast("tuple[Any, ...]", value))
            if not isinstance(value, str | Path):
                return value
            here = os.path.join(folder, value)  # noqa: PTH118 # pathlib raises where a text is too long for a name
            is_there = os.path.exists(here) or any(iglob(here))  # noqa: PTH110, PTH207 # likewise
            return type(value)(here) if is_there else value

        return self.model_copy(update={name: named(getattr(self, name)) for name in self.files})


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
    unwrap: bool = True
    """Take prompts of other toolkits that stand in a field apart into turns (Alpaca, ChatML …; docs/wrappers.md)."""


class Bounds(Config):
    """A range of numbers, both ends included."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("needs min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is above max, so that nothing is found")
        return self


class CustomRule(Config):
    """One `[[rule]]` of a file with a dataset's own rules. A row is found where all its tests hold."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """Small letters, digits and underscores; it becomes custom:NAME."""
    severity: Literal["reject", "review", "fix"]
    """What follows: the row is left out, it is kept and flagged, or its text is rewritten."""
    sentence: Words
    """What the rule finds, in one sentence; people read it as the reason."""
    on: Literal["prompt", "answer", "context", "system", "user"] = "answer"
    """The text that is read: prompt is the user turns with the context, user the user turns alone."""
    matches: Words | None = None
    """Regular expression (of the Rust kind, as polars has it) that must be found."""
    not_matches: Words | None = None
    """Regular expression that must not be found."""
    sources: tuple[str, ...] = ()
    """Sources whose rows it judges; all of them where none is named."""
    replace: str | None = None
    """For severity fix: what stands in place of each match; $1 is the first group."""
    answer_words: Bounds | None = None
    answer_characters: Bounds | None = None
    prompt_words: Bounds | None = None
    prompt_characters: Bounds | None = None
    context_words: Bounds | None = None
    turns: Bounds | None = None

    @model_validator(mode="after")
    def _tests(self) -> Self:
        numbers = (self.answer_words, self.answer_characters, self.prompt_words, self.prompt_characters)
        if not any((self.matches, self.not_matches, *numbers, self.context_words, self.turns)):
            raise ValueError("tests nothing; needs matches, not_matches or a number such as answer_words")
        if (self.severity == "fix") != (self.replace is not None):
            raise ValueError("replace goes with severity fix, and fix needs it")
        if self.severity == "fix" and self.matches is None:
            raise ValueError("fix needs matches: what is replaced")
        return self


class RulesConfig(Config):
    """Which rules fix and judge the rows."""

    files = ("rules",)

    disable: tuple[str, ...] = ()
    """Rules that do not judge, by name (see `sft curate rules --list`)."""
    packs: tuple[Literal["alpaca", "dolly", "openorca"], ...] = ()
    """Packs for all rows; without it, each source has the general pack and that of its format."""
    rules: Words | None = None
    """TOML file with rules of your own (see docs/rules.md); the version records what it says, not where it lay."""
    short_words: Annotated[int, Field(ge=0)] = 3
    """Responses with fewer words are flagged; not rejected, as most one-word answers of Alpaca are right."""


PiiKind = Literal["secret", "card", "iban", "ssn", "email", "phone", "ip"]
"""Kinds of personal data and secrets, the gravest first (docs/pii.md)."""


class PiiConfig(Config):
    """What is done about personal data and secrets, and what counts as such."""

    action: Literal["report", "redact", "reject"] = "report"
    """What becomes of a row with a finding: report it, redact it (`<EMAIL>`, `<PHONE_2>` …) or reject the row."""
    kinds: tuple[PiiKind, ...] = get_args(PiiKind)
    """What is looked for."""
    allow: tuple[Words, ...] = ()
    """Values that are no finding, in any case: as they stand, or all that a regular expression between slashes matches
    as a whole, such as /.*@company\\.com/. Reserved example values (example.com, 555-0100 …) never are one."""
    phone_region: Annotated[str, Field(pattern="^[A-Z]{2}$")] = "US"
    """Country whose phone numbers may stand without + and country code; ZZ for none."""


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


class DecontaminateConfig(Config):
    """Which evaluation sets the rows must not hold, and what counts as holding an item of one."""

    files = ("eval", "allow")

    eval: tuple[str, ...] = ()
    """Evaluation set: a file, a glob, an hf://datasets/ path, or a preset (gsm8k, mmlu, arc, hellaswag, truthfulqa,
    humaneval, mbpp, math, ifeval, alpaca_eval, mt_bench). The version records its name and its SHA-256."""
    eval_field: tuple[str, ...] = ()
    """Field of the evaluation rows that is searched for, such as question or choices.text; by default the prompt, its
    input and its choices are recognised by their usual names."""
    action: Literal["reject", "report"] = "reject"
    """What becomes of a row that holds an item: reject it, or report the match and keep it."""
    coverage: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Share of an item's words that a row must share with it, in order (Tülu 3: half of the tokens)."""
    ngram: Annotated[int, Field(ge=2, le=32)] = 8
    """Words of a shared n-gram that starts a comparison (Tülu 3: 8); items under 40 words take 5, under 20 words 3."""
    min_words: Annotated[int, Field(ge=2)] = 3
    """Items of fewer words are counted and not searched for; those of 3 and 4 match where they are the whole prompt."""
    common_items: Share = 0.001
    """An n-gram in more than this share of the items (and 10) starts no comparison: "which of the following"."""
    common_rows: Share = 0.001
    """A match whose n-grams all stand in more than this share of the rows (and 10) is a template, and none."""
    allow: Words | None = None
    """File of what is allowed, one on a line: an item's id, EVAL:ID, or a text. Its matches are counted, not kept."""

    @field_serializer("eval", "allow")
    def _without_folders(self, value: tuple[str, ...] | str | None) -> Any:
        """Record what a file is called and what it holds, not where it lies."""
        if isinstance(value, tuple):
            return [self._without_folders(name) for name in value]
        return value and (value if "://" in value else value.replace("\\", "/").rpartition("/")[2])


class ScoreConfig(Config):
    """Who scores the rows, and how the scores are weighed into one. Each text is scored once; see docs/scores.md."""

    files = ("difficulty", "embed", "judge_rubric")

    difficulty: Words | None = None
    """Causal language model (folder, hub id, or tiny) that gives perplexity and IFD of each answer."""
    max_tokens: Annotated[int, Field(ge=16)] = 2048
    """Longest record whose difficulty is scored, in tokens, and never more than the model was made for. Longer ones
    have none: an answer that is cut would look easier or harder than it is."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the difficulty model; auto is bf16 or fp16 on a GPU and fp32 on a CPU."""
    device: Annotated[Literal["auto", "cpu", "cuda"], Field(exclude=True)] = "auto"
    """Where models run; auto takes the GPU where there is one."""
    batch_tokens: Annotated[int, Field(ge=16, exclude=True)] = 8192
    """Tokens per forward pass of the difficulty model; halved, and told, where the memory does not suffice."""
    judge: Words | None = None
    """Model that judges each conversation from 1 to 5, by the name that its endpoint knows; see docs/judge.md."""
    judge_url: Annotated[Words | None, Field(exclude=True)] = None
    """Address of an OpenAI-compatible endpoint, such as http://localhost:8000/v1 (vLLM, llama.cpp, Ollama, OpenAI)."""
    judge_key_env: Annotated[str | None, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", exclude=True)] = None
    """Name of the environment variable that holds the endpoint's key; the key itself is written nowhere."""
    judge_rubric: Annotated[Path | None, Field(exclude=True)] = None
    """Text file with the criteria; by default helpfulness, correctness, completeness and clarity (docs/judge.md)."""
    judge_temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    """Temperature of the judge; 0 gives the most repeatable answers."""
    judge_max_characters: Annotated[int, Field(ge=200)] = 24_000
    """Characters of a conversation that the judge sees (about 6,000 tokens of English); the longest turns are cut in
    the middle, which the judge is told and `judge_reason` tells."""
    judge_max_tokens: Annotated[int, Field(ge=16, exclude=True)] = 1024
    """Tokens that the judge may write: a reason of a few sentences and the score; models that think first need more."""
    judge_concurrency: Annotated[int, Field(ge=1, le=1024, exclude=True)] = 8
    """Requests under way at the same time."""
    judge_rate: Annotated[float | None, Field(gt=0.0, exclude=True)] = None
    """Requests per minute at most."""
    judge_retries: Annotated[int, Field(ge=0, le=100, exclude=True)] = 5
    """How often a request is sent again after a time-out, 429 or 5xx; waits double from 1 s, or are the server's."""
    judge_repeats: Annotated[int, Field(ge=0, le=10, exclude=True)] = 2
    """How often the judge is asked again, with what was wrong, after an answer that is no judgement."""
    judge_timeout_s: Annotated[float, Field(gt=0.0, exclude=True)] = 120.0
    """Seconds to wait for an answer."""
    judge_max_cost: Annotated[float | None, Field(gt=0.0, exclude=True)] = None
    """Cost of a run at most, in the currency of the prices; the judge stops before it could be exceeded."""
    judge_input_price: Annotated[float, Field(ge=0.0, exclude=True)] = 0.0
    """Price of a million tokens that the judge reads."""
    judge_output_price: Annotated[float, Field(ge=0.0, exclude=True)] = 0.0
    """Price of a million tokens that the judge writes."""
    embed: Words | None = None
    """Sentence-transformers model (folder or hub id) that gives each text a vector; see docs/embeddings.md."""
    embed_batch: Annotated[int, Field(ge=1, exclude=True)] = 64
    """Texts that the embedding model reads at a time; halved, and told, where the memory does not suffice."""
    embed_threshold: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    """Cosine similarity from which on two rows count as semantic near-duplicates (DEITA takes 0.9; in one large set
    more than half of the pairs that a filter found were none: marin-community/marin PR#7591)."""
    semantic_action: Literal["report", "reject"] = "report"
    """What is done about semantic near-duplicates: told, or left out but for one row of each group."""
    from_reviews: bool = False
    """Learn from what reviewers decided so far, and give each row the probability that they would keep it unchanged
    (docs/learning.md)."""
    weights: dict[str, float] = {"quality": 1.0}
    """What the combined score is made of, such as quality=1,judge=2,ifd=-0.5: each column by its rank among the kept
    rows, from 0 to 1; a negative weight prefers low values."""

    @model_validator(mode="after")
    def _priced(self) -> Self:
        if self.judge_max_cost is not None and not self.judge_input_price and not self.judge_output_price:
            raise ValueError("judge_max_cost needs a price: judge_input_price, judge_output_price")
        return self

    @field_validator("weights", mode="before")
    @classmethod
    def _parsed(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.split(",")]
        if any(not name.strip() or not equals for name, equals, _ in pairs):
            raise ValueError("should be NAME=WEIGHT,NAME=WEIGHT, such as quality=1,ifd=-0.5")
        return {name.strip(): weight.strip() for name, _, weight in pairs}

    @field_validator("weights")
    @classmethod
    def _weighed(cls, value: dict[str, float]) -> dict[str, float]:
        if not value or not all(isfinite(weight) and weight for weight in value.values()):
            raise ValueError("should name columns, each with a weight that is a number and not 0")
        return value


def _amount(value: Any) -> Any:
    """Read 50_000, 50k, 5M and 1.5B."""
    if not isinstance(value, str):
        return value
    text = value.strip().replace("_", "").replace(",", "")
    factor = {"k": 10**3, "m": 10**6, "b": 10**9}.get(text[-1:].lower())
    try:
        number = float(text[:-1] if factor else text) * (factor or 1)
    except ValueError:
        number = float("nan")
    if not isfinite(number) or number != int(number):
        raise ValueError("should be a whole number such as 50_000, 50k or 5M")
    return int(number)


Amount = Annotated[int, BeforeValidator(_amount), Field(ge=1)]


class SelectConfig(Config):
    """Which of the kept rows stay, and how often each is seen; without any of it, all stay (docs/selection.md)."""

    files = ("tokenizer",)

    commercial: Annotated[bool, Field(exclude_if=lambda wanted: not wanted)] = False  # so that ids stay without it
    """Leave out rows of sources whose licence and terms do not clearly allow commercial use (docs/licences.md)."""
    top: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Share of the rows that stays, above 0 and up to 1: the best by score."""
    rows: Amount | None = None
    """Number of rows that stay, such as 50_000 or 50k."""
    tokens: Amount | None = None
    """Tokens of the rows that stay, such as 5M; the first row that does not fit ends the selection."""
    by: Annotated[str, Field(pattern=r"^-?[a-z][a-z0-9_]*$")] | None = None
    """Column that orders the rows, highest first; with a minus, lowest first (--by=-perplexity). By default `score`
    where the version has it, else `quality`. Rows without a value stand below all others."""
    control: Literal["random", "longest"] | None = None
    """Order the rows by chance, or by the length of the answer, in place of a score: what any score must beat at
    equal tokens (the 1,000 longest answers are a baseline that is hard to beat: zhao24b, PMLR 235)."""
    diverse: bool = False
    """Leave out a row that is too similar to one that was taken before it; needs sft curate score --embed MODEL."""
    max_similarity: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.9
    """Cosine similarity above which --diverse leaves a row out (DEITA: 0.9)."""
    quota: Annotated[tuple[Words, ...], Field(max_length=60)] = ()
    """Most rows of a source or a task: dolly=2000, task:coding=500; with a decimal point a share of the budget, or of
    the rows where there is none: task:coding=0.2."""
    sample: tuple[Words, ...] = ()
    """Rows of a source that are drawn before all else: openorca=50000, or a share: openorca=0.5."""
    seed: Annotated[int, Field(ge=0)] = 1
    """Seed of --sample and of --control random. Rows are drawn by a hash of their id, so added rows move few others."""
    weight: tuple[Words, ...] = ()
    """How often a kept row of a source or a task is seen in an epoch: openorca=0.5, task:coding=2. Others: 1."""
    tokenizer: Words | None = None
    """Tokenizer (tokenizer.json, its folder, or a hub id) that counts tokens; without one, 4 characters are a token."""
    tokenizer_sha256: Annotated[str | None, Field(pattern=r"^[0-9a-f]{64}$")] = None
    """Digest that the tokenizer must have; the version records it."""

    @model_validator(mode="after")
    def _agreed(self) -> Self:
        budgets = [name for name in ("top", "rows", "tokens") if getattr(self, name) is not None]
        if len(budgets) > 1:
            raise ValueError(f"{' and '.join(budgets)} exclude each other: one budget at a time")
        if self.by and not (budgets or self.quota or self.diverse):
            raise ValueError("by orders nothing that is chosen from: give top, rows, tokens, quota or diverse")
        if self.control and self.by:
            raise ValueError("control takes the place of a score: leave by out")
        if self.control and self.diverse:
            raise ValueError("a control looks at nothing else: leave diverse out")
        if self.max_similarity != type(self).model_fields["max_similarity"].default and not self.diverse:
            raise ValueError("max_similarity does nothing without diverse")
        if self.control and not budgets:
            raise ValueError("control needs a budget: tokens, rows or top")
        return self

    @field_serializer("tokenizer")
    def _without_folder(self, value: str | None) -> str | None:
        """Record what a tokenizer is called, not where it lies; its digest stands beside it."""
        return value and value.rstrip("/\\").replace("\\", "/").rpartition("/")[2]


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


ExportFormat = Literal["jsonl", "parquet", "alpaca", "dolly", "openorca", "sharegpt", "openai", "dpo", "hf"]
