"""The tables that several commands print of a version: rows through the stages, rows by source, reasons."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from cli.render import number, table
from schemas.reasons import sentence

if TYPE_CHECKING:
    from curate.summary import SourceCount
    from schemas.manifest import Manifest


def by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Order counts, most frequent first, ties by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def funnel(manifest: "Manifest") -> None:
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


def by_source(sources: Mapping[str, "SourceCount"]) -> None:
    """Print, for each source and in all: rows in, rows rejected by reason, rows kept."""
    total: Counter[str] = Counter()
    for count in sources.values():
        total.update(count.rejected)
    several = len(sources) > 1

    def line(name: str, of: Callable[["SourceCount"], int]) -> list[str]:
        numbers = [of(count) for count in sources.values()]
        return [name, *(number(n) if n else "" for n in [*numbers, *([sum(numbers)] if several else [])])]

    rows = [line("in", lambda c: c.rows)]
    rows += [line(f"- {reason}", lambda c, r=reason: c.rejected.get(r, 0)) for reason, _ in by_count(total)]
    rows += [line("kept", lambda c: c.kept)]
    columns = ["", *(f"#{name}" for name in sources), *(["#all"] if several else [])]
    table("By source", columns, rows)


def reasons(rejected: Mapping[str, int]) -> None:
    """Print why rows were rejected; nothing where none were."""
    if rejected:
        rows = [(reason, number(n), sentence(reason)) for reason, n in by_count(rejected)]
        table("Rejected", ["reason", "#rows", "meaning"], rows)
