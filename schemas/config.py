"""Configuration, written once: one frozen model per stage; the docstring under a field is its help text.

`cli/options.py` turns the fields into command line options, a recipe (TOML) fills the same models, and the manifest
records the resolved values. Bounds live here, with one reason or source per threshold. `schemas/train_config.py` holds
the trainer's.
"""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Base of every configuration: frozen, no unknown keys, help text from the docstring under each field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)
