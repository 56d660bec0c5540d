"""The tables that several commands print of a version: rows through the stages, rows by source, reasons."""

from collections.abc import Mapping

from cli.render import number, table
from schemas.manifest import Manifest
from schemas.reasons import sentence


def by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Order counts, most frequent first, ties by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def funnel(manifest: Manifest) -> None:
    """Print how many rows entered each stage, were kept and rejected, and why; the last row's kept is what is left."""
    rows = [
        (
            count.stage,
            number(count.entered),
            number(count.kept),
            number(count.edited) if count.edited else "",
            number(sum(count.rejected.values())) if count.rejected else "",
            "\n".join(f"{reason} {number(n)}" for reason, n in by_count(count.rejected)),
        )
        for count in manifest.counts
    ]
    table("Rows through the stages", ["stage", "#in", "#kept", "#edited", "#rejected", "reasons"], rows)


def by_source(sources: Mapping[str, Mapping[str, int]]) -> None:
    """Print rows and kept rows of each source."""
    rows = [
        (name, number(n["rows"]), number(n["kept"]), f"{n['kept'] / n['rows']:.1%}" if n["rows"] else "")
        for name, n in sources.items()
    ]
    table("By source", ["source", "#rows", "#kept", "#share"], rows)


def reasons(rejected: Mapping[str, int]) -> None:
    """Print why rows were rejected; nothing where none were."""
    if rejected:
        rows = [(reason, number(n), sentence(reason)) for reason, n in by_count(rejected)]
        table("Rejected", ["reason", "#rows", "meaning"], rows)
