"""The form: what reviewers are shown and asked, in our own terms, and the limits that Argilla sets.

A `Form` is made once for each dataset in Argilla, a `Card` for each record. `curate.review.client` turns both into
what the server understands.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from curate.review.responses import RATINGS

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
OPTION_CHARACTERS = 500
"""Characters of what people read of a label; a dataset's own rule can say more."""
VISIBLE_OPTIONS = 8
"""Issues that are seen at first: the suggested ones and what people alone can find; all fifty would be a wall."""
AGENT_CHARACTERS = 200


def as_html(text: str) -> str:
    """Write a text of a chat, or of a field without Markdown, so that it is shown as it stands.

    Argilla 2.8 puts these into its page as HTML: a tag would not be seen, and a script in a row would run with the
    rights of whoever reviews it. The limit of CHAT_CHARACTERS holds for what this gives.
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


@dataclass(frozen=True)
class Field:
    """Something that is shown: a conversation (`chat`), plain text, or text with Markdown in it."""

    name: str
    title: str
    kind: Literal["chat", "text", "markdown"]
    required: bool = False


@dataclass(frozen=True)
class Question:
    """Something that is asked: one label, any number of labels, a rating, an order with ties, or a text."""

    name: str
    title: str
    kind: Literal["label", "labels", "rating", "ranking", "text"]
    required: bool = False
    description: str | None = None
    options: Mapping[str, str] = field(default_factory=dict[str, str])
    """Value -> what people read, of `label`, `labels` and `ranking`."""
    visible: int | None = None
    """Options that are seen at first, the suggested ones before all; the others unfold. None: all."""
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


KNOWN_PROPERTIES = (
    Property("source", "Source", "terms"),
    Property("pipeline", "Pipeline says", "terms"),
    Property("flags", "Flags", "terms"),
    Property("chosen", "Chosen by", "terms"),
    Property("split", "Split", "terms"),
    Property("category", "Category", "terms"),
    Property("task", "Task", "terms"),
    Property("language", "Language", "terms"),
    Property("group", "Group of like rows", "terms"),
    Property("words", "Words of the answer", "integer"),
    Property("turns", "Turns", "integer"),
    Property("quality", "Quality", "float"),
    Property("score", "Score", "float"),
    Property("learned", "Learnt from reviews", "float"),
    Property("judge", "Judge", "float"),
    Property("ifd", "IFD", "float"),
    Property("perplexity", "Perplexity", "float"),
    Property("cut", "Not shown whole", "terms"),
    Property("stale", "Edited since it was sent", "terms"),
)
"""What can be known of a row. The last two are of every form: the review itself needs them."""

ISSUES = ("issue", "flag", "rule", "custom", "pii", "duplicate", "contaminated")
"""Families of reasons that reviewers can name, in the order in which they stand: first what no rule can find."""


def row_form(reasons: Mapping[str, str], known: Collection[str]) -> Form:
    """Make the form that asks about rows: verdict, rating, issues, correction.

    `reasons`: what can be wrong with a row, with its sentence. `known`: names of the properties that the version has.
    """
    by_family = sorted(
        (reason for reason in reasons if reason.partition(":")[0] in ISSUES),
        key=lambda reason: ISSUES.index(reason.partition(":")[0]),
    )
    return Form(
        fields=(
            Field("conversation", "Conversation", "chat", required=True),
            Field("match", "Rows to compare it with", "markdown"),
            Field("edits", "What was changed automatically", "markdown"),
            Field("about", "About this row", "markdown"),
        ),
        questions=(
            Question(
                "verdict",
                "May a model learn from this row?",
                "label",
                required=True,
                description="Keep it as it stands, fix its last answer below, or reject it.",
                options={"keep": "Keep", "fix": "Fix", "reject": "Reject"},
            ),
            Question(
                "rating",
                "How good is the last answer?",
                "rating",
                description="1 is useless or harmful, 3 is usable, 5 could not be better.",
                ratings=tuple(RATINGS),
            ),
            Question(
                "correction",
                "The last answer, corrected",
                "text",
                description="Only with Fix: edit the text until it is as it should be. It takes the answer's place.",
            ),
            Question(
                "issues",
                "What is wrong with it?",
                "labels",
                description="Name all that is true of the row, and take away what is suggested and is not true.",
                options={reason: reasons[reason][:OPTION_CHARACTERS] for reason in by_family[:OPTIONS]},
                visible=VISIBLE_OPTIONS,
            ),
        ),
        properties=tuple(p for p in KNOWN_PROPERTIES if p.name in known or p.name in ("cut", "stale")),
    )


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
