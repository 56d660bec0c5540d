"""What people see: tables, progress bars, one-line errors. Data goes to stdout, everything about the work to stderr."""

import json
import os
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.options import DEFAULT_STORE

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_WIDTH = 120
"""Columns of a table that goes to a file or a pipe, where there is no terminal to ask."""


@cache
def console(*, stderr: bool = False) -> "Console":
    """Give the console of a stream."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else PLAIN_WIDTH)


def say(text: str) -> None:
    """Print a line about the work, on stderr, so that stdout stays data."""
    console(stderr=True).print(text, markup=False)


def out(text: str, *, style: str | None = None) -> None:
    """Print a line of the answer, on stdout."""
    console().print(text, style=style, markup=False)


def paragraph(text: str, *, first: int = 0, style: str | None = None) -> None:
    """Print a paragraph of the answer: `first` blanks before its first line, four before the others."""
    from rich.text import Text

    for i, line in enumerate(Text(text).wrap(console(), max(console().width - 4, 1))):
        out(" " * (4 if i else first) + line.plain.rstrip(), style=style)


def print_json(value: Any) -> None:
    """Print one JSON object on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=1, default=str) + "\n")


def number(value: float) -> str:
    """Write a count with thousands separated."""
    return f"{value:,}"


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on stdout; columns whose name begins with '#' hold numbers and stand to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        grid.add_column(column.lstrip("#"), justify="right" if column.startswith("#") else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    console().print(Text(title, "bold"))
    console().print(grid)


def next_commands(*commands: str, store: Path) -> None:
    """Name the commands that a person would want next; they carry --store where the store is not the usual one."""
    from schemas.remote import shown

    named = shown(store)
    usual = store == DEFAULT_STORE or os.environ.get("SFT_STORE") in (named, str(store))
    out("Next:")
    for command in commands:
        out(f"  {command}" + ("" if usual else f" --store {named}"))


@contextmanager
def progress(*, quiet: bool = False) -> Generator[Callable[[str, int], Callable[[int], None]]]:
    """Show one bar per piece of work, with rate and time left; nothing where stderr is not a terminal.

    Gives `started(what, rows)`, which gives what is called with the number of rows done since the last call.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<18}"),
        BarColumn(),
        TextColumn("{task.completed:>11,.0f} rows"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    hidden = quiet or not sys.stderr.isatty()
    with Progress(*columns, console=console(stderr=True), disable=hidden, transient=True) as bars:

        def started(what: str, rows: int) -> Callable[[int], None]:
            task = bars.add_task(what, total=rows or None, rate="")

            def advance(done: int) -> None:
                bars.advance(task, done)
                speed = bars.tasks[task].speed
                bars.update(task, rate=f"{speed:>9,.0f}/s" if speed else "")

            return advance

        yield started
