"""Configuration of human review: serving Argilla, choosing and pushing rows, pulling decisions."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from schemas.config import Config, Words


def _names(value: Any) -> Any:
    """Read names that are separated by commas, or given one by one."""
    parts = [value] if isinstance(value, str) else list(value)
    return tuple(name.strip() for part in parts for name in str(part).split(",") if name.strip())


class ServeConfig(Config):
    """How the embedded Argilla serves."""

    home: Path | None = None
    """Folder of the server: its database, secrets and log; by default `review` in the store."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Port on this machine; by default 6900, Argilla's usual one, or the next that is free."""
    reviewers: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    """User names of reviewers, separated by commas; those there already stay."""
    workspace: Words = "review"
    """Workspace that the datasets are in."""

    @field_validator("reviewers")
    @classmethod
    def _typable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Argilla takes any text of at least one character; people must be able to type it, and commas part names."""
        for name in value:
            if not name or len(name) > 100 or not all(c.isalnum() or c in "._-@+" for c in name):
                raise ValueError(f"{name!r} is no user name: letters, digits and . _ - @ + (up to 100)")
            if name == "owner":
                raise ValueError("'owner' is the account that owns the server; name reviewers otherwise")
        return value


class ReviewConfig(Config):
    """How reviewers' responses become decisions about rows; the stage `review` records it."""

    min_submitted: Annotated[int, Field(ge=1, le=100)] | None = None
    """Responses that a row needs before it is decided; by default as many as the push asked for."""


class PullConfig(ReviewConfig):
    """How responses are brought back, and what is warned of."""

    pseudonyms: bool | None = None
    """Store pseudonyms in place of reviewers' names; their key stays in the store. By default as the version has it."""
    rubber_stamp: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    """Warn where this share of the verdicts, or more, is the suggested one. (Suggestions are filled in before anybody
    looks; a pipeline that is right that often is rarer than people who click on.)"""


class PushConfig(Config):
    """Which rows go to reviewers, and how they are shown."""

    select: Words = "uncertain"
    """What is chosen: uncertain (their review teaches most, by a learnt score; by chance until there is one),
    borderline (near where the verdict flips), random (of the kept rows), conflicts (one prompt, several answers),
    disagreement (of scorers, or of reviewers), cluster (near-duplicates together), rule:NAME (what a rule found, such
    as rule:short_response)."""
    n: Annotated[int, Field(ge=1, le=50_000)] = 200
    """Rows to choose, divided among sources by their share. A server takes 120 a second, a person 60 an hour."""
    source: Words | None = None
    """Choose from this source alone."""
    seed: Annotated[int, Field(ge=0)] = 1
    """Seed of all that is drawn by chance; another one draws other rows."""
    again: bool = False
    """Also choose rows that reviewers have decided already."""
    blind: bool = False
    """Show no suggestion and nothing that the pipeline thinks: what people say then is their own opinion. (Suggestions
    are filled in before a reviewer looks, and one click accepts them.)"""
    refresh: bool = False
    """Send rows that are there already once more, as they are shown now; what people said stays."""
    min_submitted: Annotated[int, Field(ge=1, le=100)] = 2
    """Responses that a row needs to be complete; two are the least that can tell whether reviewers agree."""
    guidelines: Path | None = None
    """Markdown file with guidelines for reviewers, in place of those that are made from the dataset."""

    @model_validator(mode="after")
    def _agreed(self) -> Self:
        if self.blind and self.refresh:
            raise ValueError("refresh cannot take back suggestions that were shown: push to another --dataset instead")
        return self


class AnswerConfig(Config):
    """How a run's model and its base answer prompts, for people to compare."""

    new_tokens: Annotated[int, Field(ge=1, le=8192)] = 256
    """Tokens of an answer, at most; a reviewer reads 200 words in a minute. A base model seldom stops by itself."""
    reference: bool = True
    """Show the dataset's own answer too, as one more answer that reviewers do not know from the others."""
    batch_tokens: Annotated[int, Field(ge=1)] = 8192
    """Tokens that are worked on at once, padding and answers included; fewer take less memory."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the computation; auto is that of training: half on a GPU, fp32 on a CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes the GPU where there is one."""
