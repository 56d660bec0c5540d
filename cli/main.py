"""The `sft` command: its groups, and how an expected failure is told."""

import sys

import typer

from cli import curate, inspection, storing
from cli.train import train
from schemas.errors import SftError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""

app = typer.Typer(
    name="sft",
    help="Supervised fine-tuning with every row accounted for: curate, version, diff and train on instruction data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(curate.app, name="curate")
for command in (inspection.show, inspection.log, inspection.why, inspection.diff):
    app.command(epilog=inspection.EXAMPLES[command.__name__])(command)
for command in (storing.verify, storing.tag, storing.gc, storing.export):
    app.command(epilog=storing.EXAMPLES[command.__name__])(command)
app.command(epilog="Example: sft train --manifest mix --model tiny --out runs/first")(train)


def run() -> None:
    """Run the command line. An expected failure is one line on stderr; a bug keeps its traceback."""
    try:
        app()
    except SftError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: nothing was committed; the same command goes on from the finished stages\n")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader of our output (head, less) has enough
        sys.stderr.close()
        sys.exit(0)
