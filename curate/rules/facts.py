"""Facts: what the rules read, computed once for a shard."""

import polars as pl

from schemas.record import ROLES, of_turns, turns_text


def facts(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Compute once what the rules read.

    Reads: messages, context. Adds: roles (list), order (initials of the roles; "?" for any other), answers (list: what
    each assistant turn says or calls), empty_answers (count), system, user, answer (each joined by newlines),
    answer_count (words), composed (user turns, and the context where there is a user turn for it to join),
    blank_context (no context, or none with text).
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
            answers=of_turns(said, role == "assistant"),
            user=turns_text("user"),
            system=turns_text("system"),
        )
        .with_columns(
            answer=pl.col("answers").list.join("\n"),
            composed=pl.when(has_user)
            .then(pl.concat_str(["user", "context"], separator="\n", ignore_nulls=True))
            .otherwise(pl.lit("")),
            empty_answers=pl.col("answers").list.eval(pl.element().str.contains(r"\S").not_()).list.sum(),
        )
        .with_columns(
            answer_count=pl.col("answer").str.count_matches(r"\S+"),
            blank_context=~context.fill_null("").str.contains(r"\S"),
        )
    )
