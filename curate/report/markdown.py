"""A diff as Markdown that fits a comment of a pull request: tables of what it comes to, rows folded away.

GitHub's flavour. Texts and names from outside are data: they stand in `<code>` or `<pre>`, where nothing becomes a
mention, a reference to an issue or a commit, or a link, and every mark that could end them is a character reference.
What does not fit is left out whole, and said to be.
"""

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from curate.diff.account import Account, EditedRow, MixChange
from curate.diff.changes import WORDS
from curate.diff.gate import Outcome
from curate.review.markdown import clean, escaped

MOST_CHARACTERS = 65_000
"""GitHub takes 65,536 characters of a comment; some are left for what is put around this."""

SHOWN_LINES = 30
"""Lines of a table."""
SHOWN_ROWS = 20
"""Rows of each word, and rows that broke a gate."""
SHOWN_EDITS = 5
"""Edits of each stage that are shown word by word."""
CELL = 160
"""Characters of a text in a cell of a table."""
AROUND = 80
"""Characters of unchanged text on each side of a change."""
PIECE = 600
"""Characters of a text that was added or removed."""
NOTABLE_DRIFT = 0.05
"""Drift from which a measure is listed: one row in twenty stands elsewhere in its distribution."""


def diff_markdown(account: Account, outcomes: Sequence[Outcome] = ()) -> str:
    """Write the account of a diff, and what became of its gates; at most `MOST_CHARACTERS`."""
    a, b, verdict = account.before, account.after, account.verdict
    names = [code(f"{side.name}@{side.seq}") for side in (a, b)]
    bump = "the same version" if verdict.same else f"**{verdict.bump}** change"
    sees = "" if verdict.same else f", a trainer {'**sees**' if verdict.trainer_sees_it else 'does not see'} it"
    head = f"### {names[0]} → {names[1]}: {bump}{sees}\n\n" + "".join(f"- {s}\n" for s in verdict.sentences)
    whole = f"\nEverything, row by row: `sft diff {a.name}@{a.seq} {b.name}@{b.seq} --html diff.html`, or `--json`.\n"
    left_out: list[str] = []
    written = [head]
    room = MOST_CHARACTERS - len(head) - len(whole) - 500  # the names of what is left out
    for title, block in _blocks(account, outcomes):
        if len(block) + 1 <= room:
            written.append(block)
            room -= len(block) + 1
        else:
            left_out.append(title)
    if left_out:
        whole = f"\nLeft out, as it does not fit: {cut(', '.join(left_out), 400)}.\n" + whole
    return "\n".join(written) + whole


def code(text: str) -> str:
    """Write a short text on one line, as it stands and as nothing else."""
    shown = cut(" ".join(clean(text).split()), CELL)
    if "`" in shown or "|" in shown:
        return f"<code>{escaped(shown)}</code>"
    return f"`{shown}`" if shown else ""


def cut(text: str, most: int) -> str:
    """Shorten a text to `most` characters, with a mark."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _blocks(account: Account, outcomes: Sequence[Outcome]) -> Iterator[tuple[str, str]]:
    """Give the parts, each by its name, in the order of their weight; a part without content is left out."""
    yield from _gates(outcomes)
    if account.verdict.same:
        return
    parts: Iterable[tuple[str, str]] = (
        ("size", _size(account)),
        ("what made the changes", _makers(account)),
        ("leaks", _leaks(account)),
        ("reasons", _reasons(account)),
        ("settings", _settings(account)),
        ("sources", _mix("Sources", account.sources)),
        ("licences", _mix("Classes of licence", account.licences)),
        ("effects", _effects(account)),
        ("drift", _drift(account)),
    )
    yield from ((title, block) for title, block in parts if block)
    yield from _edits(account.edits)
    yield from _rows(account)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table; columns whose name begins with '#' stand to the right. Cells are Markdown already."""
    if not rows:
        return ""
    lines = [
        f"**{title}**\n",
        "| " + " | ".join(c.lstrip("#") for c in columns) + " |",
        "|" + "|".join(" ---: " if c.startswith("#") else " --- " for c in columns) + "|",
        *("| " + " | ".join(row) + " |" for row in rows[:SHOWN_LINES]),
    ]
    more = f"\n… and {len(rows) - SHOWN_LINES:,} more\n" if len(rows) > SHOWN_LINES else ""
    return "\n".join(lines) + "\n" + more


