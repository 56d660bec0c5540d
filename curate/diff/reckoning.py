"""Reckoning: a diff worked out in full, part by part, each by the module that it is named after."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from curate.diff.account import Account, MixChange, Side, Verdict, makers
from curate.diff.changes import WORDS, Diff
from curate.diff.clusters import cluster_changes, leaks
from curate.diff.columns import column_changes, setting_changes
from curate.diff.drift import drifts
from curate.diff.fates import fates
from curate.diff.pairs import pairs
from curate.diff.redaction import masked_row
from curate.diff.reviews import review_changes
from curate.diff.texts import edited_rows, redacted_rows
from curate.licences import Licence, licence_of, of_mix
from curate.measures import Measured, Texts, measure
from curate.samples import SampleRow, draw, sample_rows
from schemas.dataset import Dataset
from schemas.manifest import Source


def reckon(diff: Diff, *, seed: int, samples: int, texts_limit: int) -> Account:
    """Work out an account (see `curate.diff.account.account_of`)."""
    before, after = diff.before, diff.after
    texts: Texts = {}
    measured = measure(before, texts), measure(after, texts)
    paired = pairs(before, after)
    found = fates(before, after, paired)
    edits, edits_total = edited_rows(diff, texts_limit)
    clusters, cluster_examples = cluster_changes(before, after)
    reviews, review_told = review_changes(before, after)
    return Account(
        diff=diff,
        before=_side(before, measured[0]),
        after=_side(after, measured[1]),
        verdict=verdict(diff),
        makers=makers(diff),
        transitions=found.transitions(),
        reasons=found.reasons(),
        settings=setting_changes(before.manifest, after.manifest),
        columns=column_changes(diff, paired),
        edits=edits,
        edits_total=edits_total,
        drift=drifts(*measured),
        clusters=clusters,
        cluster_examples=cluster_examples,
        sources=_mix(diff, measured, lambda source: source.name),
        licences=_mix(diff, measured, lambda source: licence_of(source).kind),
        moves=found.moves,
        leaks=leaks(after),
        reviews=reviews,
        review_changes=review_told,
        samples=_samples(diff, seed, samples),
        seed=seed,
    )


def _side(dataset: Dataset, measured: Measured) -> Side:
    m = dataset.manifest
    by_source = measured.tokens("source")
    return Side(
        name=m.name,
        seq=m.seq,
        id=m.id,
        semver=m.semver,
        created=m.created,
        message=m.message,
        rows=dataset.rows,
        kept=measured.rows.height,
        tokens=sum(tokens for _, tokens in by_source.values()),
        stages=m.counts,
        stale=tuple(dataset.stale()),
        licence=of_mix(licence_of(source) for source in m.sources if source.name in by_source),
    )


def verdict(diff: Diff) -> Verdict:
    """Say what a diff comes to, the weightiest first: what makes it major, then minor, then the rest."""
    a, b = diff.before.manifest, diff.after.manifest
    same = a.id == b.id
    return Verdict(
        same=same,
        bump=None if same else diff.bump,
        trainer_sees_it=diff.trainer_sees_it,
        counts=diff.counts,
        sentences=tuple(_sentences(diff)),
    )


def _sentences(diff: Diff) -> Iterator[str]:
    a, b = diff.before.manifest, diff.after.manifest
    if a.name != b.name:
        yield f"{a.name} and {b.name} are two datasets: rows are the same where their source and key are."
    if not diff.changes.height:
        yield "Nothing differs." if a.id == b.id else "No row differs: only settings, or what stages noted, do."
        return
    c = diff.changes
    kept = {"before": pl.col("kept_before"), "after": pl.col("kept_after")}
    both = kept["before"] & kept["after"]
    told = (
        ("removed", kept["before"], "that {was} kept {is} gone"),
        ("edited_upstream", kept["before"], "{was} edited by {its} publisher, and {has} a new id"),
        ("rejected", None, "that {was} kept {is} rejected now"),
        ("edited", both, "that {is} kept in both {has} another text"),
        ("resplit", None, "{has} moved to another split"),
        ("added", kept["after"], "{is} new and kept"),
        ("restored", None, "that {was} rejected {is} kept now"),
        (
            "edited_upstream",
            ~kept["before"] & kept["after"],
            "that {was} left out {was} edited by {its} publisher, and {is} kept now",
        ),
        ("rescored", None, "{has} another score or weight"),
        ("rejudged", None, "{is} rejected for another reason than before"),
    )
    for word, test, what in told:
        rows = c.filter(pl.col("word") == word)
        counted = rows if test is None else rows.filter(test)
        if counted.height:
            yield f"{_rows(counted.height)} {_agree(what, counted.height)}{_made_by(counted)}."
    idle = c.filter(
        ~pl.any_horizontal(kept.values()) & pl.col("word").is_in(["added", "removed", "edited_upstream", "edited"])
    )
    if idle.height:
        yield f"{_rows(idle['id'].n_unique())} that neither version keeps came, went or changed."


def _made_by(rows: pl.DataFrame) -> str:
    """Name the stages that made changes, where they are known and no matter of course, with their rows."""
    stages = Counter(s for s in rows["stage"].to_list() if s not in (None, "ingest"))
    names = [f"{_count(n)} by {stage}" if len(stages) > 1 else f"by {stage}" for stage, n in stages.most_common()]
    return f" ({', '.join(names)})" if names else ""


def _count(n: int) -> str:
    return f"{n:,}"


def _rows(n: int) -> str:
    return f"{n:,} row{'' if n == 1 else 's'}"


def _agree(what: str, n: int) -> str:
    plural = {"was": "were", "is": "are", "has": "have", "its": "their"}
    return what.format(**{one: one if n == 1 else many for one, many in plural.items()})


def _mix(diff: Diff, measured: tuple[Measured, Measured], name_of: Callable[[Source], str]) -> tuple[MixChange, ...]:
    """Add up kept rows and tokens by what sources have in common, the largest of the later version first."""
    sides: list[dict[str, tuple[int, int]]] = []
    licences: list[dict[str, Licence]] = []
    for dataset, one in zip((diff.before, diff.after), measured, strict=True):
        held = one.tokens("source")
        sums: dict[str, tuple[int, int]] = {}
        parts: defaultdict[str, list[Licence]] = defaultdict(list)
        for source in dataset.manifest.sources:
            name, (rows, tokens) = name_of(source), held.get(source.name, (0, 0))
            known = sums.get(name, (0, 0))
            sums[name] = known[0] + rows, known[1] + tokens
            parts[name].append(licence_of(source))
        sides.append(sums)
        licences.append({name: of_mix(some) for name, some in parts.items()})
    names = sorted({*sides[0], *sides[1]}, key=lambda n: (-sides[1].get(n, (0, 0))[0], n))
    return tuple(
        MixChange(
            name,
            licences[0].get(name),
            licences[1].get(name),
            sides[0].get(name, (0, 0))[0],
            sides[1].get(name, (0, 0))[0],
            sides[0].get(name, (0, 0))[1],
            sides[1].get(name, (0, 0))[1],
        )
        for name in names
    )


def _samples(diff: Diff, seed: int, rows: int) -> Mapping[str, tuple[SampleRow, ...]]:
    """Draw rows of each word; those that went are read from the earlier version, the others from the later.

    What pii redacted in the other version is masked.
    """
    drawn = {
        word: draw(own["id"], seed, rows)
        for word in WORDS
        if (own := diff.changes.filter(pl.col("word") == word)).height
    }
    gone = ("removed", "edited_upstream")
    chosen = [[row for word, ids in drawn.items() if (word in gone) == past for row in ids] for past in (True, False)]
    sides = [
        sample_rows(dataset, ids, _masking(diff, ids, past=past))
        for dataset, ids, past in zip((diff.before, diff.after), chosen, (True, False), strict=True)
    ]
    return {word: tuple(sides[word not in gone][row] for row in ids) for word, ids in drawn.items()}


def _masking(diff: Diff, ids: Sequence[str], *, past: bool) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """Give what masks rows of the earlier version (`past`) or the later one where the other redacted them."""
    others = redacted_rows(diff, ids, after=past)
    return lambda row: masked_row(row, others[row["id"]]) if row["id"] in others else row
