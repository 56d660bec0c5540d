"""`sft diff`: what changed between two versions, what made it, what it comes to, and whether that may pass."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import DEFAULT_STORE, JsonOption, StoreOption
from cli.page import check_page, write_page
from cli.render import number, out, print_json, progress, say, table
from schemas.errors import CheckFailedError, ConfigError

if TYPE_CHECKING:
    from curate.diff.account import Account, EditedRow, MixChange, TextChange
    from curate.diff.changes import Diff
    from curate.diff.gate import Outcome

app = typer.Typer(rich_markup_mode=None)

SHOWN_ROWS = 20
"""Rows of each word, and rows that broke a gate, that are printed; `--json` and `--all` have all of them."""

AROUND = 20
"""Characters of unchanged text that are printed on each side of a change."""
LINE = 200
"""Characters of an edit that are printed."""

NOTABLE_DRIFT = 0.05
"""Drift from which a measure is named: one row in twenty stands elsewhere in its distribution."""


@app.command(epilog="Example: sft diff mix@1 mix")
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="The earlier version: NAME, NAME@7, NAME@tag or a path.")],
    after: Annotated[str, typer.Argument(metavar="B", help="The later version.")],
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the report as one page for a browser.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a summary that fits a comment of a pull request.")
    ] = False,
    attribute: Annotated[
        bool,
        typer.Option("--attribute", help="Find the configuration key behind each change, by running stages again."),
    ] = False,
    fail_on: Annotated[
        list[str] | None,
        typer.Option("--fail-on", metavar="RULE", help="Exit with 1 where this holds, such as 'removed(dolly) > 2%'."),
    ] = None,
    gates: Annotated[
        Path | None, typer.Option("--gates", metavar="FILE", help="TOML file of named rules, in a table [gates].")
    ] = None,
    show_all: Annotated[
        bool, typer.Option("--all", help=f"Print every row, not the first {SHOWN_ROWS} of each kind.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the rows drawn as samples.")] = 0,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
) -> None:
    """Say what changed between two versions, what made each change, and what it does to the data.

    A rule that holds (--fail-on, --gates) ends it with exit code 1 and names the rows. docs/diff.md has the words.
    """
    from curate.diff.account import account_of
    from curate.diff.gate import parse_gate, read_gates

    if json and markdown:
        raise ConfigError("--json and --markdown", "both print on stdout", "one of them")
    if html is not None:
        check_page(html)
    rules = [*(parse_gate(rule) for rule in fail_on or ()), *(read_gates(gates) if gates else ())]
    found = _compared(before, after, store, attribute=attribute)
    account = account_of(found, seed=seed)
    outcomes = [rule.judge(account) for rule in rules]
    if html is not None:
        from curate.report.page import diff_page

        write_page(html, diff_page(account))
    if json:
        print_json({**account.to_json(), "gates": [outcome.to_json() for outcome in outcomes]})
    elif markdown:
        from curate.report.markdown import diff_markdown

        sys.stdout.write(diff_markdown(account, outcomes))
    else:
        _print(account, show_all=show_all)
        _print_gates(outcomes, show_all=show_all)
    for note in found.notes:
        say(note)
    if broken := [outcome for outcome in outcomes if outcome.broken]:
        told = "; ".join(_broken(outcome) for outcome in broken)
        raise CheckFailedError(f"{len(broken)} of {len(outcomes)} gates", f"broken by this diff: {told}")


def _compared(before: str, after: str, store: Path, *, attribute: bool) -> "Diff":
    """Compare two versions and say of every change what made it."""
    from curate.diff.attribution import attribute as attributed
    from curate.diff.changes import compare
    from curate.diff.upstream import pair_upstream
    from schemas.dataset import open_dataset

    found = attributed(pair_upstream(compare(open_dataset(before, store), open_dataset(after, store))))
    if not attribute:
        return found
    from curate.diff.replay import replay
    from curate.store import Store

    with progress() as started:
        return replay(Store(found.after.root), found, started)


def _broken(outcome: "Outcome") -> str:
    name = f"{outcome.gate.name}: " if outcome.gate.name else ""
    return f"{name}{outcome.gate.text} ({', '.join(j.value for j in outcome.tests if j.holds)})"


def _print(account: "Account", *, show_all: bool) -> None:
    a, b, verdict = account.before, account.after, account.verdict
    bump = "the same version" if verdict.same else f"a {verdict.bump} change"
    sees = f"; a trainer {'sees' if verdict.trainer_sees_it else 'does not see'} it" if not verdict.same else ""
    out(f"{a.name}@{a.seq} ({a.semver}) -> {b.name}@{b.seq} ({b.semver}): {bump}{sees}", style="bold")
    for sentence in verdict.sentences:
        out(f"  {sentence}")
    if verdict.same:
        return
    names = [f"{s.name}@{s.seq}" for s in (a, b)]
    sizes = [
        (what, number(old), number(new), _change(old, new))
        for what, old, new in (
            ("rows", a.rows, b.rows),
            ("kept rows", a.kept, b.kept),
            ("tokens of kept rows", a.tokens, b.tokens),
        )
    ]
    _table("Size", ["", *(f"#{name}" for name in names), "#change"], sizes)
    if account.makers:
        told = [(m.word, m.stage, ", ".join(m.by), m.cause, ", ".join(m.keys), number(m.rows)) for m in account.makers]
        _table("What made the changes", ["what", "stage", "by", "cause", "key", "#rows"], told)
    if reasons := [r for r in account.reasons if r.came or r.left]:
        cells = [
            (r.stage, r.reason, *map(number, (r.before, r.after)), _signed(r.came), _signed(-r.left)) for r in reasons
        ]
        _table("Rows left out, by reason", ["stage", "reason", "#before", "#after", "#came", "#left"], cells)
    if account.settings:
        told = [(s.stage, *s.told) for s in account.settings]
        _table("Settings that differ", ["stage", "key", "before", "after"], told)
    if account.columns:
        told = [(c.column, c.stage, number(c.rows), _by_source(c.by_source)) for c in account.columns]
        _table("Columns that differ in rows of both", ["column", "stage", "#rows", "by source"], told)
    _mix("Sources", account.sources)
    _mix("Classes of licence", account.licences)
    _effects(account)
    _rows(account, show_all=show_all)


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table. What it quotes (texts, settings, names of people) cannot steer the terminal."""
    from curate.review.markdown import clean

    table(clean(title), columns, ([clean(cell) for cell in row] for row in rows))