def _folded(title: str, inside: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{inside}\n</details>\n"


def _gates(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, str]]:
    told = [
        (
            "❌ broken" if o.broken else "✅ kept",
            code(o.gate.name or ""),
            code(o.gate.text),
            ", ".join(code(f"{j.test.measure} {j.value}") for j in o.tests),
        )
        for o in outcomes
    ]
    if told:
        yield "gates", table("Gates", ["", "name", "fails on", "found"], told)
    for o in outcomes:
        if o.broken and o.rows:
            rows = [
                (code(str(r.get("place") or r["id"])), r["word"], code(", ".join(r.get("by") or ())))
                for r in o.rows[:SHOWN_ROWS]
            ]
            of = f"{len(rows)} of {len(o.rows):,} rows" if len(rows) < len(o.rows) else f"{len(rows)} rows"
            title = f"{of} that broke <code>{html.escape(clean(o.gate.text))}</code>"
            yield "rows that broke a gate", _folded(title, table("Rows", ["row", "what", "by"], rows))


def _size(account: Account) -> str:
    a, b = account.before, account.after
    pairs = (("rows", a.rows, b.rows), ("kept rows", a.kept, b.kept), ("tokens of kept rows", a.tokens, b.tokens))
    rows = [(what, f"{old:,}", f"{new:,}", _change(old, new)) for what, old, new in pairs]
    return table("Size", ["", "#before", "#after", "#change"], rows)


def _change(old: int, new: int) -> str:
    if old == new:
        return "none"
    percent = 100 * (new - old) / old if old else 0.0
    part = f"{percent:+,.0f}%" if abs(percent) >= 10 else f"{percent:+.2g}%"  # two digits
    return f"{new - old:+,}" + (f" ({part})" if old else "")


def _signed(n: int) -> str:
    return f"{n:+,}" if n else ""


def _makers(account: Account) -> str:
    rows = [
        (m.word, m.stage, code(", ".join(m.by)), m.cause, code(", ".join(m.keys)), f"{m.rows:,}")
        for m in account.makers
    ]
    return table("What made the changes", ["what", "stage", "by", "cause", "key", "#rows"], rows)


def _reasons(account: Account) -> str:
    rows = [
        (r.stage, code(r.reason), f"{r.before:,}", f"{r.after:,}", _signed(r.came), _signed(-r.left))
        for r in account.reasons
        if r.came or r.left
    ]
    return table("Rows left out, by reason", ["stage", "reason", "#before", "#after", "#came", "#left"], rows)


def _settings(account: Account) -> str:
    rows = [(s.stage, *map(code, s.told)) for s in account.settings]
    return table("Settings that differ", ["stage", "key", "before", "after"], rows)


def _mix(title: str, mixes: Sequence[MixChange]) -> str:
    rows = [
        (
            code(m.name),
            " → ".join(
                dict.fromkeys(code(x.expression or "not stated") for x in (m.licence_before, m.licence_after) if x)
            ),
            f"{m.rows_before:,}",
            f"{m.rows_after:,}",
            _change(m.rows_before, m.rows_after),
            _change(m.tokens_before, m.tokens_after),
        )
        for m in mixes
    ]
    return table(title, ["name", "licence", "#kept before", "#kept after", "#rows", "#tokens"], rows)


