"""The stages of the pipeline by name, in the order in which they run.

A stage's module is imported when it is asked for, so that `sft --help` and the stages before it do not pay for numpy,
scipy and datasketch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from schemas.errors import ConfigError

if TYPE_CHECKING:
    from curate.stage import Stage

PIPELINE: tuple[str, ...] = (
    "normalize",
    "rules",
    "pii",
    "signals",
    "dedup",
    "decontaminate",
    "score",
    "select",
    "split",
)
"""The stages that run over a dataset; ingest makes it and review is people's work."""

REVIEW = "review"
"""What people decided: the stage that comes after all others where a version has it."""

_ELSEWHERE = {"score": "quality.score", REVIEW: "review.stage"}
"""Stages that lie in a folder of another name."""


def stage(name: str) -> "Stage":
    """Give a stage by its name; raise ConfigError that names the known ones."""
    if name not in (*PIPELINE, REVIEW):
        raise ConfigError(f"stage {name!r}", "no such stage", f"one of {', '.join(PIPELINE)}")
    return import_module(f"curate.{_ELSEWHERE.get(name, name)}").STAGE
