"""`sft show REF --coverage`: what kinds of task the kept rows hold, for people."""

from typing import TYPE_CHECKING

from cli.render import number, out, table

if TYPE_CHECKING:
    from curate.coverage import Coverage


def show_coverage(found: "Coverage") -> None:
    """Print the coverage of a version: tasks by source, languages, lengths, turns, examples, and what is thin."""
    out(f"{found.name}@{found.seq}: {number(found.rows)} kept rows", style="bold")
    sources = list(found.sources)
    rows = [
        (
            t.task,
            number(t.rows),
            _share(t.rows, found.rows),
            *(_cell(t.by_source.get(s, 0), found.sources[s]) for s in sources),
        )
        for t in found.tasks
    ]
    table("Tasks", ["task", "#rows", "#share", *(f"#{source}" for source in sources)], rows)
    _counts(
        "Languages of the answers (undecided: too short, names, numbers, code, a mixture)",
        "language",
        {**found.languages, "undecided": found.undecided},
        found.rows,
    )
    _counts("Words in the answer", "words", found.words, found.rows)
    _counts("Messages in a conversation, the system prompt included", "messages", found.messages, found.rows)
    told = [(t.task, e.place, e.id[:12], e.prompt) for t in found.tasks for e in t.examples]
    table("Examples", ["task", "row", "id", "prompt"], told)
    if found.not_measured:
        out(f"not measured, as they were kept only after the signals ran: {number(found.not_measured)} rows")
    if found.thin:
        out(f"thin or missing (under {found.thin_share:.0%} of the rows): {'; '.join(found.thin)}")


def _counts(title: str, name: str, counts: dict[str, int], total: int) -> None:
    table(title, [name, "#rows", "#share"], [(v, number(n), _share(n, total)) for v, n in counts.items() if n])


def _cell(rows: int, total: int) -> str:
    return f"{number(rows)} ({_share(rows, total)})" if rows else "-"


def _share(rows: int, total: int) -> str:
    return f"{rows / total:.1%}" if total else "-"
