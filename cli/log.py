"""How `sft log` draws the versions of a dataset."""

import textwrap
from typing import TYPE_CHECKING

from cli.life import visible
from cli.render import console, number, out

if TYPE_CHECKING:
    from curate.graph import Graph, Node, Run

WIDTH = 100
"""Columns of the picture, at most; longer messages go on below."""


def show_log(graph: "Graph") -> None:
    """Print the versions as a graph, latest first: lanes, number, version, kept rows, time, and what made each."""
    from rich.text import Text

    from curate.graph import below, draw

    lines = draw(graph.nodes)
    nodes = graph.nodes
    if not nodes:
        return
    lanes = max(len(line.lanes) for line in lines)
    seq = max(len(f"@{n.seq}") for n in nodes)
    kept = max(len(number(n.kept)) for n in nodes)
    change = max(len(_change(n)) for n in nodes)
    version = max(len(n.semver) for n in nodes)
    count = "1 version" if len(nodes) == 1 else f"{number(len(nodes))} versions"
    columns = "rows kept, more or fewer than the parent, time (UTC)"
    out(f"{count} of {graph.name}, latest first: {columns}", style="bold")
    for i, line in enumerate(lines):
        if (node := line.node) is None:
            console().print(Text(line.lanes, "cyan"))
            continue
        facts = (
            f"{f'@{node.seq}':>{seq}}  {node.semver:<{version}} {node.bump or 'first':<5}  {number(node.kept):>{kept}} "
            f"{_change(node):>{change}}  {node.created[:16].replace('T', ' ')}  "
        )
        told = visible(_told(node))
        width = max(24, min(console().width, WIDTH) - lanes - 1 - len(facts))
        first, *more = textwrap.wrap(told, width) or [""]
        mark = Text(f"{line.lanes:<{lanes}} ", "cyan")
        console().print(Text.assemble(mark, (facts, "bold" if node.tags else ""), first), soft_wrap=True)
        rest = Text(f"{below(lines, i):<{lanes}} ", "cyan")
        for text in more:
            console().print(Text.assemble(rest, " " * len(facts), text), soft_wrap=True)
        for run in node.runs:
            console().print(Text.assemble(rest, " " * (seq + 2), (_run(run), "green")), soft_wrap=True)


def _change(node: "Node") -> str:
    return "" if not node.parents else f"{node.change:+,}" if node.change else "="


def _told(node: "Node") -> str:
    """Say what made a version: its tags, its message, and the stages and sources that the message does not name."""
    tags = f"({', '.join(node.tags)}) " if node.tags else ""
    unnamed = ", ".join(made for made in node.made_by if made.rpartition(" ")[2] not in node.message)
    return f"{tags}{node.message}" + (f" [{unnamed}]" if unnamed else "")


def _run(run: "Run") -> str:
    losses = (run.loss_first, run.loss_last)
    fell = f": loss {losses[0]:.3f} -> {losses[1]:.3f}" if losses[0] is not None and losses[1] is not None else ""
    return f"trained by run {run.run_id}{fell}"
