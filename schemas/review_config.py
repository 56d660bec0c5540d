"""Configuration of human review: serving Argilla, choosing and pushing rows, pulling decisions."""

from typing import Annotated

from pydantic import Field

from schemas.config import Config


class ReviewConfig(Config):
    """How reviewers' responses become decisions about rows; the stage `review` records it."""

    min_submitted: Annotated[int, Field(ge=1, le=100)] | None = None
    """Responses that a row needs before it is decided; by default as many as the push asked for."""
