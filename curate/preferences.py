"""Preference pairs: of two answers to one prompt, the one that people chose and the one that they did not.

Two kinds: what a reviewer corrected against what stood there before (`correction`), and the winner against the loser of
a comparison of a run's answers (`comparison`). Only rows that the version keeps give pairs, and only with the prompt
that they have now: what was edited or redacted since does not come back through an old answer's prompt.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from curate.review.outcome import Compared, outcome_of
from curate.store import Store
from schemas.dataset import Dataset, Shard
from schemas.record import Message, compose, last_answer

Kind = Literal["correction", "comparison"]


@dataclass(frozen=True)
class Preference:
    """One pair. `split` is the row's; None before a split."""

    id: str
    source: str
    split: str | None
    kind: Kind
    prompt: tuple[Message, ...]
    tools: str | None
    chosen: str
    rejected: str

    def to_json(self) -> dict[str, Any]:
        """Give the pair as DPO trainers read it: prompt, chosen and rejected are lists of messages."""
        row: dict[str, Any] = {
            "prompt": [_written(message) for message in self.prompt],
            "chosen": [{"role": "assistant", "content": self.chosen}],
            "rejected": [{"role": "assistant", "content": self.rejected}],
            "id": self.id,
            "source": self.source,
            "kind": self.kind,
        }
        return row | ({"tools": json.loads(self.tools)} if self.tools else {})


@dataclass(frozen=True)
class Left:
    """A pair that is not given, and why."""

    id: str
    source: str
    reason: str
    detail: str


@dataclass(frozen=True)
class _Row:
    """A kept row as it stands: the prompt before its last answer, and that answer."""

    id: str
    source: str
    split: str | None
    prompt: tuple[Message, ...]
    tools: str | None
    answer: str


def preferences(dataset: Dataset, store: Store) -> tuple[list[Preference], list[Left]]:
    """Give all pairs of a version, in the order of its rows, corrections first, and those that were left out.

    No pair comes twice, none has equal sides, and of two that contradict each other neither comes.
    """
    runs = [run for run in store.runs() if run.get("dataset") == dataset.manifest.name]
    compared: dict[str, list[Compared]] = {}
    for run in runs:
        for found in outcome_of(store, run).compared:
            compared.setdefault(found.row["id"], []).append(found)
    pairs: list[Preference] = []
    left: list[Left] = []
    present: set[str] = set()
    for shard in dataset.shards:
        corrected = "review" in shard.overlays
        if not corrected and not compared:
            continue
        rows = _rows(shard, None, list(compared), corrected=corrected)
        before = _rows(shard, "review", [], corrected=True) if corrected else {}
        for row in rows.values():
            if row.id in before:
                pairs += _corrected(before[row.id], row, left)
            for found in compared.get(row.id, ()):
                pairs += _won(found, row, before.get(row.id), left)
        present |= rows.keys()
    left += [
        Left(row_id, found[0].row["source"], "row not kept", "the version rejects the row, or does not have it")
        for row_id, found in sorted(compared.items())
        if row_id not in present
    ]
    return _settled(pairs, left), left


def _rows(shard: Shard, before_stage: str | None, wanted: Sequence[str], *, corrected: bool) -> dict[str, _Row]:
    """Read rows by id: those that reviewers corrected, and those that are wanted. Only kept rows, as they end up.

    Reads: id, source, messages, context, tools, split, kept; the text as it stands before a stage.
    """
    asked = pl.col("id").is_in(list(wanted))
    text = shard.view(["id", "source", "messages", "context", "tools"], before_stage=before_stage).with_row_index("row")
    outcome = ["kept", *(["split"] if "split" in shard.annotations else [])]
    frame = pl.concat([text, shard.view(outcome)], how="horizontal")
    if corrected:
        asked |= pl.col("row").is_in(pl.scan_ipc(shard.overlays["review"]).select("row").collect()["row"].implode())
    found: dict[str, _Row] = {}
    for row in frame.filter(asked & pl.col("kept")).collect().iter_rows(named=True):
        messages = [Message(m["role"], m["content"], m["name"], m["tool_calls"]) for m in row["messages"]]
        turn = last_answer(messages)
        if turn is not None:
            prompt = compose(messages, row["context"])[:turn]
            found[row["id"]] = _Row(
                row["id"], row["source"], row.get("split"), prompt, row["tools"], messages[turn].content
            )
    return found


def _corrected(before: _Row, row: _Row, left: list[Left]) -> Iterator[Preference]:
    """Give the corrected answer against the one before, where it is the answer that was corrected."""
    if before.prompt != row.prompt:
        left.append(Left(row.id, row.source, "prompt edited", "the review changed more than the last answer"))
    else:
        yield _pair(row, "correction", row.answer, before.answer)


def _won(found: Compared, row: _Row, before: _Row | None, left: list[Left]) -> Iterator[Preference]:
    """Give the winner against the loser for each two answers of a comparison; ties give none.

    `before`: the row before its review, where reviewers corrected it. Where another stage changed its answer, no answer
    of the comparison comes back.
    """
    answers = {row.answer, before.answer} if before else {row.answer}
    told = found.row
    shown = tuple(Message(m["role"], m["content"], m["name"], m["tool_calls"]) for m in told["prompt"])
    if shown != row.prompt or told["tools"] != row.tools:
        detail = "the row's prompt has changed since the comparison"
        left.append(Left(row.id, row.source, "prompt edited", detail))
        return
    if told["reference"] not in answers:  # a model may have learnt by heart what was redacted since
        left.append(Left(row.id, row.source, "reference edited", "the row's answer has changed since"))
        return
    for (a, b), score in found.scores.items():
        winner, loser = (a, b) if score > 0.5 else (b, a)
        if score == 0.5:
            left.append(Left(row.id, row.source, "tie", f"{a} and {b} came out even"))
        elif "reference" in (a, b) and told["reference"] != row.answer:
            left.append(Left(row.id, row.source, "reference edited", "reviewers have corrected the row's answer since"))
        else:
            yield _pair(row, "comparison", told[winner], told[loser])


def _pair(row: _Row, kind: Kind, chosen: str, rejected: str) -> Preference:
    return Preference(row.id, row.source, row.split, kind, row.prompt, row.tools, chosen, rejected)


def _settled(pairs: Sequence[Preference], left: list[Left]) -> list[Preference]:
    """Leave out pairs that were there before, that have equal or blank sides, or that another one contradicts."""
    ways = {(p.prompt, p.tools, p.chosen, p.rejected) for p in pairs}
    settled: list[Preference] = []
    seen: Counter[tuple[Any, ...]] = Counter()
    for p in pairs:
        way = (p.prompt, p.tools, p.chosen, p.rejected)
        if p.chosen.strip() == p.rejected.strip():
            left.append(Left(p.id, p.source, "equal answers", "both sides say the same"))
        elif not p.chosen.strip():
            left.append(Left(p.id, p.source, "blank answer", "the chosen side says nothing"))
        elif (p.prompt, p.tools, p.rejected, p.chosen) in ways:
            left.append(Left(p.id, p.source, "contradiction", "people also chose the other way round"))
        elif seen[way]:
            left.append(Left(p.id, p.source, "same pair", "it is there already"))
        else:
            settled.append(p)
        seen[way] += 1
    return settled


def _written(message: Message) -> Mapping[str, Any]:
    written: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name is not None:
        written["name"] = message.name
    if message.tool_calls:
        written["tool_calls"] = json.loads(message.tool_calls)
    return written
