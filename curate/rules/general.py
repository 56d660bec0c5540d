"""The general pack: rules that hold for instruction data of any kind, in the order in which they judge.

A rejecting rule must be right about nearly every row that it rejects, since nobody looks at them; where a person would
have to read the row, the rule only flags. The rules of structure come first: they say most about a row.
"""

import polars as pl

from curate.rules.rule import Rule
from schemas.config import RulesConfig

_NO_INPUT = r"no\s*(?:input|context)(?:\s*(?:is|was))?(?:\s*(?:required|needed|necessary|provided|given|available))?"
_NOTHING = r"n\s*/\s*a|n\.a|not\s*applicable"

_PLACEHOLDER_RESPONSE = (
    r"(?i)^\W*(?:"
    r"no[\s_-]*(?:output|response)(?:\s*(?:is|was))?(?:\s*(?:required|needed|necessary|provided|given|available))?"
    rf"|{_NOTHING}|to\s*be\s*(?:done|determined)"
    r")\W*$"
    # bare "None", "null", "Todo" and "Na" are right answers somewhere (a count, code, Spanish, chemistry): not these
    r"|^\W*(?-i:TODO|TBD|TBA)\W*$"
    r"|^[<\[({]\s*(?:none|null|empty|blank|todo|placeholder|(?:your\s*|the\s*|insert\s*)*(?:answer|response|output)"
    r"(?:\s*(?:goes\s*)?here)?)\s*[>\])}]\.?$"
    r"|^(?:\.{2,}|…+|-{2,}|_{2,}|\?{2,})$"
)
"""Whole answers that stand for an answer. All 8 `nooutput` of Alpaca's 9k sample, and two `N/A`."""

_PLACEHOLDER_CONTEXT = rf"(?i)^[\W_]*(?:{_NO_INPUT}|{_NOTHING}|none|null|nil|empty|blank)[\W_]*$"

_URL_ONLY = r"(?i)^[<(\[]?(?:(?:https?|ftp):[/\\]{2}|www\.)\S+(?:\s+(?:(?:https?|ftp):[/\\]{2}|www\.)\S+)*$"

_SORRY = (
    r"(?:(?:i['’]?m|i am|we are|we['’]re)\s+(?:very\s+|so\s+|really\s+|truly\s+)?sorry|sorry|apologies|unfortunately)"
)
_ACTS = (
    r"(?:assist|help|provide|generate|create|produce|fulfill?|complete|comply|answer|access|browse|view|see|open|display"
    r"|process|perform|engage|discuss|give|offer|write|draw|play|render|translate|set\s+up|do\s+(?:that|this))"
)
_CANNOT = r"(?:cannot|can\s*not|can['’]?t|am\s+(?:not\s+able|unable)\s+to|['’]m\s+(?:not\s+able|unable)\s+to|won['’]t)"
_REFUSAL = (
    r"(?i)^[\"'“]?(?:"
    rf"(?:{_SORRY}[,.]?\s+(?:but\s+)?)?(?:as|being)\s+an?\s+(?:(?:large|virtual)\s+)?(?:ai|artificial\s+intelligence|language\s+model|chatbot)\b"
    rf"|(?:{_SORRY}[,.]?\s+(?:but\s+)?)?i\s*{_CANNOT}\s+{_ACTS}\b"
    rf"|{_SORRY},?\s+(?:but\s+)?(?:the|this|that|your)\s+(?:task|request|instruction|input|question)\b"
    r"|no\s+output\s+(?:because|as|since)\b"
    r")"
)
"""How a refusal begins. Only the first words are read: apologies, dialogues and poems say "sorry" and "I can't" too."""

_ORDER = r"^s?(?:ua(?:t+a)*)*(?:u|uat+(?:at+)*)?$"
"""Turns by the first letters of their roles: a system prompt, then user and assistant in turn; tools answer calls."""


def _shown(text: str, limit: int = 80) -> pl.Expr:
    """Show the beginning of a text column as evidence, in quotes and on one line."""
    line = pl.col(text).str.replace_all(r"\s+", " ")
    cut = pl.when(line.str.len_chars() > limit).then(line.str.head(limit - 1) + "…").otherwise(line)
    return pl.lit('"') + cut + pl.lit('"')


def _roles_shown() -> pl.Expr:
    return pl.lit("turns: ") + pl.col("roles").list.head(12).list.join(", ")


def _count(of: str, word: str) -> pl.Expr:
    return pl.col(of).cast(pl.String) + pl.lit(f" {word}")


def general_rules(config: RulesConfig) -> list[Rule]:
    """Give the general pack. Reads: the columns of `curate.rules.rule.facts`."""
    answer = pl.col("answer")
    return [
        Rule("rule:no_user_turn", "reject", pl.col("composed").str.contains(r"\S").not_(), _roles_shown()),
        Rule(
            "rule:no_assistant_turn", "reject", pl.col("order").str.contains("a", literal=True).not_(), _roles_shown()
        ),
        Rule("rule:last_turn_not_assistant", "reject", pl.col("order").str.ends_with("a").not_(), _roles_shown()),
        Rule("rule:roles_out_of_order", "reject", pl.col("order").str.contains(_ORDER).not_(), _roles_shown()),
        Rule(
            "rule:empty_response",
            "reject",
            pl.col("answers").list.eval(pl.element().str.contains(r"\S").not_()).list.any(),
            _count("empty_answers", "of ") + pl.col("answers").list.len().cast(pl.String) + pl.lit(" responses empty"),
        ),
        Rule(
            "rule:placeholder_response",
            "reject",
            pl.col("answers").list.eval(pl.element().str.strip_chars().str.contains(_PLACEHOLDER_RESPONSE)).list.any(),
            _shown("answer"),
        ),
        Rule(
            "rule:response_equals_prompt",
            "reject",
            (pl.col("answer_words") != "")
            & (pl.col("answer_words").eq(pl.col("user_words")) | pl.col("answer_words").eq(pl.col("composed_words"))),
            _shown("answer"),
        ),
        Rule(
            "flag:short_response", "flag", pl.col("answer_count") < config.short_words, _count("answer_count", "words")
        ),
        Rule(
            "flag:placeholder_context", "flag", pl.col("context").str.contains(_PLACEHOLDER_CONTEXT), _shown("context")
        ),
        Rule(
            "flag:url_only_context",
            "flag",
            pl.col("context").str.strip_chars().str.contains(_URL_ONLY),
            _shown("context"),
        ),
        Rule(
            "flag:response_equals_context",
            "flag",
            (pl.col("answer_words") != "") & pl.col("answer_words").eq(pl.col("context_words")),
            _shown("answer"),
        ),
        Rule("flag:refusal", "flag", answer.str.strip_chars().str.contains(_REFUSAL), _shown("answer")),
    ]
