"""The form: what reviewers are shown and asked, in our own terms, and the limits that Argilla sets.

A `Form` is made once for each dataset in Argilla, a `Card` for each record. `curate.review.client` turns both into
what the server understands.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

CHAT_MESSAGES = 500
"""Messages that a chat field holds (argilla-server 2.8, as are all limits here)."""
CHAT_CHARACTERS = 20_000
"""Characters of one message; at least one."""
ROLE_CHARACTERS = 20
GUIDELINES_CHARACTERS = 10_000
TERM_VALUES = 250
"""Values that a filter on a metadata property takes."""
OPTIONS = 500
"""Labels of a question."""
AGENT_CHARACTERS = 200


@dataclass(frozen=True)
class Field:
    """Something that is shown: a conversation (`chat`), plain text, or text with Markdown in it."""

    name: str
    title: str
    kind: Literal["chat", "text", "markdown"]
    required: bool = False


@dataclass(frozen=True)
class Question:
    """Something that is asked: one label, any number of labels, a rating, or a text."""

    name: str
    title: str
    kind: Literal["label", "labels", "rating", "text"]
    required: bool = False
    description: str | None = None
    options: Mapping[str, str] = field(default_factory=dict[str, str])
    """Value -> what people read, of `label` and `labels`."""
    ratings: tuple[int, ...] = ()


@dataclass(frozen=True)
class Property:
    """Something that is known of a record and can be filtered and sorted by."""

    name: str
    title: str
    kind: Literal["terms", "integer", "float"]


@dataclass(frozen=True)
class Form:
    """A dataset in Argilla, before it is made."""

    fields: tuple[Field, ...]
    questions: tuple[Question, ...]
    properties: tuple[Property, ...] = ()


@dataclass(frozen=True)
class Suggestion:
    """An answer that is proposed to reviewers: who proposes it, and how sure that is (from 0 to 1)."""

    question: str
    value: Any
    agent: str
    score: float | Sequence[float] | None = None


@dataclass(frozen=True)
class Card:
    """A record as it is sent: `fields` by name (a chat is a sequence of (role, content)), `properties` by name."""

    external_id: str
    fields: Mapping[str, str | Sequence[tuple[str, str]]]
    properties: Mapping[str, Any] = field(default_factory=dict[str, Any])
    suggestions: tuple[Suggestion, ...] = ()
