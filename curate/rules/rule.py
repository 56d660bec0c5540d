"""The rule: a name, what follows from it, a polars expression, and the evidence that it shows.

Every expression reads the columns of `facts`, which are computed once per shard and shared by all rules.
"""

from dataclasses import dataclass
from typing import Literal

import polars as pl

from schemas.reasons import sentence
from schemas.record import ROLES, turns_text

Severity = Literal["reject", "flag"]


@dataclass(frozen=True, eq=False)
class Rule:
    """`matches` (bool; null counts as no) finds the rows; `evidence` (string) is what a person can check."""

    name: str
    severity: Severity
    matches: pl.Expr
    evidence: pl.Expr

    @property
    def sentence(self) -> str:
        """Say in one sentence what the rule finds."""
        return sentence(self.name)


def facts(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Compute once what the rules read.

    Reads: messages, context. Adds: roles (list), order (initials of the roles; "?" for any other), answers (list: what
    each assistant turn says or calls), empty_answers (count), user, answer, answer_count (words), composed (user turns,
    and the context where there is a user turn for it to join), and the `_words` of answer, user, composed and context:
    the text with its blanks collapsed, letter case kept, since changing the case is a task of its own. Drops: messages.
    """
    turn = pl.element().struct
    role = turn.field("role")
    initial = role.replace_strict(list(ROLES), [r[0] for r in ROLES], default="?", return_dtype=pl.String)
    said = pl.concat_str([turn.field("content"), turn.field("tool_calls")], separator="\n", ignore_nulls=True)
    messages, context = pl.col("messages"), pl.col("context")
    has_user = pl.col("order").str.contains("u", literal=True)
    return (
        rows.with_columns(
            roles=messages.list.eval(role),
            order=messages.list.eval(initial).list.join(""),
            answers=messages.list.eval(said.filter(role == "assistant")),
            user=turns_text("user"),
        )
        .drop("messages")
        .with_columns(
            answer=pl.col("answers").list.join("\n"),
            composed=pl.when(has_user)
            .then(pl.concat_str(["user", "context"], separator="\n", ignore_nulls=True))
            .otherwise(pl.lit("")),
            empty_answers=pl.col("answers").list.eval(pl.element().str.contains(r"\S").not_()).list.sum(),
        )
        .with_columns(
            answer_count=pl.col("answer").str.count_matches(r"\S+"),
            answer_words=_words("answer"),
            user_words=_words("user"),
            composed_words=_words("composed"),
            context_words=context.fill_null("").pipe(_collapse),
        )
    )


def _collapse(text: pl.Expr) -> pl.Expr:
    return text.str.replace_all(r"\s+", " ").str.strip_chars(" ")


def _words(column: str) -> pl.Expr:
    return _collapse(pl.col(column))
