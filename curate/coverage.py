"""Coverage: what kinds of task, languages, lengths and conversations the kept rows of a version hold, and what is thin.

It is counted shard by shard from the columns of the stage signals. Examples are the rows of a task with the smallest
ids: ids are hashes, so they are a sample without favour, and the same one each time.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import polars as pl

from curate.select import check_signals
from curate.task import TASKS
from schemas.dataset import Dataset
from schemas.record import turns_text

THIN_SHARE = 0.01
"""A task with less of the kept rows than this is pointed out: of 10,000 rows it has under 100, which teach little."""

WORDS = (1, 5, 20, 50, 100, 200, 500)
"""Where the buckets of words in an answer begin; the last one has no end."""
MESSAGES = (1, 3, 5, 9)
"""Where the buckets of messages in a conversation begin: one question and its answer, two, up to four, more."""

SHOWN_CHARACTERS = 70
"""Characters of a prompt that stand for an example."""


@dataclass(frozen=True)
class Example:
    """A row of a task: its id, where it stands, and how its prompt begins."""

    id: str
    place: str
    prompt: str


@dataclass(frozen=True)
class TaskCount:
    """The rows of a task, in all and by source, and some of them by name."""

    task: str
    rows: int
    share: float
    by_source: dict[str, int]
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Coverage:
    """What the kept rows of a version hold. Counts are rows, the greatest first, buckets in their order.

    `not_measured`: rows without signals, as they were restored or overruled after these ran. `undecided`: rows whose
    answer is in no language that is certain (short, numbers, code, a mixture). `thin`: the tasks under `thin_share`.
    """

    name: str
    seq: int
    rows: int
    sources: dict[str, int]
    tasks: tuple[TaskCount, ...]
    languages: dict[str, int]
    undecided: int
    words: dict[str, int]
    messages: dict[str, int]
    not_measured: int
    thin_share: float
    thin: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Give the coverage as plain values."""
        return asdict(self)


def buckets(starts: Sequence[int]) -> dict[str, tuple[int, int | None]]:
    """Name the buckets that begin at `starts`: "1-4" from 1 to 4, "500+" from 500 on."""
    closed = {(f"{a}-{b - 1}" if b - a > 1 else str(a)): (a, b) for a, b in pairwise(starts)}
    return {**closed, f"{starts[-1]}+": (starts[-1], None)}


def _bucket(column: str, starts: Sequence[int]) -> pl.Expr:
    """Name the bucket of a number; what is below the first one is in "0"."""
    found = pl.when(pl.col(column) < starts[0]).then(pl.lit("0"))
    for name, (start, end) in buckets(starts).items():
        inside = pl.col(column) >= start
        found = found.when(inside if end is None else inside & (pl.col(column) < end)).then(pl.lit(name))
    return found


def cover(dataset: Dataset, *, examples: int = 3) -> Coverage:
    """Count what the kept rows hold. Raises ConfigError where the version has no tasks and languages yet.

    Reads: id, source, source_row, messages, task, language, response_words, turns, kept.
    """
    check_signals(dataset, "coverage of")
    groups: list[pl.DataFrame] = []
    first = pl.DataFrame(schema={"task": pl.String, "id": pl.String})
    for shard in dataset.shards:
        rows = shard.view(["id", "source", "task", "language", "response_words", "turns", "kept"]).filter("kept")
        frame = rows.with_columns(words=_bucket("response_words", WORDS), messages=_bucket("turns", MESSAGES)).collect()
        groups.append(frame.group_by("source", "task", "language", "words", "messages").len())
        first = pl.concat([first, frame.drop_nulls("task").select("task", "id")]).sort("id")
        first = first.group_by("task", maintain_order=True).head(examples)
    counted = (
        pl.concat(groups) if groups else pl.DataFrame(schema={"source": pl.String, "task": pl.String, "len": pl.Int64})
    )
    total = int(counted["len"].sum())
    named = _examples(dataset, first)
    tasks = tuple(
        TaskCount(
            task,
            rows=int(own["len"].sum()),
            share=int(own["len"].sum()) / total if total else 0.0,
            by_source=_counts(own, "source"),
            examples=tuple(named.get(task, ())),
        )
        for task in TASKS
        for own in [counted.filter(pl.col("task") == task)]
    )
    ordered = tuple(sorted(tasks, key=lambda t: (t.task == "other", -t.rows, t.task)))
    languages = _counts(counted, "language") if groups else {}
    return Coverage(
        name=dataset.manifest.name,
        seq=dataset.manifest.seq,
        rows=total,
        sources=_counts(counted, "source"),
        tasks=ordered,
        languages=languages,
        undecided=int(counted.filter(pl.col("task").is_not_null() & pl.col("language").is_null())["len"].sum())
        if groups
        else 0,
        words=_in_order(counted, "words", ["0", *buckets(WORDS)]),
        messages=_in_order(counted, "messages", [*buckets(MESSAGES)]),
        not_measured=int(counted.filter(pl.col("task").is_null())["len"].sum()),
        thin_share=THIN_SHARE,
        thin=tuple(_thin(ordered, total)),
    )


def _counts(counted: pl.DataFrame, column: str) -> dict[str, int]:
    """Add up the rows of each value, the greatest first; nulls are left out."""
    found: Counter[str] = Counter()
    for value, rows in counted.select(column, "len").drop_nulls(column).iter_rows():
        found[value] += rows
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))


def _in_order(counted: pl.DataFrame, column: str, names: Sequence[str]) -> dict[str, int]:
    found = _counts(counted, column) if column in counted.columns else {}
    return {name: found[name] for name in names if name in found}


def _examples(dataset: Dataset, chosen: pl.DataFrame) -> dict[str, list[Example]]:
    """Look up the prompts of the chosen rows. Reads: id, task."""
    named: dict[str, list[Example]] = {}
    ids = chosen["id"].implode()
    for shard in dataset.shards:
        rows = shard.view(["id", "source", "source_row", "messages"]).filter(pl.col("id").is_in(ids))
        told = rows.with_columns(prompt=turns_text("user")).collect().join(chosen, on="id")
        for row in told.iter_rows(named=True):
            prompt = " ".join(row["prompt"].split())
            cut = prompt if len(prompt) <= SHOWN_CHARACTERS else prompt[: SHOWN_CHARACTERS - 1].rstrip() + "…"
            example = Example(row["id"], f"{row['source']}:{row['source_row']}", cut)
            named.setdefault(row["task"], []).append(example)
    return {task: sorted(found, key=lambda e: e.id) for task, found in named.items()}


def _thin(tasks: Sequence[TaskCount], total: int) -> list[str]:
    """Say which tasks are missing or thin; `other` is no task."""
    thin = [task for task in tasks if total and task.task != "other" and task.share < THIN_SHARE]
    return [f"{t.task}: {f'{t.rows:,} rows, {t.share:.2%}' if t.rows else 'none'}" for t in thin]
