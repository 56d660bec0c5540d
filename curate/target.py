"""Target: what one word of `--quota`, `--sample` or `--weight` says about a source or a task, such as `dolly=2000`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from curate.task import TASKS
from schemas.errors import ConfigError

_FACTORS = {"k": 1_000, "m": 1_000_000}


@dataclass(frozen=True)
class Target:
    """A source or a task, and a number. `is_share`: the number was written with a decimal point."""

    word: str
    column: str
    name: str
    number: float
    is_share: bool

    def members(self) -> pl.Expr:
        """Say which rows it is about. Reads: source or task."""
        return pl.col(self.column) == self.name


def read_targets(option: str, words: Iterable[str], sources: Sequence[str], *, tasks: bool = True) -> list[Target]:
    """Read the words of an option; raise ConfigError for one that names nothing here, no number, or a thing twice."""
    found = [_read(option, word, sources, tasks=tasks) for word in words]
    names = [(target.column, target.name) for target in found]
    if twice := [target.word for target in found if names.count((target.column, target.name)) > 1]:
        raise ConfigError(f"select, {option}", f"{' and '.join(twice)} are about the same rows", "one of them")
    return found


def _read(option: str, word: str, sources: Sequence[str], *, tasks: bool) -> Target:
    where = f"select, {option} {word}"
    form = "SOURCE=NUMBER or task:TASK=NUMBER" if tasks else "SOURCE=NUMBER"
    thing, equals, value = word.rpartition("=")
    if not equals or not thing:
        raise ConfigError(where, "names no rows and number", form)
    is_task = tasks and thing.startswith("task:")
    column, name = ("task", thing.removeprefix("task:")) if is_task else ("source", thing)
    known = TASKS if is_task else sources
    if name not in known:
        raise ConfigError(where, f"there is no {column} {name!r}", f"one of {', '.join(known)}")
    text = value.strip().replace("_", "").lower()
    factor = _FACTORS.get(text[-1:], 1)
    try:
        number = float(text[:-1] if factor > 1 else text) * factor
    except ValueError:
        raise ConfigError(where, f"{value!r} is no number", form) from None
    return Target(word, column, name, number, is_share=factor == 1 and "." in text)
