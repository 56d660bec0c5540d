"""Texts of a record, as expressions: the same as plain Python would put together."""

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.record import TEXT_SCHEMA, of_turns, prompt_text, turns_text

ROLES = ("system", "user", "assistant", "tool")
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(ROLES), "content": st.none() | st.sampled_from(["", "a", "b\nc", "ü"])}
)
ROW = st.fixed_dictionaries({"messages": st.none() | st.lists(TURN, max_size=4), "context": st.none() | st.just("k")})


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(ROW, min_size=1, max_size=8), cut=st.integers(0, 8), keep=st.lists(st.booleans(), min_size=8))
def test_texts_of_turns_are_what_the_turns_say(rows: list[dict[str, object]], cut: int, keep: list[bool]) -> None:
    """Also in a column of several chunks of which some rows are left, in rows without turns, and without content."""
    schema = {name: TEXT_SCHEMA[name] for name in ("messages", "context")}
    full = [
        {
            **row,
            "messages": None
            if row["messages"] is None
            else [{"name": None, "tool_calls": None, **m} for m in row["messages"]],
        }
        for row in rows
    ]
    parts = [pl.DataFrame(part, schema=schema) for part in (full[:cut], full[cut:])]
    chosen = keep[: len(rows)]
    frame = pl.concat(parts, rechunk=False).filter(pl.Series(chosen, dtype=pl.Boolean))
    left = [row for row, kept in zip(full, chosen, strict=True) if kept]
    turn = pl.element().struct
    found = frame.select(
        users=of_turns(turn.field("content"), turn.field("role") == "user"),
        user=turns_text("user"),
        prompt=prompt_text(),
    ).to_dicts()

    def said(row: dict[str, object], *roles: str) -> list[str] | None:
        turns: list[dict[str, str | None]] | None = row["messages"]
        return (
            None if turns is None else [m["content"] for m in turns if m["role"] in roles and m["content"] is not None]
        )

    for row, got in zip(left, found, strict=True):
        users, asked = said(row, "user"), said(row, "system", "user", "tool")
        assert got["users"] == users
        assert got["user"] == (None if users is None else "\n".join(users))
        parts_of_prompt = [t for t in (None if asked is None else "\n".join(asked), row["context"]) if t is not None]
        assert got["prompt"] == "\n".join(parts_of_prompt)
