"""What `sft curate review pull` and `status` show: decisions, what is open, agreement, progress."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from cli.render import number, out, say, table

if TYPE_CHECKING:
    from curate.review.progress import ReviewProgress
    from curate.review.pull import Pulled
    from curate.review.tally import Row

SHOWN = 10
"""Rows of a list that are printed; `--json` has all of them."""
FEW = 20
"""Verdicts below which it is chance how many of them are the suggested one."""
BAR = 20
"""Characters of a progress bar."""

_KINDS = {
    "keep": "#kept",
    "fix": "#corrected",
    "reject": "#rejected",
    "unresolved": "#unresolved",
    "waiting": "#waiting for more",
    "stale": "#edited since",
}


def show_pulled(pulled: "Pulled", rubber_stamp: float) -> None:
    """Print what a pull brought, and what the reviews of the version now come to."""
    from curate.review.stage import told_restored

    fetched, tally = pulled.fetched, pulled.tally
    submitted = sum(r.status == "submitted" for r in fetched.responses)
    discarded = len(fetched.responses) - submitted
    out(
        f"{number(len(fetched.texts))} records: {number(submitted)} responses submitted; "
        f"{number(discarded)} discarded and {number(len(fetched.drafts))} drafts, which do not count"
    )
    if tally.by_source:
        several = len(tally.by_source) > 1
        rows = [(name, *_numbers(counts)) for name, counts in tally.by_source.items()]
        rows += [("all", *_numbers(tally.counts))] if several else []
        table("Reviewed rows by decision", ["source", *_KINDS.values()], rows)
    _list("Unresolved: they stay for review", tally.open)
    _list("Edited since they were reviewed: not applied; push them again", tally.stale)
    _list("Corrections that were not taken", tally.unused)
    for line in told_restored(tally.restored):
        say(line)
    if tally.missing:
        say(f"reviewed rows that are not in this version: {number(len(tally.missing))} ({_some(tally.missing)})")
    if fetched.foreign:
        say(f"records that are no rows of ours, left alone: {number(len(fetched.foreign))} ({_some(fetched.foreign)})")
    if fetched.unknown:
        named = [f"{u.question} {u.value!r} by {u.reviewer} on {u.id[:12]}" for u in fetched.unknown]
        say(f"answers that the form does not know, and that count for nothing: {_some(named)}")
    if pulled.withdrawn:
        say(f"responses that were here before and are withdrawn on the server: {number(pulled.withdrawn)}")
    show_agreement(tally.agreement, rubber_stamp)
    if pulled.unhidden:
        say("from now on this dataset holds pseudonyms; its earlier versions still hold the names of reviewers")


def show_agreement(found: pl.DataFrame, rubber_stamp: float | None = None) -> None:
    """Print Krippendorff's alpha by question and pair, and how often the verdict is the suggested one."""
    alphas = found.filter(pl.col("measure") == "alpha")
    if alphas.height and not alphas["texts"].sum():
        out(f"no agreement yet: {alphas['undefined'][0]}")
    elif alphas.height:
        questions = alphas["question"].unique(maintain_order=True).to_list()
        cells = {(tuple(row["who"]), row["question"]): row for row in alphas.iter_rows(named=True)}
        people = list(dict.fromkeys(who for who, _ in cells))
        table(
            "Agreement of reviewers (Krippendorff's alpha: 1 always, 0 as by chance)",
            ["reviewers", *(f"#{question}" for question in questions), "#texts in common"],
            [
                (
                    " and ".join(who) or "all",
                    *(_value(cells.get((who, question))) for question in questions),
                    number(max(cells[who, question]["texts"] for question in questions if (who, question) in cells)),
                )
                for who in people
            ],
        )
        for row in alphas.filter((pl.col("who").list.len() == 0) & pl.col("value").is_null()).iter_rows(named=True):
            out(f"no agreement on {row['question']}: {row['undefined']}")
    shares = found.filter(pl.col("measure").is_in(["suggestion", "suggestion by"]) & pl.col("value").is_not_null())
    if not shares.height:
        return
    named = {"suggestion": "", "suggestion by": "suggested by "}
    lines = [
        (
            named[row["measure"]] + (", ".join(row["who"]) or "all"),
            f"{row['value']:.0%}",
            number(round(row["texts"] * (1 - row["value"]))),
            number(row["texts"]),
        )
        for row in shares.iter_rows(named=True)
    ]
    table("Verdicts that are the suggested one", ["who", "#same", "#changed", "#verdicts"], lines)
    for row in shares.filter(pl.col("measure") == "suggestion").iter_rows(named=True):
        if rubber_stamp is not None and row["value"] >= rubber_stamp and row["texts"] >= FEW:
            who = ", ".join(row["who"]) or "reviewers together"
            say(
                f"warning: {row['value']:.0%} of the verdicts by {who} are the suggested ones. Do they look? Push some "
                "rows with --blind to another --dataset, and compare"
            )


def show_progress(name: str, url: str, found: "ReviewProgress") -> None:
    """Print how far a review is: a bar for each reviewer, agreement so far, time per record, what is left."""
    each = f"{found.min_submitted} responses each" if found.min_submitted > 1 else "one response each"
    out(f"{name}: {number(found.complete)} of {number(found.records)} records complete ({each})", style="bold")
    out(url)
    rows = [
        (
            person.name,
            _bar(person.submitted + person.discarded, person.left),
            number(person.submitted),
            number(person.discarded),
            number(person.draft),
            number(person.left),
            _time(person.seconds_each),
            _time(person.seconds_left),
        )
        for person in found.reviewers
    ]
    columns = ["reviewer", "", "#submitted", "#discarded", "#drafts", "#left", "#per record", "#time left"]
    if rows:
        table("Reviewers", columns, rows)
    else:
        out("nobody has begun")
    if found.missing:
        pace = f", about {_time(found.seconds_left)} of work" if found.seconds_left is not None else ""
        out(f"left: {number(found.missing)} responses{pace}")
    if any(person.submitted for person in found.reviewers):
        show_agreement(found.agreement)


def _numbers(counts: dict[str, int]) -> list[str]:
    return [number(counts[kind]) if counts[kind] else "" for kind in _KINDS]


def _list(title: str, rows: "Sequence[Row]") -> None:
    if rows:
        more = f" (the first {SHOWN} of {number(len(rows))})" if len(rows) > SHOWN else ""
        cells = [(r.id[:12], r.source, f"{r.source_file}:{r.source_row}", r.why) for r in rows[:SHOWN]]
        table(title + more, ["id", "source", "place", "why"], cells)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "")


def _value(row: dict[str, Any] | None) -> str:
    return "-" if row is None or row["value"] is None else f"{row['value']:.3f}"


def _bar(done: int, left: int) -> str:
    full = round(BAR * done / (done + left)) if done + left else 0
    return "█" * full + "░" * (BAR - full)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
