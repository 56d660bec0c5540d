"""What `sft train --dry-run` shows: sources, records as the model reads them, and what the run would be."""

import json as jsonlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.render import console, number, out, print_json, say, table
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from schemas.dataset import Dataset
    from train.preflight.report import Preflight
    from train.preflight.shown import Shown
    from train.run.prepare import Prepared

STYLES = {
    "read": "dim",
    "special": "magenta",
    "target": "bold green",
    "target special": "bold reverse green",
    "left out": "italic yellow",
}
"""How each kind of token looks on a terminal; elsewhere targets stand between ⟦ and ⟧."""


def shared_clusters(dataset: "Dataset") -> tuple[tuple[str, str], ...]:
    """Give (val id, train id) for kept val rows whose near-duplicate cluster has kept train rows, one pair per val row.

    Empty where dedup or split has not run. Reads: id, cluster_id, split, kept.
    """
    import polars as pl

    stages = {stage.name for stage in dataset.manifest.stages}
    if not {"dedup", "split"} <= stages:
        return ()
    rows = dataset.scan(["id", "cluster_id", "split", "kept"]).filter("kept", pl.col("cluster_id").is_not_null())
    train = rows.filter(split="train").group_by("cluster_id").agg(train=pl.col("id").first())
    pairs = rows.filter(split="val").join(train, on="cluster_id").select("id", "train").collect()
    return tuple(pairs.sort("id").iter_rows())


def tell_dry_run(prepared: "Prepared", *, json: bool, rejected: Path | None, notes: Sequence[str] = ()) -> None:
    """Show what a run would be. `rejected`: also write every row that cannot be used there, one JSON per line.

    `notes`: what was said on the way, which stands on stderr but for JSON.
    """
    report = prepared.report
    if rejected is not None:
        _write(rejected, prepared)
    if json:
        print_json({"dry_run": True, "notes": list(notes), "preflight": report.json()})
        return
    tell_sources(report)
    tell_shown(report)
    out("What the run would be", style="bold")
    width = max(len(what) for what, _ in report.facts()) + 2
    for what, line in report.facts():
        console().print(f"{what:<{width}}{line}", markup=False, soft_wrap=True)
    for refused in report.refused:
        out(f"\nnot used, {refused.split}, {refused.reason}: {refused.named()}")
    out("")
    for warning in report.warnings:
        out(f"warning: {warning}")
    if report.refused and rejected is None:
        out("--rejected FILE writes all that cannot be used, with the reason; a run writes them to rejected.jsonl")
    out("preflight passed; nothing was trained" + (f"; {rejected} is written" if rejected else " or written"))


def tell_sources(report: "Preflight") -> None:
    """Print what each source brings."""
    table(
        "What is read",
        ("split", "source", "#records", "#tokens", "#targets", "#share of targets", "#longest"),
        [
            (
                s.split,
                s.source,
                number(s.records),
                number(s.tokens),
                number(s.targets),
                f"{s.targets / s.tokens:.0%}",
                number(s.longest),
            )
            for s in report.sources
        ],
    )


def tell_shown(report: "Preflight") -> None:
    """Print a few records as the model reads them, their targets in colour or between ⟦ and ⟧."""
    coloured = sys.stdout.isatty()
    out(
        f"What the model reads, and {'in green' if coloured else 'between ⟦ and ⟧'} what it learns to write",
        style="bold",
    )
    for shown in report.shown:
        out("")
        out(f"── {shown.title()}")
        if coloured:
            console().print(_coloured(shown), soft_wrap=True)
        else:
            console().print(shown.marked(), markup=False, soft_wrap=True)
    out("")


def _coloured(shown: "Shown") -> Any:
    from rich.text import Text

    return Text.assemble(*((piece.text, STYLES[piece.kind]) for piece in shown.pieces))


def _write(path: Path, prepared: "Prepared") -> None:
    try:
        with path.open("w", encoding="utf-8") as stream:
            stream.writelines(jsonlib.dumps(line, ensure_ascii=False) + "\n" for line in prepared.not_used())
    except OSError as error:
        raise ConfigError(f"--rejected {path}", error.strerror or str(error), "a file that can be written") from error
    say(f"rows that cannot be used: {path}")
