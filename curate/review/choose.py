"""Choose: which rows people should see.

A strategy gives the rows that it has in mind, in the order of their worth. `draw` takes of them what was asked for:
by the sources' shares, every source at least once, groups of rows whole. What is drawn by chance is drawn by a hash of
the seed and the row's id, so that added rows reshuffle nothing.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from curate.review.candidates import Candidates
from schemas.dataset import Dataset
from schemas.errors import ConfigError
from schemas.reasons import REASONS
from schemas.review_config import PushConfig

SCORERS = ("judge", "ifd", "quality", "learned")
"""Columns of which more is better, each by another scorer. Perplexity and diversity do not say how good a row is."""

MOST_OF_CLUSTER = 10
"""Rows of a cluster that are shown: the one that stays and nine others. More of the same teach nobody anything."""

FOUND = pl.Schema({"id": pl.String, "source": pl.String, "group": pl.String, "why": pl.String})
"""What a strategy gives: rows in the order of their worth. Rows of a `group` stand and go together."""


@dataclass(frozen=True)
class Choice:
    """Rows to be seen, in the order in which reviewers get them, so that each beginning of it is a fair sample.

    `rows` has the columns of FOUND; `found`: how many rows the strategy had in mind, by source.
    `standing`: see Candidates. `reasons`: rows of the version that each reason was given, most first.
    """

    rows: pl.DataFrame
    found: dict[str, int]
    standing: pl.DataFrame
    reasons: dict[str, int]
    notes: tuple[str, ...] = ()


def choose(dataset: Dataset, config: PushConfig) -> Choice:
    """Choose at most `config.n` rows of a version.

    Raises ConfigError for a strategy or a source that there is not, one that needs a stage that has not run, and one
    that finds nothing.
    """
    sources = sorted(source.name for source in dataset.manifest.sources)
    if config.source not in (None, *sources):
        raise ConfigError(f"review, --source {config.source}", "no such source", f"one of {', '.join(sources)}")
    rows = Candidates(dataset, config)
    found, notes = _strategy(config.select)(rows)
    if not found.height:
        decided = rows.all.height - rows.open.height
        more = f"; {decided:,} rows are decided already" if decided else ""
        remedy = "--again asks about decided rows once more" if decided else "see sft show for what the version holds"
        raise ConfigError(rows.where, f"no row to show{more}", "at least one", remedy)
    drawn = draw(found, config.n)
    if not drawn.height:  # what is found has at least one row, and n is at least 1: every group is too large
        least = found.group_by("group").len()["len"].min()
        misfit = f"no group of rows fits into {config.n:,}"
        raise ConfigError(rows.where, misfit, "room for a whole group", f"--n {least} shows the smallest")
    if drawn.height < min(config.n, found.height):
        notes = [*notes, f"groups stay whole: {drawn.height:,} rows, as no further group fits into {config.n:,}"]
    elif drawn.height < config.n:
        notes = [*notes, f"rows that were found: {drawn.height:,}, where {config.n:,} were asked for"]
    by_source = dict(sorted(found["source"].value_counts().iter_rows()))
    return Choice(drawn, by_source, rows.standing(drawn["id"]), rows.reasons, tuple(notes))


def draw(found: pl.DataFrame, n: int) -> pl.DataFrame:
    """Take at most n rows from the front of each source, by its share of all rows; groups are taken whole.

    Every source is taken from at least once where n allows; then always the one that is furthest behind its share,
    which gives what the method of largest remainders gives; ties go by name. A group counts for the source of its first
    row. The rows come in an order of which every beginning is divided alike. Reads and gives: the columns of FOUND.
    """
    unit = pl.coalesce("group", "id")
    units = found.group_by(unit.alias("unit"), maintain_order=True).agg(pl.col("source").first(), size=pl.len())
    waiting = {source: deque[tuple[str, int]]() for source in sorted(units["source"].unique())}
    for name, source, size in units.iter_rows():
        waiting[source].append((name, size))
    behind = {s: min(n, found.height) * sum(size for _, size in w) / found.height for s, w in waiting.items()}
    taken: dict[str, list[str]] = {source: [] for source in waiting}
    room = n
    while room and (left := [source for source in waiting if waiting[source]]):
        source = max(left, key=lambda s: (not taken[s], behind[s]))
        name, size = waiting[source].popleft()
        if size <= room:
            taken[source].append(name)
            behind[source] -= size
            room -= size
    order = [((i + 0.5) / len(names), source, name) for source, names in taken.items() for i, name in enumerate(names)]
    chosen = pl.DataFrame({"unit": [name for *_, name in sorted(order)]}, schema={"unit": pl.String})
    return chosen.join(found.with_columns(unit=unit), on="unit", how="left", maintain_order="left_right").drop("unit")


Strategy = Callable[[Candidates], tuple[pl.DataFrame, Sequence[str]]]
"""Gives rows as FOUND says, and sentences for the person who asked."""


def _strategy(select: str) -> Strategy:
    if select in STRATEGIES:
        return STRATEGIES[select]
    if ":" in select:
        return lambda rows: _by_rule(rows, select)
    raise ConfigError(f"review, --select {select}", "no such choice", f"{', '.join(STRATEGIES)} or rule:NAME")


def at_random(rows: Candidates) -> tuple[pl.DataFrame, Sequence[str]]:
    """Draw kept rows by chance: what they show is true of the whole."""
    return _told(rows.kept.sort("place"), pl.lit("drawn by chance from the kept rows")), ()


def uncertain(rows: Candidates) -> tuple[pl.DataFrame, Sequence[str]]:
    """Take the rows whose review teaches most, of each source its share; see curate.review.uncertain."""
    from curate.review.uncertain import most_uncertain  # noqa: PLC0415 # scikit-learn comes with it

    new = rows.kept if rows.config.again else rows.kept.join(rows.answered, on=["id", "content_hash"], how="anti")
    if not new.height:
        return _told(new, pl.lit("")), ()
    shares = draw(_told(new, pl.lit("")), rows.config.n)["source"].value_counts()
    parts: list[pl.DataFrame] = []
    how: list[str] = []
    for source, n in sorted(shares.iter_rows()):
        own = new.filter(pl.col("source") == source)
        chosen = most_uncertain(own, n, rows.config.seed, rows.texts)
        how.append(chosen.how)
        order = pl.DataFrame({"id": list(chosen.ids)}, schema={"id": pl.String})
        parts.append(order.join(own, on="id", how="left", maintain_order="left"))
    found = pl.concat(parts)
    why = pl.lit("drawn by chance, as no score is learnt from reviews yet")
    if "learned" in found.columns:
        by_score = pl.format("its review teaches much: the score learnt so far gives it {}", pl.col("learned").round(2))
        why = pl.coalesce(by_score, why)
    return _told(found, why), list(dict.fromkeys(how))


def conflicts(rows: Candidates) -> tuple[pl.DataFrame, Sequence[str]]:
    """Take rows that give other answers to the same prompt, all of a group together; groups by chance."""
    rows.needs("dedup")
    members = rows.kept.filter(pl.col("conflict_id").is_not_null())
    members = members.filter(pl.len().over("conflict_id") > 1)
    order = [pl.col("place").min().over("conflict_id"), "conflict_id", "id"]
    why = pl.format("{} rows have this prompt, and their answers differ", pl.len().over("conflict_id"))
    return _told(members.sort(order), why, group="conflict_id"), ()


def cluster(rows: Candidates) -> tuple[pl.DataFrame, Sequence[str]]:
    """Take clusters of near-duplicates, the largest first: the row that stays and those that went, together."""
    rows.needs("dedup")
    members = rows.open.filter(pl.col("cluster_id").is_not_null())
    members = members.with_columns(size=pl.len().over("cluster_id")).filter(pl.col("size") > 1)
    stays = pl.col("id") == pl.col("cluster_id")
    order = [pl.col("size"), pl.col("cluster_id"), stays, pl.col("place")]
    members = members.sort(order, descending=[True, False, True, False])
    shown = members.filter(pl.int_range(pl.len()).over("cluster_id") < MOST_OF_CLUSTER)
    notes = [f"of clusters with more rows, the one that stays and {MOST_OF_CLUSTER - 1} others are shown"]
    why = (
        pl.when(stays)
        .then(pl.format("it is the one that stays of {} rows that are nearly the same", "size"))
        .otherwise(pl.format("it is one of {} rows that are nearly the same", "size"))
    )
    return _told(shown, why, group="cluster_id"), notes if shown.height < members.height else ()


def disagreement(rows: Candidates) -> tuple[pl.DataFrame, Sequence[str]]:
    """Take rows that reviewers disagreed about, then those that scorers place furthest apart among the kept rows."""
    split = rows.answered.group_by("id", "content_hash").agg(pl.col("verdict").unique().sort())
    split = split.filter(pl.col("verdict").list.len() > 1)
    people = rows.open.join(split, on=["id", "content_hash"]).sort("place")
    by_people = _told(people, pl.format("reviewers disagreed: {}", pl.col("verdict").list.join(", ")))
    kept = rows.kept
    scorers = [name for name in SCORERS if name in kept.columns and kept[name].null_count() < kept.height]
    if len(scorers) < 2:  # one scorer agrees with itself
        if by_people.height:
            return by_people, ()
        raise ConfigError(
            rows.where,
            f"{'only ' + scorers[0] if scorers else 'nothing'} scores the rows, and no reviewers disagreed",
            "two scorers that can disagree",
            f"run sft curate score {rows.name} with --judge, --difficulty or --from-reviews",
        )
    ranks = [(pl.col(s).rank("average") / pl.col(s).count()).alias(f"rank_{s}") for s in scorers]
    places = [f"rank_{s}" for s in scorers]
    ranked = kept.filter(pl.sum_horizontal(pl.col(s).is_not_null() for s in scorers) > 1).with_columns(ranks)
    apart = pl.max_horizontal(places) - pl.min_horizontal(places)
    ranked = ranked.sort(apart, "place", descending=[True, False])
    shares = [
        pl.format(f"{s} ranks it above {{}}%", (pl.col(f"rank_{s}") * 100).floor().cast(pl.Int64)) for s in scorers
    ]
    why = pl.concat_str(shares, separator=", ", ignore_nulls=True) + pl.lit(" of the kept rows")
    by_scorers = _told(ranked, why).join(by_people, on="id", how="anti", maintain_order="left")
    return pl.concat([by_people, by_scorers]), ()


def _by_rule(rows: Candidates, select: str) -> tuple[pl.DataFrame, Sequence[str]]:
    """Draw rows that a rule rejected, flagged or mended, by chance: the share that it was right about is its precision.

    `select`: a reason in full, or `rule:` and its last part.
    """
    marked = rows.marked
    there = set(marked["reason"].unique())
    known = there | set(REASONS)
    last = select.partition(":")[2]
    wanted = [r for r in (select, last) if r in known] or [r for r in known if r.partition(":")[2] == last]
    wanted = [r for r in wanted if not r.startswith("ingest:")]
    here = ", ".join(f"{reason} {n:,}" for reason, n in rows.reasons.items()) or "nothing"
    if not select.startswith("rule:") and select not in wanted:
        wanted = []
    if not wanted:
        raise ConfigError(rows.where, "no reason goes by that name", f"what the rows of this version have: {here}")
    if not there.intersection(wanted):
        raise ConfigError(rows.where, f"{' and '.join(sorted(wanted))} found no row here", f"one that did: {here}")
    marks = marked.filter(pl.col("reason").is_in(wanted)).group_by("id").agg(pl.col("reason").unique().sort().first())
    found = rows.open.join(marks, on="id").sort("place")
    why = pl.format("{} found it: was that right?", "reason")
    return _told(found, why), ()


def borderline(rows: Candidates) -> tuple[pl.DataFrame, Sequence[str]]:
    """Take rows for which the verdict could as well be the other one, each kind of doubt in turn.

    The kinds: scores near the cut of select (or the median, where nothing was cut); flagged rows, the best scored
    first, each flag in turn; what rules rejected, each rule in turn; duplicates and contaminated rows near their
    threshold.
    """
    kinds = [_near_cut(rows), _flagged(rows), _by_rules(rows), _near_threshold(rows)]
    turn = pl.int_range(pl.len()).over("source")
    ordered = [kind.with_columns(turn=turn, kind=pl.lit(i)) for i, kind in enumerate(kinds) if kind.height]
    if not ordered:
        if not any(rows.ran(stage) for stage in ("rules", "signals", "dedup")):
            rows.needs("signals")
        return FOUND.to_frame(), ()
    found = pl.concat(ordered).sort("turn", "kind", maintain_order=True).unique("id", keep="first", maintain_order=True)
    return found.select(list(FOUND)), ()


def _near_cut(rows: Candidates) -> pl.DataFrame:
    entry = rows.dataset.manifest.stage("select")
    by = (entry.config.get("by") if entry else None) or ("score" if rows.ran("score") else "quality")
    column = by.removeprefix("-")
    if column not in rows.open.columns or (column == "quality" and not rows.ran("signals")):
        return FOUND.to_frame()
    cut_out = pl.col("reject_reason").is_in(["select:not_in_top", "select:over_budget"])
    judged = rows.open.filter((pl.col("kept") | cut_out) & pl.col(column).is_not_null())
    if not judged.height:
        return FOUND.to_frame()
    kept = judged.filter("kept")[column]
    was_cut = entry is not None and bool(entry.config.get("by")) and 0 < kept.len() < judged.height
    limit = kept.median() if not was_cut else kept.max() if by.startswith("-") else kept.min()
    values = judged[column].to_numpy()
    below, up_to = float(np.mean(values < limit)), float(np.mean(values <= limit))
    level = (below + up_to) / 2 if not was_cut else up_to if by.startswith("-") else below
    share = (pl.col(column).rank("average") - 0.5) / pl.len()
    what = "where select cuts" if was_cut else "in the middle of all, as select cuts nothing"
    why = pl.format(f"its {column}, {{}}, is near {limit:.3g}, {what}", pl.col(column).round(3))
    return _told(judged.sort((share - level).abs(), "place"), why)


def _flagged(rows: Candidates) -> pl.DataFrame:
    flagged = rows.kept.filter(pl.col("flags").list.len() > 0).with_columns(flag=pl.col("flags").list.first())
    best = flagged.sort("quality", "place", descending=[True, False], nulls_last=True)
    order = pl.int_range(pl.len()).over("source", "flag")
    why = pl.format("{} found it, and it was kept", pl.col("flags").list.join(", "))
    return _told(best.sort(order, maintain_order=True), why)


def _by_rules(rows: Candidates) -> pl.DataFrame:
    out = rows.open.filter(pl.col("reject_reason").str.contains(r"^(rule|custom|pii):"))
    order = pl.int_range(pl.len()).over("source", "reject_reason")
    why = pl.format("{} left it out: nobody sees such rows otherwise", "reject_reason")
    return _told(out.sort("place").sort(order, maintain_order=True), why)


def _near_threshold(rows: Candidates) -> pl.DataFrame:
    thresholds = {"duplicate:near": ("dedup", "threshold"), "contaminated:eval": ("decontaminate", "coverage")}
    above = pl.lit(None, pl.Float64)
    coverage = pl.col("matches").list.eval(pl.element().struct.field("coverage")).list.max()
    value = pl.coalesce(pl.col("jaccard"), coverage)
    for reason, (stage, setting) in thresholds.items():
        if entry := rows.dataset.manifest.stage(stage):
            limit = float(entry.config.get(setting) or 0)
            above = pl.when(pl.col("reject_reason") == reason).then(value.cast(pl.Float64) - limit).otherwise(above)
    out = rows.open.with_columns(above=above, value=value).filter(pl.col("above").is_not_null()).sort("above", "place")
    return _told(out, pl.format("{} with {}, near the threshold", "reject_reason", pl.col("value").round(3)))


def _told(rows: pl.DataFrame, why: pl.Expr, group: str | None = None) -> pl.DataFrame:
    named = pl.col(group) if group else pl.lit(None, pl.String)
    return rows.select("id", "source", named.cast(pl.String).alias("group"), why.cast(pl.String).alias("why"))


STRATEGIES: dict[str, Strategy] = {
    "uncertain": uncertain,
    "borderline": borderline,
    "random": at_random,
    "conflicts": conflicts,
    "disagreement": disagreement,
    "cluster": cluster,
}
"""The choices that have a name of their own; besides them there is rule:NAME."""
