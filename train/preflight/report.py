"""What must hold before step 0, and what is known then: shown alone with `--dry-run`; a run starts only where it holds.

Checked, in this order, the cheapest first: a stop token at the end of every assistant turn, one BOS, no validation row
that training has seen, memory, packed logits equal to those of single records, and one step of the worst micro-batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from schemas.train_config import TrainConfig
from train.model.trainee import Trainee
from train.plan import Plan
from train.preflight.forecast import Forecast, forecast
from train.preflight.leakage import Leakage, find_leakage
from train.preflight.masks import check_bos, check_stops
from train.preflight.memory import Memory, size
from train.preflight.rehearsal import Rehearsal, check_fits, rehearse
from train.preflight.selftest import self_test
from train.preflight.shown import Shown, show
from train.step import sharding
from train.step.compiled import wants_compile
from train.text.refusal import Refusal, Refusals
from train.text.template import Encoded, Template
from train.text.tokens import Tokens

NAMED = 5
"""Refused rows that are named per split and reason; the run folder's rejected.jsonl names all."""


@dataclass(frozen=True, slots=True)
class Refused:
    """How many records of a split were refused for a reason, per source, and the ids of the first few."""

    split: str
    reason: str
    by_source: dict[str, int]
    first: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self.by_source.values())

    def __str__(self) -> str:
        sources = ", ".join(f"{n:,} of {source}" for source, n in self.by_source.items())
        return f"{self.count:,} {self.split} records not used ({self.reason}): {sources}"

    def named(self) -> str:
        """Name the first few, and say how many more there are."""
        more = self.count - len(self.first)
        return ", ".join(self.first) + (f", and {more:,} more" if more else "")


@dataclass(frozen=True, slots=True)
class SourceCount:
    """What a source brings to one split: records, tokens, targets, and the tokens of its longest record."""

    split: str
    source: str
    records: int
    tokens: int
    targets: int
    longest: int


@dataclass(frozen=True, slots=True)
class Preflight:
    """What a run will do. Token counts are of the whole run, all epochs together; those of sources of one epoch.

    `padded`: passes are filled up to one length, as compiled layers want it.
    """

    train_records: int
    val_records: int
    sources: tuple[SourceCount, ...]
    refused: tuple[Refused, ...]
    trimmed: int
    steps: int
    epochs: int
    records_per_step: float
    rows_per_step: int
    tokens: int
    targets: int
    packing_efficiency: float
    padded: bool
    weights: int
    trainable_weights: int
    logit_difference: float
    leakage: Leakage
    memory: Memory
    rehearsal: Rehearsal
    forecast: Forecast
    warnings: tuple[str, ...]
    shown: tuple[Shown, ...]

    def facts(self) -> list[tuple[str, str]]:
        """Give what was found as pairs of a subject and a line for a person."""
        held = f"{self.records_per_step:.1f} records in {_many(self.rows_per_step, 'packed row')}"
        padding = "compiled layers take them padded" if self.padded else "nothing is padded"
        memory, rehearsal = self.memory, self.rehearsal
        return [
            ("records", f"{self.train_records:,} to train on, {self.val_records:,} to validate"),
            *(("refused", str(refused)) for refused in self.refused),
            *([("trimmed", f"{self.trimmed:,} records lose outer space to the template")] if self.trimmed else []),
            ("steps", f"{_many(self.steps, 'step')} over {_many(self.epochs, 'epoch')}, each of about {held}"),
            ("tokens", f"{self.tokens:,} in the whole run, {_share(self.targets, self.tokens)} of them targets"),
            ("packing", f"rows are {self.packing_efficiency:.1%} full; {padding}"),
            ("weights", f"{self.trainable_weights:,} of {self.weights:,} are trained"),
            (
                "self-test",
                f"packed and alone differ by {self.logit_difference:.1e} standard deviations of the logits",
            ),
            *(("leakage", line) for line in self.leakage.lines() or self._clean()),
            ("memory", f"{memory} by the estimate, {size(rehearsal.capacity)} are there"),
            ("worst step", str(rehearsal)),
            *(("time" if i == 0 else "", line) for i, line in enumerate(self.forecast.lines())),
        ]

    def lines(self) -> list[str]:
        """Say it in lines, for the log."""
        told = [f"{what}: {line}" if what else line for what, line in self.facts()]
        return [*told, *(f"warning: {warning}" for warning in self.warnings)]

    def json(self, *, shown: bool = True) -> dict[str, Any]:
        """Give it as plain values for a file; `shown` with the records that a person would see."""
        values = asdict(self)
        values["memory"]["total"] = self.memory.total
        values["rehearsal"]["tokens_per_s"] = round(self.rehearsal.tokens_per_s, 1)
        values["forecast"] |= {
            "seconds": self.forecast.seconds,
            "low_s": self.forecast.low_s,
            "high_s": self.forecast.high_s,
        }
        if not shown:
            del values["shown"]
        return values

    def _clean(self) -> list[str]:
        if not self.val_records:
            return []
        return [f"none of {self.leakage.rows:,} validation rows, prompts and long answers is a train row's"]


