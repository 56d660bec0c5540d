"""Task: what kind of work a prompt asks for, by cues that can be shown.

A cue is a pattern on the first user turn, in lower case and without its polite opening ("could you please"). The
heaviest cue that is found decides; ties go to the first in `TASKS`, and a prompt without any cue is `other`. Dolly's
own category stands above the cues where it says as much.
The cues are English: a prompt in another language is `other` unless it holds code or sums.

    coding          write, explain or mend a program, a query, a page
    maths           calculate, solve, count
    reasoning       compare, judge, predict, draw a conclusion, solve a puzzle
    creative        make up a text, a name, an idea, a plan
    factual         know or explain something, give advice
    summarising     say the same in fewer words
    extraction      find something in a given text
    classification  put something into one of several classes
    rewriting       change a given text: correct, translate, rephrase, rearrange
    roleplay        speak as somebody
    other           none of these, or not to be seen from the prompt
"""

from dataclasses import dataclass

import polars as pl

from curate.cues import CUES, OPENING, Cue
from schemas.record import of_turns

TASKS = (
    "roleplay",
    "summarising",
    "coding",
    "maths",
    "classification",
    "extraction",
    "rewriting",
    "reasoning",
    "creative",
    "factual",
    "other",
)
"""The tasks; the more special ones stand first, as a tie goes to them."""

HEAD, TAIL = 300, 200
"""Characters at the beginning and at the end of a prompt that are read: long prompts ask before or after their text."""

LEAST_TEXT_WORDS = 15
"""Words from which on a context is a text that can be asked about, and not a word or a list to work on."""

DOLLY_TASKS = {
    "classification": "classification",
    "information_extraction": "extraction",
    "closed_qa": "extraction",
    "summarization": "summarising",
    "creative_writing": "creative",
    "open_qa": "factual",
    "general_qa": "factual",
}
"""Dolly's categories, as its annotators gave them: closed_qa asks about a given text.
Brainstorming is left to the cues, as it holds ideas, advice and lists of facts alike."""


def asked_text() -> pl.Expr:
    """Give what the cues look at: the first user turn, lower case, its beginning and end. Reads: messages."""
    turn = pl.element().struct
    said = turn.field("content").fill_null("")
    plain = of_turns(said, turn.field("role") == "user").list.first().fill_null("").str.strip_chars()
    ends = pl.concat_str([plain.str.head(HEAD), plain.str.tail(TAIL)], separator="\n")
    short = plain.str.len_bytes() <= HEAD + TAIL
    return pl.when(short).then(plain).otherwise(ends).str.to_lowercase().str.replace(OPENING, "")


def _has_text() -> pl.Expr:
    return pl.col("context").fill_null("").str.count_matches(r"\S+") >= LEAST_TEXT_WORDS


def _fires(cue: Cue) -> pl.Expr:
    found = pl.col("asked").str.contains(cue.pattern)
    return found & pl.col("has_text") if cue.beside_text else found


def classify(rows: pl.DataFrame) -> pl.Series:
    """Give the task of each row, one of `TASKS`. Reads: messages, context, category."""
    by_cues = pl.coalesce(pl.when(_fires(cue)).then(pl.lit(cue.task)) for cue in sorted(CUES, key=_rank)).fill_null(
        "other"
    )
    asked = rows.select("category", asked=asked_text(), has_text=_has_text())
    given = pl.col("category").replace_strict(DOLLY_TASKS, default=None, return_dtype=pl.String)
    return asked.select(task=pl.coalesce(given, by_cues)).to_series()


def _rank(cue: Cue) -> tuple[float, int]:
    return -cue.weight, TASKS.index(cue.task)


@dataclass(frozen=True)
class Fired:
    """A cue that was found in a prompt, and the words that it was found in."""

    task: str
    cue: str
    weight: float
    words: str


@dataclass(frozen=True)
class Explanation:
    """The task of a prompt and every cue that spoke; the first one decided."""

    task: str
    fired: tuple[Fired, ...]


def explain(prompt: str, context: str | None = None) -> Explanation:
    """Say which task a prompt is taken for, and why."""
    row = pl.DataFrame(
        {"messages": [[{"role": "user", "content": prompt}]], "context": pl.Series([context], dtype=pl.String)}
    )
    asked = row.select(asked=asked_text(), has_text=_has_text())
    fired: list[Fired] = []
    for cue in sorted(CUES, key=_rank):
        said, words = asked.select(said=_fires(cue), words=pl.col("asked").str.extract(f"({cue.pattern})", 1)).row(0)
        if said:
            fired.append(Fired(cue.task, cue.name, cue.weight, words))
    return Explanation(fired[0].task if fired else "other", tuple(fired))
