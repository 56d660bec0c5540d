"""Configuration of `sft eval` and `sft generate`: what a run's model is asked, and how it answers."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.config import Config

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


class EvalConfig(Config):
    """What a run's model is measured on, and beside what."""

    split: Literal["test", "val", "train"] | None = None
    """Split whose kept rows are asked; by default test, else val."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Rows at most, drawn by a hash of their ids: the same ones each time. By default all of the split."""
    base: bool = True
    """Ask the base model too, and tell the difference."""
    best: bool = False
    """Measure the weights of the lowest validation loss (best/) instead of the last ones (final/)."""
    new_tokens: Annotated[int, Field(ge=1, le=8192)] = 256
    """Tokens of an answer, at most. A base model seldom stops by itself."""
    batch_tokens: Annotated[int, Field(ge=1)] = 8192
    """Tokens that are worked on at once, padding and answers included; fewer take less memory. Halved, and said, where
    memory runs out."""
    samples: Annotated[int, Field(ge=0)] = 5
    """Records shown as samples, and of the most improved and most worsened ones."""
    precision: Precision = "auto"
    """Precision of the computation; auto is that of training: half on a GPU, fp32 on a CPU."""
    device: Device = "auto"
    """Where to compute; auto takes the GPU where there is one."""


class GenerateConfig(Config):
    """How a model answers what it is asked."""

    base: bool = False
    """Ask the base model of the run instead of the tuned one."""
    best: bool = False
    """Ask the weights of the lowest validation loss (best/) instead of the last ones (final/)."""
    temperature: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """How much chance decides: 0 takes the likeliest token each time, 1 draws as the model weighs them."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Draw from the likeliest tokens only, those that hold this share of the probability."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 17
    """Decides what is drawn: the same prompts, asked as often, get the same answers."""
    new_tokens: Annotated[int, Field(ge=1, le=8192)] | None = None
    """Tokens of an answer, at most; by default 512, and never more than half of what the model was made for."""
    batch_tokens: Annotated[int, Field(ge=1)] = 8192
    """Tokens that are worked on at once, padding and answers included; fewer take less memory. Halved, and said, where
    memory runs out."""
    precision: Precision = "auto"
    """Precision of the computation; auto is half on a GPU, fp32 on a CPU."""
    device: Device = "auto"
    """Where to compute; auto takes the GPU where there is one."""