def _effects(account: "Account") -> None:
    """Print what the changes do to distributions, clusters, splits and reviews."""
    drifted = sorted((d for d in account.drift if d.statistic >= NOTABLE_DRIFT), key=lambda d: -d.statistic)
    if drifted:
        told = [
            (d.source, d.measure, f"{d.statistic:.3f}", "" if d.p is None else f"{d.p:.2g}", d.test) for d in drifted
        ]
        _table(f"Drift of {NOTABLE_DRIFT:g} or more", ["source", "measure", "#distance", "#p", "test"], told)
    if any(account.clusters.values()):
        out("Near-duplicate clusters: " + _counts(account.clusters))
    moved = {f"{old} to {new}": n for (old, new), n in account.moves.items() if old != new}
    if moved:
        out("Rows that moved: " + ", ".join(f"{number(n)} from {names}" for names, n in moved.items()))
    if account.leaks:
        told = [
            (leak.cluster[:12], ", ".join(f"{place} ({split})" for _, place, split in leak.rows))
            for leak in account.leaks
        ]
        _table("Leaks: near-duplicates in train and in an evaluation split", ["cluster", "rows"], told)
    elif {count.stage for count in account.after.stages} >= {"dedup", "split"}:
        out("Leaks between splits: none")
    if any(account.reviews.values()):
        out("Decisions of people: " + _counts(account.reviews))
    if account.after.stale:
        say(f"stale in {account.after.name}@{account.after.seq}: {', '.join(account.after.stale)}")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number(n)} {kind}" for kind, n in counts.items() if n)


def _signed(n: int) -> str:
    return f"{n:+,}" if n else ""


def _change(old: int, new: int) -> str:
    if old == new:
        return "none"
    percent = 100 * (new - old) / old if old else 0.0
    part = f"{percent:+,.0f}%" if abs(percent) >= 10 else f"{percent:+.2g}%"  # two digits
    return f"{new - old:+,}" + (f" ({part})" if old else "")


