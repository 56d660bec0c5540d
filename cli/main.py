"""The `sft` command: its groups, and how an expected failure is told.

Commands are imported when they are called, so that `sft --help`, and each command, starts without the others.
"""

import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from schemas.errors import SftError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""

COMMANDS = {
    "curate": ("cli.curate", "Ingest raw files, run stages, make versions."),
    "show": ("cli.inspection", "Show a version: rows through the stages, reasons, sources, splits."),
    "log": ("cli.inspection", "Draw the versions of a dataset as a graph, latest first."),
    "why": ("cli.inspection", "Tell a row's life: origin, edits, verdicts, runs that trained on it."),
    "diff": ("cli.diff", "Say what changed between two versions."),
    "verify": ("cli.storing", "Check that a version is whole and its numbers are true."),
    "tag": ("cli.storing", "Give a version a name that stays."),
    "gc": ("cli.storing", "Remove objects that nothing names."),
    "export": ("cli.storing", "Write the kept rows of a version as files."),
    "push-to-hub": ("cli.publishing", "Push a version to the Hugging Face hub, with a card."),
    "train": ("cli.train", "Fine-tune a model on the kept rows of a version."),
    "report": ("cli.report", "Say what a training run came to: verdict, curves, records, as a page."),
    "eval": ("cli.evaluation", "Measure a run's model beside its base."),
    "generate": ("cli.generation", "Answer prompts with a trained model, or chat with it."),
    "merge": ("cli.merge", "Merge a run's adapters into their base model, proven by the logits."),
}
"""Each command, the module that holds its Typer app, and its line in the overview."""


class LazyCommands(TyperGroup):
    """The root group: knows the names and lines of all commands, and imports the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 # Typer's signature, here and below
        """Give the names in the order of a row's walk."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 # as above
        """Import a command and give it; None for a name that there is not."""
        if cmd_name not in COMMANDS:
            return None
        found: Any = get_command(import_module(COMMANDS[cmd_name][0]).app)
        return getattr(found, "commands", {}).get(cmd_name, found)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 # as above
        """Write the overview without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


app = typer.Typer(
    name="sft",
    cls=LazyCommands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def root() -> None:
    """Supervised fine-tuning with every row accounted for: curate, version, diff and train on instruction data."""


def run() -> None:
    """Run the command line. An expected failure is one line on stderr; a bug keeps its traceback."""
    try:
        app()
    except SftError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:  # Typer has caught Ctrl-C
            sys.stderr.write("interrupted: nothing was committed; the same command takes up what is finished\n")
        raise
    except BrokenPipeError:  # the reader of our output (head, less) has enough
        sys.stderr.close()
        sys.exit(0)
