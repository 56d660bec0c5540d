"""Structure: who speaks, in which order, and whether anything is said at all."""

import polars as pl

from curate.rules.rule import Example, Rule, count, reject

_ORDER = r"^s?(?:ua(?:t+a)*)*(?:u|uat+(?:at+)*)?$"
"""Turns by the first letters of their roles: a system prompt, then user and assistant in turn; tools answer calls."""

_TURNS = pl.lit("turns: ") + pl.col("roles").list.head(12).list.join(", ")
_GOOD = "It is a long enough answer."

RULES: list[Rule] = [
    reject(
        "no_user_turn",
        pl.col("composed").str.contains(r"\S").not_(),
        _TURNS,
        origin="chat templates",
        hit=Example(prompt=" "),
        near=Example(prompt="?"),
    ),
    reject(
        "no_assistant_turn",
        pl.col("order").str.contains("a", literal=True).not_(),
        _TURNS,
        origin="chat templates",
        hit=Example(turns=(("user", "Anyone?"),)),
        near=Example(turns=(("user", "Anyone?"), ("assistant", _GOOD))),
    ),
    reject(
        "last_turn_not_assistant",
        pl.col("order").str.ends_with("a").not_(),
        _TURNS,
        origin="chat templates",
        hit=Example(turns=(("user", "And now?"), ("assistant", _GOOD), ("user", "And then?"))),
        near=Example(turns=(("user", "And now?"), ("assistant", _GOOD), ("user", "And then?"), ("assistant", _GOOD))),
    ),
    reject(
        "roles_out_of_order",
        pl.col("order").str.contains(_ORDER).not_(),
        _TURNS,
        origin="chat templates",
        hit=Example(turns=(("user", "Hello."), ("user", "Are you there?"), ("assistant", _GOOD))),
        near=Example(turns=(("system", "Be kind."), ("user", "Are you there?"), ("assistant", _GOOD))),
    ),
    reject(
        "empty_response",
        pl.col("empty_answers") > 0,
        count("empty_answers", "of ") + pl.col("answers").list.len().cast(pl.String) + pl.lit(" responses empty"),
        origin="AlpacaDataCleaned: empty outputs; stanford_alpaca#265",
        hit=Example(answer=" \n"),
        near=Example(answer="."),
    ),
]
