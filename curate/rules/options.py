"""Options: a choice was asked for, and the answer gives the whole list back, or an option that is not there."""

import re
from collections.abc import Iterator

import polars as pl

from curate.rules.rule import Example, Rule, any_of, review, where

_LETTERED = re.compile(
    r"(?m)(?:^|[\n;]|(?<=\s))[^\S\n]*\(?([A-Ja-j])[).:][^\S\n]+(\S[^\n]*?)(?=[^\S\n]+\(?[A-Ja-j][).][^\S\n]|[\n;]|$)"
)
_LISTED = re.compile(r"(?is)(?:options|choices|select from|choose from)[^\n:]{0,40}:\s*(.+)\Z")
_ITEM = re.compile(r"(?m)^[^\S\n]*(?:[-*•+]|\d{1,2}[.)]|\[[ x]?\])[^\S\n]*(\S[^\n]*)$")
_BLANKS = re.compile(r"[^\S\n]+")
_ONE = re.compile(
    r"(?i)^\W*(?:(?:the\s+)?(?:correct\s+|right\s+)?(?:answer|option|choice)\s*(?:is"
    r"|:)\s*)?(?:option\s+)?\(?([A-Ja-j])\)?\W*$"
)
_CHOOSES = re.compile(
    r"(?i)\b(?:which|what|choose|select|pick|answer|options?|choices?|correct|true|best|multiple[- ]choice|does"
    r"|is|are)\b"
)
_KEEPS_ALL = re.compile(
    r"(?i)\b(?:list|sort|order|rank|arrange|repeat|rewrite|translate|match|all\s+(?:that|which|of)|each|classif"
    r"|categor|compare|label|options\s+are|correct\s+the|spell)"
)


def options(prompt: str) -> dict[str, str]:
    """Give the options of a prompt, by letter (or by number where they have none); none where it is not sure."""
    prompt = _BLANKS.sub(" ", prompt)  # long runs would be read over and over
    found = {letter.upper(): text.strip() for letter, text in _LETTERED.findall(prompt)}
    letters = sorted(found)
    if len(letters) >= 2 and letters == [chr(ord("A") + i) for i in range(len(letters))]:
        return found
    if listed := _LISTED.search(prompt):
        items = [item.strip() for item in _ITEM.findall(listed[1])]
        if len(items) >= 2:
            return {str(i): item for i, item in enumerate(items, 1)}
    return {}


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def copied(prompt: str, answer: str) -> str | None:
    """Say what was copied where an answer is little but the prompt's list of options, all of them in their order."""
    given = options(prompt)
    if len(given) < 2 or _KEEPS_ALL.search(prompt):
        return None
    said, pieces = _plain(answer), [_plain(text) for text in given.values()]
    at = 0
    for piece in pieces:
        at = said.find(piece, at) + len(piece) if piece and piece in said[at:] else -1
        if at < 0:
            return None
    extra = len(said.split()) - sum(len(piece.split()) for piece in pieces)
    return "all of " + ", ".join(given) if extra <= 2 * len(given) + 2 else None


def unknown(prompt: str, answer: str) -> str | None:
    """Say which option an answer of one letter names where the prompt has none of that letter."""
    named, given = _ONE.match(answer), options(prompt)
    if named is None or "A" not in given:
        return None
    letter = named[1].upper()
    return f"{letter} is none of {', '.join(given)}" if letter not in given else None


def _each(rows: pl.Series, which: str) -> Iterator[str | None]:
    test = {"copied": copied, "unknown": unknown}[which]
    for row in rows:
        yield (
            test(row["composed"], row["answer"]) if row["composed"] is not None and row["answer"] is not None else None
        )


def _tested(which: str, prompt: pl.Expr, answer: pl.Expr) -> pl.Expr:
    def run(rows: pl.Series) -> pl.Series:
        return pl.Series(rows.name, list(_each(rows, which)), dtype=pl.String)

    return pl.struct(prompt.alias("composed"), answer.alias("answer")).map_batches(run, return_dtype=pl.String)


_prompt, _answer = pl.col("composed"), pl.col("answer")
_lists = where(any_of(_prompt, "options", "choices", "b)", "b. ", "b: ", "from:", fold=True), _prompt)
_has_options = _lists.str.contains(
    r"(?i)(?:options|choices|choose from|select from)[^\n:]{0,40}:|(?:^|\s)\(?b[).:]\s+\S"
)
_short = pl.col("answer_count") <= 60

RULES: list[Rule] = [
    review(
        "options_copied",
        _tested("copied", where(_has_options & _short, _prompt), _answer).is_not_null(),
        _tested("copied", _prompt, _answer),
        origin="FLAN's multiple choice in OpenOrca",
        python=True,
        hit=Example("Which one floats?\nOptions:\n- a stone\n- a cork", "- a stone\n- a cork"),
        near=Example("Which one floats?\nOptions:\n- a stone\n- a cork", "a cork"),
    ),
    review(
        "unknown_option",
        _tested("unknown", where(_has_options & (pl.col("answer_count") <= 8), _prompt), _answer).is_not_null(),
        _tested("unknown", _prompt, _answer),
        origin="FLAN's multiple choice in OpenOrca",
        python=True,
        hit=Example("Which one floats?\n(A) a stone\n(B) a cork\n(C) a coin", "(D)"),
        near=Example("Which one floats?\n(A) a stone\n(B) a cork\n(C) a coin", "B"),
    ),
]
