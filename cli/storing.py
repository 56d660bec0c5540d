"""`sft verify`, `tag`, `gc`, `export`: check a store, name a version, tidy up, take rows out."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DEFAULT_STORE, JsonOption, RefArgument, StoreOption
from cli.render import number, out, print_json, say, table
from schemas.config import ExportFormat

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog="Example: sft verify mix --deep")
def verify(
    ref: Annotated[
        str | None, typer.Argument(metavar="[REF]", help="NAME (latest), NAME@7, NAME@tag, or a manifest's path.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every version of every dataset, the tags and the runs; without REF.")
    ] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every byte again; recompute every id, content hash and semver.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
) -> None:
    """Check that a version is whole and that its numbers follow from its objects. Exit code 1 when they do not."""
    from curate.verify import verify as check
    from schemas.dataset import open_dataset
    from schemas.errors import ConfigError

    if (ref is None) == (not every):
        raise ConfigError("sft verify", "REF and --all" if every else "no version", "one of REF and --all")
    if ref is None:
        _verify_all(store, deep=deep, json=json)
        return
    dataset = open_dataset(ref, store)
    problems = check(dataset, deep=deep)
    m = dataset.manifest
    if json:
        print_json({"ok": not problems, "name": m.name, "seq": m.seq, "id": m.id, "deep": deep, "problems": problems})
    else:
        for problem in problems:
            out(problem)
        size = sum(f.bytes for f in m.files)
        state = _counted(len(problems), "problem") if problems else "whole"
        out(
            f"{m.name}@{m.seq}: {state}; {len(m.files)} objects, {number(size)} bytes, {number(dataset.rows)} rows",
            style="bold",
        )
    if problems:
        raise typer.Exit(1)


def _counted(n: int, what: str) -> str:
    return f"{number(n)} {what}{'' if n == 1 else 's'}"


def _verify_all(store: Path, *, deep: bool, json: bool) -> None:
    """Check a whole store, and tell of each version as it is done."""
    from curate.verify import Verified, verify_store

    found: list[Verified] = []
    for one in verify_store(store, deep=deep):
        found.append(one)
        if not json:
            for problem in one.problems:
                out(f"{one.name}@{one.seq}: {problem}" if one.seq else problem)
    problems = sum(len(one.problems) for one in found)
    versions = [one for one in found if one.seq]
    if json:
        broken = [{"name": one.name, "seq": one.seq or None, "problems": one.problems} for one in found if one.problems]
        print_json({"ok": not problems, "deep": deep, "versions": len(versions), "problems": broken})
    else:
        names = len({one.name for one in versions})
        state = _counted(problems, "problem") if problems else "whole"
        out(f"{_counted(names, 'dataset')}, {_counted(len(versions), 'version')}, tags and runs: {state}", style="bold")
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
    from schemas.errors import ConfigError

    dataset = open_dataset(ref, store)
    m = dataset.manifest
    if ref.endswith(".json") and open_dataset(f"{m.name}@{m.seq}", dataset.root).manifest.id != m.id:
        found = f"{m.name}@{m.seq} of the store {dataset.root} is another version"
        raise ConfigError(ref, found, "a version of the store", "name the store that it came from with --store")
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
    from schemas.remote import shown

    place = Store(store)
    garbage = place.garbage(grace_hours * 3600)
    if not dry_run:
        garbage = place.remove(garbage)
    files = [*(str(p.relative_to(store)) for p in garbage.paths), *(f"{shown(store)}/{key}" for key in garbage.keys)]
    if json:
        print_json({"removed": not dry_run, "files": files, "bytes": garbage.bytes})
        return
    if dry_run and files:
        table("Would be removed", ["file"], [(file,) for file in files])
    out(f"{_counted(len(files), 'file')}, {number(garbage.bytes)} bytes {'would be ' if dry_run else ''}removed")


@app.command(epilog="Example: sft export mix@golden --format openai --to out/")
def export(
    ref: RefArgument,
    format: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            help="Shape of the rows; jsonl and parquet hold whole records, dpo preference pairs of reviewers, hf a "
            "dataset for the Hugging Face hub: Parquet files, card, Croissant.",
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
    about: Annotated[
        Path | None,
        typer.Option("--about", help="TOML file with what its publisher says of it (hf); see docs/publishing.md."),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
) -> None:
    """Write the kept rows of a version as files, one for each split."""
    from curate.export import export as write
    from schemas.about import read_about
    from schemas.dataset import open_dataset

    done = write(
        open_dataset(ref, store),
        format,
        to,
        splits=tuple(split) if split else None,
        include_rejected=include_rejected,
        about=read_about(about) if about else None,
    )
    if json:
        told = {"files": [str(f) for f in done.files], "rows": done.rows, "skipped": done.skipped}
        print_json(told | ({"notices": list(done.notices)} if format == "hf" else {}))
        return
    for file in done.files:
        out(str(file))
    out(f"{number(done.rows)} {'pairs' if format == 'dpo' else 'rows'} exported as {format}")
    for notice in done.notices:
        say(notice)
    if done.skipped:
        rows = [(reason, number(n)) for reason, n in sorted(done.skipped.items())]
        what = (
            "Comparisons and corrections that give no pair" if format == "dpo" else "Rows that this format cannot hold"
        )
        table(f"{what} (listed in skipped.jsonl)", ["reason", "#rows"], rows)