def _effects(account: Account) -> str:
    """Tell clusters, moves between splits and reviews in a line each."""
    moved = {f"{old} → {new}": n for (old, new), n in account.moves.items() if old != new}
    lines = (
        ("Near-duplicate clusters", account.clusters),
        ("Rows that moved to another split", moved),
        ("Decisions of people", account.reviews),
    )
    told = [f"- {what}: {_counted(counts)}" for what, counts in lines if any(counts.values())]
    return "\n".join(told) + "\n" if told else ""


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} {kind}" for kind, n in counts.items() if n)


def _leaks(account: Account) -> str:
    rows = [(code(", ".join(f"{place} ({split})" for _, place, split in leak.rows)),) for leak in account.leaks]
    return table("⚠️ Leaks: near-duplicates in train and in an evaluation split", ["rows"], rows)


def _drift(account: Account) -> str:
    drifted = sorted((d for d in account.drift if d.statistic >= NOTABLE_DRIFT), key=lambda d: -d.statistic)
    rows = [
        (code(d.source), d.measure, f"{d.statistic:.3f}", "" if d.p is None else f"{d.p:.2g}", d.test) for d in drifted
    ]
    return table(f"Drift of {NOTABLE_DRIFT:g} or more", ["source", "measure", "#distance", "#p", "test"], rows)


def _edits(edits: Sequence[EditedRow]) -> Iterator[tuple[str, str]]:
    """Show some edits of each stage word by word."""
    by_stage: dict[str, list[EditedRow]] = {}
    for row in edits:
        by_stage.setdefault(row.stage, []).append(row)
    for stage, rows in by_stage.items():
        title = f"Edits by {stage}, word by word: {min(SHOWN_EDITS, len(rows))} of {len(rows):,}"
        inside = "\n".join(_edit(row) for row in rows[:SHOWN_EDITS])
        yield f"edits by {stage}", _folded(title, inside)


def _edit(row: EditedRow) -> str:
    texts = "\n".join(f"{_text(text.where)}: {_pieces(text.pieces)}" for text in row.texts)
    return f"{code(row.place)} {code(', '.join(row.by))}\n<pre>{texts}</pre>\n"


def _pieces(pieces: Sequence[tuple[str, str]]) -> str:
    """Mark what went and what came, as HTML inside `<pre>`; what stayed is shortened."""
    written: list[str] = []
    for i, (kind, text) in enumerate(pieces):
        if kind == "same":
            head, tail = "" if i == 0 else text[:AROUND], "" if i == len(pieces) - 1 else text[-AROUND:]
            written.append(_text(text if len(text) <= 2 * AROUND else f"{head} … {tail}"))
        else:
            tag = "del" if kind == "removed" else "ins"
            written.append(f"<{tag}>{_text(cut(text, PIECE))}</{tag}>")
    return "".join(written)


def _text(text: str) -> str:
    """Write a text inside `<pre>`. No line of it is blank, as a blank line would end the block for some readers."""
    return "\n".join(line or " " for line in html.escape(clean(text)).replace("\r", "").split("\n"))


def _rows(account: Account) -> Iterator[tuple[str, str]]:
    """List rows of each word."""
    changes = account.diff.changes
    for word in WORDS:
        own = changes.filter(changes["word"] == word)
        rows = [
            (code(r["place"] or r["source"]), code(r["id"][:12]), *_told(word, r), code(", ".join(r["by"] or ())))
            for r in own.head(SHOWN_ROWS).iter_rows(named=True)
        ]
        if rows:
            title = (
                f"{word}: {len(rows)} of {own.height:,} rows" if len(rows) < own.height else f"{word}: {len(rows)} rows"
            )
            yield f"rows {word}", _folded(title, table("Rows", ["row", "id", "before", "after", "by"], rows))


def _told(word: str, row: Mapping[str, Any]) -> tuple[str, str]:
    """Say what a row was and is: for edits the texts that differ, as hashes say nothing to people."""
    if word == "edited":
        return "", code(", ".join(row["fields"] or ()))
    if word == "edited_upstream":
        return code(row["id"][:12]), code(f"{row['match'][:12]}, similarity {row['confidence']:.2f}")
    return code(row["before"] or ""), code(row["after"] or "")
