"""`sft curate restore`: keep rows after all, by name."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import DEFAULT_STORE, JsonOption, MessageOption, RefArgument, StoreOption
from cli.render import next_commands, number, print_json, say, table
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from curate.naming import Named

EXAMPLE = 'sft curate restore mix dolly:7 --by anna --because "a right answer, if a short one"'


def restore(
    ref: RefArgument,
    rows: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ROW...", help="Ids, the first letters of them, or SOURCE:ROW; - reads them from stdin."
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--from", help="File with rows, one on a line; # begins a comment.")
    ] = None,
    because: Annotated[str | None, typer.Option("--because", help="Why; sft why tells it.")] = None,
    by: Annotated[str | None, typer.Option("--by", help="Who decides. [default: the user of this machine]")] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take back that the rows were restored.")] = False,
    store: StoreOption = DEFAULT_STORE,
    message: MessageOption = None,
    json: JsonOption = False,
) -> None:
    """Keep rows after all, whatever left them out, and commit a version: all of the rows, or nothing.

    The decision is yours, with name and time, and is kept with what reviewers said: it is applied again when stages run
    again, and is stale when the row's text changes. Rows that would leak into an evaluation split, could not be read,
    hold personal data that nobody redacted, or are barred by a licence cannot be kept.
    """
    from cli.curate import committed, tell
    from curate.restore import restore as keep
    from curate.restore import take_back
    from curate.store import Store
    from schemas.dataset import open_dataset

    if undo and (because or by):
        raise ConfigError("options", "--undo takes no --by and no --because", "either of them")
    names = _names(rows or [], file)
    dataset = open_dataset(ref, store)
    place = Store(dataset.root)
    latest = place.latest(dataset.manifest.name) if "@" in ref or ref.endswith(".json") else None
    if undo:
        done = take_back(place, dataset, names, message=message, latest=latest)
    else:
        done = keep(place, dataset, names, by=by, because=because, message=message, latest=latest)
    if json:
        told: dict[str, Any] = {"undone" if undo else "restored": [_plain(row) for row in done.rows]}
        told["left"] = [_plain(row) | {"why": why} for row, why in done.left]
        print_json({**told, "reasons": done.reasons, "notes": list(done.notes), **committed(done.commit)})
        return
    for row, why in done.left:
        say(f"{row.place} ({row.id[:12]}) {why}")
    for note in done.notes:
        say(note)
    if done.rows:
        heads = ["id", "row", "now" if undo else "left out for"]
        count = "1 row" if len(done.rows) == 1 else f"{number(len(done.rows))} rows"
        title = f"{count} {'no longer restored' if undo else 'restored'}"
        table(title, heads, [(row.id[:12], row.place, done.reasons[row.id]) for row in done.rows])
    tell(done.commit)
    m = done.commit.manifest
    if done.commit.is_new:
        next_commands(
            f"sft why {m.name} {done.rows[0].place}", f"sft diff {m.name}@{dataset.manifest.seq} {m.name}", store=store
        )


def _names(rows: list[str], file: Path | None) -> list[str]:
    """Collect the names of rows from the command line, from stdin where `-` is one of them, and from a file."""
    names = [name for name in rows if name != "-"]
    if "-" in rows:
        names += _lines(sys.stdin.read())
    if file:
        try:
            names += _lines(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            found = getattr(error, "strerror", None) or str(error)
            raise ConfigError(f"--from {file}", found, "a text file with one row on a line") from error
    return names


def _lines(text: str) -> list[str]:
    return [line.partition("#")[0] for line in text.splitlines()]


def _plain(row: "Named") -> dict[str, Any]:
    return {"id": row.id, "source": row.source, "source_file": row.source_file, "source_row": row.source_row}
