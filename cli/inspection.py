"""`sft show`, `log`, `why`: look at versions, change nothing."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.funnel import by_source, funnel
from cli.options import DEFAULT_STORE, JsonOption, RefArgument, StoreOption
from cli.render import number, out, print_json, say, table

if TYPE_CHECKING:
    from curate.licences import Licence
    from schemas.manifest import Source

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog="Example: sft show mix@3")
def show(
    ref: RefArgument,
    coverage: Annotated[
        bool, typer.Option("--coverage", help="Show tasks, languages, lengths and turns of the kept rows instead.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a data card as one page for a browser.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
) -> None:
    """Show a version: rows through the stages, reasons, sources, splits, and what is stale."""
    from curate.summary import summarise
    from schemas.dataset import open_dataset

    dataset = open_dataset(ref, store)
    if html is not None:
        from cli.page import check_page, write_page
        from curate.portrait import portray
        from curate.report.page import version_page

        check_page(html)
        write_page(html, version_page(portray(dataset), dataset))
    if coverage:
        from cli.coverage import show_coverage
        from curate.coverage import cover

        found = cover(dataset)
        print_json(found.to_json()) if json else show_coverage(found)
        return
    from cli.life import visible
    from curate.licences import licence_of, of_mix

    summary = summarise(dataset)
    m = dataset.manifest
    licences = {source.name: licence_of(source) for source in m.sources}
    mix = of_mix(licences[name] for name, count in summary.by_source.items() if count.kept)
    if json:
        told = {name: vars(licence) for name, licence in licences.items()}
        print_json({**summary.to_json(), "licence": vars(mix), "licences": told})
        return
    out(f"{m.name}@{m.seq}, version {m.semver}, id {m.id[:12]}, {m.created}, {m.message}", style="bold")
    out(f"{number(summary.rows)} rows: {number(summary.kept)} kept, {number(summary.rows - summary.kept)} rejected")
    funnel(m)
    by_source(summary.by_source)
    if summary.by_split:
        table("Kept rows by split", ["split", "#rows"], [(s, number(n)) for s, n in summary.by_split.items()])
    if summary.flags:
        table("Flags on kept rows", ["flag", "#rows"], [(f, number(n)) for f, n in summary.flags.items()])
    terms = [
        (s.name, s.format, _licence(licences[s.name]), visible("; ".join(licences[s.name].terms)), _files(s))
        for s in m.sources
    ]
    table("Sources", ["source", "format", "licence", "terms", "files"], terms)
    out(visible(f"The kept rows together: {_licence(mix)}. {mix.why}"))
    if summary.stale:
        say(f"stale: {', '.join(summary.stale)} ran before something that they read was changed. Run: sft curate run")


def _licence(licence: "Licence") -> str:
    return f"{licence.expression or 'not stated'} ({licence.kind})"


def _files(source: "Source") -> str:
    return "\n".join(file.uri for file in source.inputs)


@app.command(epilog="Example: sft log mix")
def log(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A dataset.")],
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
) -> None:
    """Draw the versions of a dataset as a graph, latest first: what made each, rows kept, tags, training runs."""
    from cli.log import show_log
    from curate.graph import graph_of
    from curate.store import Store

    graph = graph_of(Store(store), name)
    print_json(graph.to_json()) if json else show_log(graph)
    for _, problem in graph.unreadable:
        say(f"cannot be read: {problem}")
    if graph.unreadable:
        raise typer.Exit(1)


@app.command(epilog="Example: sft why mix alpaca:17")
def why(
    ref: RefArgument,
    row: Annotated[str, typer.Argument(metavar="ROW", help="A row's id, the first letters of it, or SOURCE:ROW.")],
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
) -> None:
    """Tell a row's life: where it came from, what was changed, why it is kept or not, which runs trained on it."""
    from cli.life import show_life
    from curate.lineage import why as tell
    from curate.store import Store
    from schemas.dataset import open_dataset

    dataset = open_dataset(ref, store)
    life = tell(dataset, Store(dataset.root), row)
    if json:
        print_json(life.to_json())
        return
    show_life(life)
