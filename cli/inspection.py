"""`sft show`, `log`, `why`: look at versions, change nothing."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.funnel import by_source, funnel
from cli.options import DEFAULT_STORE, JsonOption, RefArgument, StoreOption
from cli.render import console, number, out, print_json, say, table

if TYPE_CHECKING:
    from curate.lineage import Event

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog="Example: sft show mix@3")
def show(
    ref: RefArgument,
    coverage: Annotated[
        bool, typer.Option("--coverage", help="Show tasks, languages, lengths and turns of the kept rows instead.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
) -> None:
    """Show a version: rows through the stages, reasons, sources, splits, and what is stale."""
    from curate.summary import summarise
    from schemas.dataset import open_dataset

    dataset = open_dataset(ref, store)
    if coverage:
        from cli.coverage import show_coverage
        from curate.coverage import cover

        found = cover(dataset)
        print_json(found.to_json()) if json else show_coverage(found)
        return
    summary = summarise(dataset)
    if json:
        print_json(summary.to_json())
        return
    m = dataset.manifest
    out(f"{m.name}@{m.seq}, version {m.semver}, id {m.id[:12]}, {m.created}, {m.message}", style="bold")
    out(f"{number(summary.rows)} rows: {number(summary.kept)} kept, {number(summary.rows - summary.kept)} rejected")
    funnel(m)
    by_source(summary.by_source)
    if summary.by_split:
        table("Kept rows by split", ["split", "#rows"], [(s, number(n)) for s, n in summary.by_split.items()])
    if summary.flags:
        table("Flags on kept rows", ["flag", "#rows"], [(f, number(n)) for f, n in summary.flags.items()])
    terms = [
        (s.name, s.format, s.license or "not stated", s.terms or "", ", ".join(i.uri for i in s.inputs))
        for s in m.sources
    ]
    table("Sources", ["source", "format", "licence", "terms", "files"], terms)
    if summary.stale:
        say(f"stale: {', '.join(summary.stale)} ran before something that they read was changed. Run: sft curate run")


@app.command(epilog="Example: sft log mix")
def log(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A dataset.")],
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
) -> None:
    """List the versions of a dataset, latest first."""
    from schemas.reference import manifest_path, read_manifest, read_tags, versions_of

    latest = read_manifest(manifest_path(name, store))  # also tells a wrong name
    tags = read_tags(store, latest.name)
    versions = [
        read_manifest(manifest_path(f"{latest.name}@{n}", store)) for n in reversed(versions_of(store, latest.name))
    ]
    entries: list[dict[str, Any]] = [
        {
            "seq": m.seq,
            "semver": m.semver,
            "id": m.id,
            "created": m.created,
            "kept": m.counts[-1].kept if m.counts else 0,
            "tags": sorted(t for t, n in tags.items() if n == m.seq),
            "message": m.message,
            "parents": list(m.parents),
        }
        for m in versions
    ]
    if json:
        print_json({"name": latest.name, "versions": entries})
        return
    rows = [
        (f"@{e['seq']}", e["semver"], e["id"][:12], e["created"], number(e["kept"]), ", ".join(e["tags"]), e["message"])
        for e in entries
    ]
    table(f"Versions of {latest.name}", ["#seq", "version", "id", "time (UTC)", "#kept", "tags", "message"], rows)


@app.command(epilog="Example: sft why mix alpaca:17")
def why(
    ref: RefArgument,
    row: Annotated[str, typer.Argument(metavar="ROW", help="A row's id, the first letters of it, or SOURCE:ROW.")],
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
) -> None:
    """Tell a row's life: where it came from, what was changed, why it is kept or not, which runs trained on it."""
    from curate.lineage import why as tell
    from curate.store import Store
    from schemas.dataset import open_dataset

    dataset = open_dataset(ref, store)
    life = tell(dataset, Store(dataset.root), row)
    if json:
        print_json(life.to_json())
        return
    fate = (
        f"kept, in {life.split}"
        if life.kept and life.split
        else "kept"
        if life.kept
        else f"rejected: {life.reject_reason}"
    )
    out(f"{life.id}  {life.source}  {life.source_file} row {life.source_row}  {fate}", style="bold")
    for message in life.text["messages"]:
        _turn(message["role"], "\n".join(text for text in (message["content"], message["tool_calls"]) if text))
    if life.text["context"]:
        _turn("context", life.text["context"])
    if not life.text["messages"] and life.text["extra"]:
        _turn("as it stood", life.text["extra"])
    out("")
    for event in life.history:
        _event(event)


def _turn(role: str, content: str) -> None:
    from rich.text import Text

    console().print(Text.assemble((f"  {role}: ", "cyan"), content))


def _event(event: "Event") -> None:
    from rich.text import Text

    styles = {"same": "", "removed": "red strike", "added": "green"}
    marks = {"same": ("", ""), "removed": ("[-", "-]"), "added": ("{+", "+}")}
    facts = dict(event.facts)
    console().print(Text.assemble((f"{event.stage:<14}", "bold"), event.what))
    changes = facts.pop("changes", {})
    match = facts.pop("match", None)
    if event.stage == "review":  # the line says it; a correction that was not taken stands nowhere else
        facts = {"correction": facts["correction"]} if "correction_not_taken" in facts else {}
    for name, value in facts.items():
        if value is not None and name not in ("edits", "before_hash", "after_hash", "verdict"):
            console().print(Text(f"{'':<14}{name}: {_shown(value)}", "dim"))
    for where, pieces in changes.items():
        line = Text(f"{'':<14}{where}: ")
        for kind, text in pieces:
            begin, end = ("", "") if console().is_terminal else marks[kind]
            line.append(begin + (text if kind == "same" else repr(text)[1:-1]) + end, styles[kind])
        console().print(line)
    if match:
        place = f"{match['source_file']} row {match['source_row']}"
        of = f" of {match['dataset']}" if "dataset" in match else ""
        console().print(Text(f"{'':<14}the row that is kept: {match['id']} ({place}{of})"))
        for message in match["messages"]:
            console().print(Text.assemble(f"{'':<16}", (f"{message['role']}: ", "cyan"), message["content"]))


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