def preflight(
    trainee: Trainee,
    template: Template,
    config: TrainConfig,
    *,
    train: Encoded,
    val: Encoded,
    plan: Plan,
    evaluations: int,
    read: Tokens | None = None,
    clusters: Sequence[tuple[str, str]] = (),
    work: Callable[[str, int], Callable[[int], None]] | None = None,
) -> Preflight:
    """Check a run and describe it. Raises CheckFailedError for what must not be trained, ConfigError out of memory.

    `read`: what the plan's indices are of, where that is more than `train`: replayed records follow it. `clusters`:
    (val id, train id) of rows of one near-duplicate cluster. `evaluations`: how many the run will make. `work` hears of
    the slow part as `listener.work` does.
    """
    trained, validated = Tokens.of(train.examples), Tokens.of(val.examples)
    read = trained if read is None else read
    told: list[str] = []
    check_stops(read, template)
    if note := check_bos(read, template):
        told.append(note)
    leakage = find_leakage(read, validated, clusters)
    if not config.allow_leakage:
        leakage.check("split val")
    told += leakage.lines()
    if not len(validated):
        told.append("no validation records: no early stopping, and best/ is final/")
    difference = self_test(trainee, trained)  # of the whole model, before it is shared out
    sharding.shard(trainee.network, device=trainee.device.device, autocast=trainee.device.autocast)
    memory = check_fits(trainee, config)
    done = work("worst step", 1) if work else None
    rehearsal = rehearse(trainee, read, plan, config)
    if done:
        done(1)
    return Preflight(
        train_records=len(trained),
        val_records=len(validated),
        sources=(
            *count_sources("train", trained),
            *count_sources("replay", read.chosen(np.arange(len(trained), len(read)))),
            *count_sources("val", validated),
        ),
        refused=(*count_refused("train", train.refusals), *count_refused("val", val.refusals)),
        trimmed=train.trimmed + val.trimmed,
        steps=len(plan),
        epochs=plan.epochs,
        records_per_step=len(plan.records) / len(plan),
        rows_per_step=int(np.diff(plan.step_bounds).max()),
        tokens=plan.tokens,
        targets=int(read.targets[plan.records].sum()),
        packing_efficiency=plan.packing_efficiency,
        padded=wants_compile(config, trainee.device.device),
        weights=sum(p.numel() for p in trainee.model.parameters()),
        trainable_weights=sum(p.numel() for _, p in trainee.trainable()),
        logit_difference=difference,
        leakage=leakage,
        memory=memory,
        rehearsal=rehearsal,
        forecast=forecast(trainee, config, plan, rehearsal, train=trained, val=validated, evaluations=evaluations),
        warnings=tuple(told),
        shown=show(trained, template.tokenizer),
    )


def count_sources(split: str, tokens: Tokens) -> tuple[SourceCount, ...]:
    """Count what each source brings to a split."""
    lengths, many = tokens.lengths, len(tokens.sources)
    records, held, targets = (
        np.bincount(tokens.source_of, weights=of, minlength=many) for of in (None, lengths, tokens.targets)
    )
    longest = np.zeros(many, np.int64)
    np.maximum.at(longest, tokens.source_of, lengths)
    return tuple(
        SourceCount(split, name, int(records[i]), int(held[i]), int(targets[i]), int(longest[i]))
        for i, name in enumerate(tokens.sources)
        if records[i]
    )


def count_refused(split: str, refusals: Sequence[Refusal]) -> tuple[Refused, ...]:
    """Count refusals by reason and source, and name the first few of each reason."""
    columns = Refusals.of(refusals)
    counted = columns.by_reason()
    names: dict[str, list[str]] = {reason: [] for reason in counted}
    for reason, name in zip(columns.table["reason"].to_pylist(), columns.table["id"].to_pylist(), strict=True):
        if len(names[reason]) < NAMED:
            names[reason].append(name)
    return tuple(Refused(split, reason, found, tuple(names[reason])) for reason, found in counted.items())


def _many(count: int, word: str) -> str:
    return f"{count:,} {word}" + ("" if count == 1 else "s")


def _share(part: int, whole: int) -> str:
    return f"{part / max(1, whole):.0%}"
