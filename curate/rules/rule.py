"""The rule: a name, what follows from it, a polars expression that finds rows, and the evidence that it shows.

Every expression reads the columns of `curate.rules.facts`, which are computed once per shard and shared by all rules.

To add a rule, write it into the list `RULES` of the module whose noun it is about, with an example that it finds and
one that it just does not, and its sentence into `schemas/reasons.py`. List, help and tests follow from that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import polars as pl

from schemas.reasons import sentence

Severity = Literal["fix", "reject", "review"]

FAMILY: dict[Severity, str] = {"fix": "fix", "reject": "rule", "review": "flag"}
"""How the names of each severity begin; those of a dataset's own rules begin with `custom`."""

Field = Literal["answer", "user", "system", "context"]
"""A text of a row that a fix may rewrite: the contents of the turns of one role, or the context."""


@dataclass(frozen=True)
class Example:
    """A row that shows what a rule finds, or just does not. `turns`, as (role, text), stand for prompt and answer."""

    prompt: str = "What is it?"
    answer: str = "It is a long enough answer."
    context: str | None = None
    system: str | None = None
    turns: tuple[tuple[str, str], ...] = ()

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Give the turns as a record holds them."""
        given = (("system", self.system),) if self.system is not None else ()
        said = self.turns or (*given, ("user", self.prompt), ("assistant", self.answer))
        return [{"role": role, "content": text, "name": None, "tool_calls": None} for role, text in said]


@dataclass(frozen=True)
class Rewrite:
    """What a fix does to a text: `text` gives the text as it should be, or "" to take a context away.

    A row is looked at where the rule's `matches` says so, which must hold wherever `text` changes anything, but for
    the rows that the rule leaves alone.
    """

    on: tuple[Field, ...]
    text: Callable[[str], str]


@dataclass(frozen=True, eq=False)
class Rule:
    """`matches` (bool; null counts as no) finds the rows; `evidence` (string) is what a person can check.

    `origin` says where the rule comes from: a paper, a tool, a dataset's card, or "ours". `hit` and `near` are rows
    that the rule just finds and just does not. A fix has a `rewrite`, and no evidence. A rule with `sources` judges
    the rows of these alone. `python` says that its test runs Python code on the rows that a cheaper test leaves over;
    it then has the threads to itself.
    """

    name: str
    severity: Severity
    matches: pl.Expr
    evidence: pl.Expr
    origin: str = "ours"
    hit: Example | None = None
    near: Example | None = None
    rewrite: Rewrite | None = None
    pack: str = "general"
    says: str | None = None
    sources: tuple[str, ...] = ()
    python: bool = False

    @property
    def sentence(self) -> str:
        """Say in one sentence what the rule finds."""
        return self.says or sentence(self.name)

    def of_pack(self, pack: str) -> "Rule":
        """Give the rule as one of a pack."""
        return replace(self, pack=pack)


def fix(
    name: str,
    on: Sequence[Field],
    may: Callable[[pl.Expr], pl.Expr],
    text: Callable[[str], str],
    unless: pl.Expr | None = None,
    **more: Any,
) -> Rule:
    """Make a rule that rewrites the texts `on`. `may` tells, cheaply, whether `text` might change one of them.

    Rows of which `unless` holds are left alone.
    """
    matches = pl.any_horizontal([may(pl.col(column)).fill_null(value=False) for column in on])
    if unless is not None:
        matches &= ~unless.fill_null(value=False)
    return Rule(f"fix:{name}", "fix", matches, pl.lit(""), rewrite=Rewrite(tuple(on), text), **more)


def reject(name: str, matches: pl.Expr, evidence: pl.Expr, **more: Any) -> Rule:
    """Make a rule that rejects. It must be right about nearly every row, since nobody looks at them."""
    return Rule(f"rule:{name}", "reject", matches, evidence, **more)


def review(name: str, matches: pl.Expr, evidence: pl.Expr, **more: Any) -> Rule:
    """Make a rule that flags a row for a person, who has to read it to judge."""
    return Rule(f"flag:{name}", "review", matches, evidence, **more)


def where(test: pl.Expr, text: pl.Expr) -> pl.Expr:
    """Give a text where a cheap test holds and null elsewhere, so that a dear test reads few rows."""
    return pl.when(test).then(text)


def blank_but(test: pl.Expr, column: str) -> pl.Expr:
    """Give a text where a cheap test holds and "" elsewhere: polars replaces in the texts under nulls, too."""
    return pl.when(test).then(pl.col(column)).otherwise(pl.lit(""))


def any_of(text: pl.Expr, *words: str, fold: bool = False) -> pl.Expr:
    """Say whether a text holds any of these words as they stand (`fold`: in any case of the letters)."""
    return text.str.contains_any(list(words), ascii_case_insensitive=fold)


def same_words(a: str, b: str) -> pl.Expr:
    """Say whether two texts are the same but for their blanks. Letter case counts: to change it is a task of its own.

    Only texts of about the same length are compared: blanks make no quarter of a text.
    """
    size, other = (pl.col(column).str.len_bytes().cast(pl.Int64) for column in (a, b))
    alike = ((size - other).abs() <= 16 + other // 4) & (size > 0)
    words = [blank_but(alike, column).str.replace_all(r"\s+", " ").str.strip_chars(" ") for column in (a, b)]
    return (words[0] == words[1]) & (words[0] != "")


def finds(text: pl.Expr, pattern: str) -> pl.Expr:
    """Say whether a pattern is found. Word boundaries are ASCII's: with Unicode's, it is 4 times slower."""
    return text.str.contains(_ascii_bounds(pattern))


def _ascii_bounds(pattern: str) -> str:
    return pattern.replace(r"\b", r"(?-u:\b)")


def shown(text: str | pl.Expr, limit: int = 80) -> pl.Expr:
    """Show the beginning of a text as evidence, in quotes and on one line."""
    line = (pl.col(text) if isinstance(text, str) else text).str.replace_all(r"\s+", " ")
    cut = pl.when(line.str.len_chars() > limit).then(line.str.head(limit - 1) + "…").otherwise(line)
    return pl.lit('"') + cut + pl.lit('"')


def tail_shown(text: str, limit: int = 60) -> pl.Expr:
    """Show the end of a text as evidence."""
    line = pl.col(text).str.strip_chars().str.replace_all(r"\s+", " ")
    cut = pl.when(line.str.len_chars() > limit).then(pl.lit("…") + line.str.tail(limit - 1)).otherwise(line)
    return pl.lit('"') + cut + pl.lit('"')


def around(text: str, pattern: str, before: int = 30, after: int = 40) -> pl.Expr:
    """Show what a pattern finds, with what stands around it."""
    found = pl.col(text).str.extract(f"((?s:.{{0,{before}}})(?:{_ascii_bounds(pattern)})(?s:.{{0,{after}}}))")
    return shown(found, 160)


def count(of: str, word: str) -> pl.Expr:
    """Show a number and what it counts."""
    return pl.col(of).cast(pl.String) + pl.lit(f" {word}")
