"""The reference page of all commands, made from their own help: `python -m cli.help > docs/commands.md`.

A test fails when the page and the commands differ, so the page is never typed.
"""

import sys
from collections.abc import Iterator
from typing import Any

import typer
from typer.main import get_command

from cli.main import app

WIDTH = 100

HEAD = """# Commands

Made from the commands' own help by `python -m cli.help`; a test keeps it so. A reference (REF) is `NAME` (latest
version), `NAME@7`, `NAME@tag`, or the path of a manifest. Exit codes: 0 done; 1 a check failed (an object or a manifest
that is not what it was fails one, too); 2 wrong usage or bad input; 130 interrupted.
"""


def commands() -> Iterator[tuple[str, Any]]:
    """Give every command with its full name, in the order of the overview."""
    root: Any = get_command(app)
    context = typer.Context(root, info_name="sft")
    for name in root.list_commands(context):
        yield from _within(f"sft {name}", root.get_command(context, name))


def _within(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Give a command, or those of a group, which may hold groups."""
    if hasattr(command, "commands"):
        for sub, found in command.commands.items():
            yield from _within(f"{name} {sub}", found)
    else:
        yield name, command


def page() -> str:
    """Write the whole page."""
    parts = [HEAD]
    for name, command in commands():
        context = typer.Context(command, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH)
        parts.append(f"## `{name}`\n\n```\n{command.get_help(context).strip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(page())
