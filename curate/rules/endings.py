"""Endings: an answer or a context that stops in the middle of a sentence."""

import polars as pl

from curate.rules.rule import Example, Rule, finds, review, tail_shown, where

_LONG_WORDS = 60
"""Words of prose from which on a missing full stop is told; people leave it out under short answers and lists."""

_OPEN_END = (
    r"(?:[,;(\[{—–]|\b(?:and|or|but|the|an|of|with|because|which|that\s+the|such\s+as|including|from\s+the"
    r"|to\s+the|in\s+the|while"
    r"|although|whereas|is\s+a|as\s+well\s+as|your|their|its|my|our|was\s+a|by\s+the|for\s+the|on\s+the|the\s+[B-Z]))$"
)
_PROSE_END = r"(?:[.!?][\"”')\]]?\s+[\"“'(]?\p{Lu}[^.!?\n]{20,})$"
"""A sentence before it ends as it should; then comes a capital letter, and at least 20 letters more without an end."""
_NO_PROSE = (
    r"(?:#\w+|https?://\S+|\S+@\S+|[A-Z]\w+,?\s+[A-Z][\w.]+|\|)\s*$|[{};=<>`|]|\n\s*(?:[-*•]|\d+[.)])\s[^\n]*$"
    r"|(?:[^,\n]+,){3}[^\n]*$"
    r"|\d+\.\s+\p{Lu}[^.]*\d+\.\s+\p{Lu}[^.]*$|:[^.]*$"
)
_SIGN_OFF = r"\n[^\n.!?]{0,40},$"
"""The last line of a letter before the name."""
_LINE = r"(?:^|\n)[^\n]*(?:[ \t]+[^\s]+){9}$"
"""A last line of ten words or more: shorter ones are items, titles and names."""
_CODE = r"[{};=<>`|\\]|\n(?:    |\t)"

_answer, _context = pl.col("answer"), pl.col("context")
_open = _answer.str.contains(r"[^\s.!?\"”’)\]}`>*|]\s*$")
_end = where(_open, _answer).str.strip_chars_end().str.tail(400)
_context_end = _context.str.strip_chars_end().str.tail(400)
_asks_for_end = pl.col("composed").str.contains_any(
    ["complete", "finish", "continue", "fill", "blank", "keyword", "list", "prefix", "code", "function", "conjunction",
     "preposition", "article", "word", "regex", "translat", "title", "lyric", "poem", "song", "haiku", "rap"],
    ascii_case_insensitive=True,
)  # fmt: skip

RULES: list[Rule] = [
    review(
        "unfinished",
        (
            finds(where(pl.col("answer_count") >= 5, _end), _OPEN_END)
            & ~_end.str.contains(_CODE)
            & ~_end.str.contains(_SIGN_OFF)
            & ~_asks_for_end
        )
        | (
            where(pl.col("answer_count") >= _LONG_WORDS, _end).str.contains(r"[\p{L}\p{N}]$")
            & _end.str.contains(_PROSE_END)
            & _end.str.contains(_LINE)
            & ~_end.str.contains(_NO_PROSE)
        ),
        tail_shown("answer"),
        hit=Example("How is bread made?", "Mix flour, water and yeast, let the dough rise, and bake it in the"),
        near=Example("How is bread made?", "Mix flour, water and yeast, let the dough rise, and bake it in the oven"),
    ),
]

CUT_CONTEXT: Rule = review(
    "cut_context",
    where(
        (_context.str.len_bytes() > 120) & ~_context.str.contains(r"[.!?;\"'”’)\]}…>»。]\s*$|\[\d+\]\s*$"),
        _context,
    ).str.contains(r"(?:^|\n)[^\n]*\p{Ll}[^\n]*(?:[ \t\x{a0}]+[^\s]+){7}\s*$")
    & ~_context_end.str.contains(r"https?://\S+$"),
    tail_shown("context"),
    origin="databricks-dolly-15k: contexts cut from encyclopaedia articles",
    hit=Example(
        "Which river is it?",
        context="The Fenn rises in the hills above the town. It runs past the mill, where it was dammed in 1820, and"
        " reaches the sea at the old",
    ),
    near=Example(
        "Which river is it?",
        context="The Fenn rises in the hills above the town. It runs past the mill, where it was dammed in 1820, and"
        " reaches the sea at the old quay.",
    ),
)
"""Contexts of Dolly were copied from articles by hand."""