def _by_source(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{source} {number(n)}" for source, n in counts.items())


def _mix(title: str, mixes: Sequence["MixChange"]) -> None:
    """Print kept rows and tokens by source or by class of licence."""
    rows = [
        (
            mix.name,
            _licence(mix),
            number(mix.rows_before),
            number(mix.rows_after),
            _change(mix.rows_before, mix.rows_after),
            _change(mix.tokens_before, mix.tokens_after),
        )
        for mix in mixes
    ]
    _table(title, ["name", "licence", "#kept before", "#kept after", "#rows", "#tokens"], rows)


def _licence(mix: "MixChange") -> str:
    old, new = (
        None if one is None else (one.expression or "not stated") for one in (mix.licence_before, mix.licence_after)
    )
    return f"{old} -> {new}" if old and new and old != new else str(new or old)


def _rows(account: "Account", *, show_all: bool) -> None:
    """Print the rows of each word; of edits, the words that differ."""
    from curate.diff.changes import WORDS

    texts = {row.id: row for row in account.edits}
    changes = account.diff.changes
    for word in WORDS:
        rows = changes.filter(changes["word"] == word)
        if not rows.height:
            continue
        shown = rows if show_all else rows.head(SHOWN_ROWS)
        more = f", the first {shown.height} of {number(rows.height)}" if shown.height < rows.height else ""
        cells = [(r["id"][:12], r["place"] or r["source"], *_row(word, r, texts)) for r in shown.iter_rows(named=True)]
        columns = ["by", "what differs"] if word in ("edited", "edited_upstream") else ["before", "after", "detail"]
        _table(f"{word}{more}", ["id", "place", *columns], cells)


def _row(word: str, row: Mapping[str, Any], texts: Mapping[str, "EditedRow"]) -> tuple[str, ...]:
    before, after = row["before"] or "", row["after"] or ""
    if word in ("edited", "edited_upstream"):
        edit = texts.get(row["id"])
        told = _edit(edit.texts) if edit else ", ".join(row["fields"] or ())
        by = ", ".join(row["by"] or ())
        return (
            (by, told) if word == "edited" else (f"now {row['match'][:12]}, similarity {row['confidence']:.2f}", told)
        )
    if word in ("added", "removed", "rejected", "restored"):
        before = before or ("" if word == "added" else "kept")
        after = after or ("" if word == "removed" else "kept")
    if word == "rescored":
        return before, after, ", ".join(row["fields"] or ())
    return before, after, row["detail"] or ""


def _edit(texts: Iterable["TextChange"]) -> str:
    """Write what differs in one line: [-what went-]{+what came+}, with a few words around it."""
    marks = {"removed": ("[-", "-]"), "added": ("{+", "+}"), "same": ("", "")}
    told: list[str] = []
    for text in texts:
        line = f"{text.where}: "
        for i, (kind, piece) in enumerate(text.pieces):
            begin, end = marks[kind]
            line += begin + repr(_near(piece, i, len(text.pieces)) if kind == "same" else piece)[1:-1] + end
        told.append(line if len(line) <= LINE else line[: LINE - 1] + "…")
    return "\n".join(told)


def _near(same: str, i: int, pieces: int) -> str:
    """Shorten what did not change to what stands next to a change."""
    if len(same) <= 2 * AROUND:
        return same
    return ("" if i == 0 else same[:AROUND]) + "…" + ("" if i == pieces - 1 else same[-AROUND:])


def _print_gates(outcomes: Sequence["Outcome"], *, show_all: bool) -> None:
    """Print what became of each gate, and the rows of those that are broken."""
    if outcomes:
        told = [
            (
                "broken" if outcome.broken else "kept",
                outcome.gate.name or "",
                outcome.gate.text,
                ", ".join(f"{j.test.measure} {j.value}" for j in outcome.tests),
                number(len(outcome.rows)) if outcome.broken else "",
            )
            for outcome in outcomes
        ]
        _table("Gates", ["", "name", "fails on", "found", "#rows"], told)
    for outcome in outcomes:
        if outcome.broken and outcome.rows:
            shown = outcome.rows if show_all else outcome.rows[:SHOWN_ROWS]
            of = len(outcome.rows)
            more = f", the first {len(shown)} of {number(of)}" if len(shown) < of else ""
            cells = [
                (r["id"][:12], r["place"] or "", r["word"], r.get("stage") or "", ", ".join(r.get("by") or ()))
                for r in shown
            ]
            _table(f"Rows that broke {outcome.gate.text}{more}", ["id", "place", "what", "stage", "by"], cells)
