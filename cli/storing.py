"""`sft verify`, `tag`, `gc`, `export`: check a store, name a version, tidy up, take rows out."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DEFAULT_STORE, JsonOption, RefArgument, StoreOption
from cli.render import number, out, print_json, table
from schemas.config import ExportFormat

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog="Example: sft verify mix --deep")
def verify(
    ref: RefArgument,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every byte again; recompute every id and content hash.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
) -> None:
    """Check that a version is whole and that its numbers follow from its objects. Exit code 1 when they do not."""
    from curate.verify import verify as check
    from schemas.dataset import open_dataset

    dataset = open_dataset(ref, store)
    problems = check(dataset, deep=deep)
    m = dataset.manifest
    if json:
        print_json({"ok": not problems, "name": m.name, "seq": m.seq, "id": m.id, "deep": deep, "problems": problems})
    else:
        for problem in problems:
            out(problem)
        size = sum(f.bytes for f in m.files)
        state = f"{len(problems)} problems" if problems else "whole"
        out(
            f"{m.name}@{m.seq}: {state}; {len(m.files)} objects, {number(size)} bytes, {number(dataset.rows)} rows",
            style="bold",
        )
    if problems:
        raise typer.Exit(1)


@app.command(epilog="Example: sft tag mix@3 golden")
def tag(
    ref: RefArgument,
    name: Annotated[
        str, typer.Argument(metavar="TAG", help="A name for the version; a tag that is there already moves.")
    ],
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
) -> None:
    """Give a version a name that stays when new versions come."""
    from curate.store import Store
    from schemas.dataset import open_dataset

    dataset = open_dataset(ref, store)
    m = dataset.manifest
    Store(dataset.root).tag(m.name, name, m.seq)
    if json:
        print_json({"name": m.name, "tag": name, "seq": m.seq, "id": m.id})
    else:
        out(f"{m.name}@{name} is version {m.seq} ({m.semver}, id {m.id[:12]})")


@app.command(epilog="Example: sft gc --dry-run")
def gc(
    grace_hours: Annotated[
        float,
        typer.Option(
            "--grace-hours", min=0, help="Leave files alone that are younger than this: a commit may be under way."
        ),
    ] = 24.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be removed, remove nothing.")] = False,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
) -> None:
    """Remove objects that no version, run or recent stage result names. Versions are never removed."""
    from curate.store import Store

    place = Store(store)
    garbage = place.garbage(grace_hours * 3600)
    if not dry_run:
        place.remove(garbage)
    if json:
        paths = [str(p.relative_to(store)) for p in garbage.paths]
        print_json({"removed": not dry_run, "files": paths, "bytes": garbage.bytes})
        return
    if dry_run and garbage.paths:
        table("Would be removed", ["file"], [(str(p.relative_to(store)),) for p in garbage.paths])
    out(f"{number(len(garbage.paths))} files, {number(garbage.bytes)} bytes {'would be ' if dry_run else ''}removed")


@app.command(epilog="Example: sft export mix@golden --format openai --to out/")
def export(
    ref: RefArgument,
    format: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            help="Shape of the rows; jsonl and parquet hold whole records, dpo preference pairs of reviewers.",
        ),
    ],
    to: Annotated[Path, typer.Option("--to", help="Folder to write to; new or empty.")],
    split: Annotated[
        list[str] | None,
        typer.Option("--split", help="Only this split: train, val or test; may be repeated. All of them by default."),
    ] = None,
    include_rejected: Annotated[
        bool, typer.Option("--include-rejected", help="Rejected rows too, with their reason (jsonl, parquet).")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
) -> None:
    """Write the kept rows of a version as files, one for each split."""
    from curate.export import export as write
    from schemas.dataset import open_dataset

    done = write(
        open_dataset(ref, store), format, to, splits=tuple(split) if split else None, include_rejected=include_rejected
    )
    if json:
        print_json({"files": [str(f) for f in done.files], "rows": done.rows, "skipped": done.skipped})
        return
    for file in done.files:
        out(str(file))
    out(f"{number(done.rows)} {'pairs' if format == 'dpo' else 'rows'} exported as {format}")
    if done.skipped:
        rows = [(reason, number(n)) for reason, n in sorted(done.skipped.items())]
        what = (
            "Comparisons and corrections that give no pair" if format == "dpo" else "Rows that this format cannot hold"
        )
        table(f"{what} (listed in skipped.jsonl)", ["reason", "#rows"], rows)
