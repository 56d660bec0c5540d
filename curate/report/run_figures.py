"""A training run in figures: its summary, its sources, what was refused, and what came of the estimates."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from curate.report.charts import exponential
from curate.report.curves import moving_mean
from curate.report.record_losses import by_source
from schemas.run_files import Curve, RunFiles

MOST_SOURCES = 12
"""Sources that have a chart and a line of their own: the largest; the page says how many are left out."""


@dataclass(frozen=True)
class Refusals:
    """Records that were not trained on, for one reason."""

    reason: str
    count: int
    by_source: Mapping[str, int]
    by_split: Mapping[str, int]


@dataclass(frozen=True)
class SourceLine:
    """A source's validation: perplexity before and after, at its lowest."""

    source: str
    records: int | None
    before: float | None
    lowest: float | None
    after: float | None


def summary(run: RunFiles) -> dict[str, Any]:
    """Give a run's figures: steps, tokens, time, losses before and after. None where a file does not say."""
    val, train, tokens = run.evaluations, run.curve("loss"), run.curve("tokens")
    smooth = moving_mean(train) if len(train) else train
    seconds = figure(run.facts.get("train_seconds")) or _end(run.curve("seconds"))
    total = _end(tokens)
    planned = figure(run.preflight.get("steps"))
    price = figure(run.settings.get("price_per_hour"))
    low = int(np.argmin(val.value)) if len(val) else 0
    return {
        "ended": run.ended,
        "stopped_early": bool(run.facts.get("stopped_early")),
        "ended_by": run.facts.get("ended_by"),
        "steps": int(train.step[-1]) if len(train) else 0,
        "planned_steps": None if planned is None else int(planned),
        "epochs": int(run.curve("epoch").value.max()) + 1 if len(run.curve("epoch")) else None,
        "tokens": None if total is None else int(total),
        "seconds": seconds,
        "tokens_per_s": round(total / seconds, 1) if total and seconds else None,
        "cost": figure(run.facts.get("cost")) or (round(seconds / 3600 * price, 4) if seconds and price else None),
        "train_loss": [_round(smooth.value[0]), _round(smooth.value[-1])] if len(train) else None,
        "val_loss": [_round(val.value[0]), _round(val.value[-1])] if len(val) else None,
        "lowest": {"step": int(val.step[low]), "val_loss": _round(val.value[low])} if len(val) else None,
        "memory_gb": _round(run.curve("memory_gb").value.max()) if len(run.curve("memory_gb")) else None,
        "train_records": _count(run, "train"),
        "val_records": _count(run, "val"),
        "refused": len(run.rejected),
    }


def estimates(run: RunFiles) -> list[tuple[str, str, str]]:
    """Pair what preflight estimated with what came: (what, estimate, actual). Only what it did estimate."""
    told = summary(run)
    before = run.preflight
    guess, peak = mapping(before.get("forecast")), figure(mapping(before.get("rehearsal")).get("peak"))
    found: list[tuple[str, str, str]] = []

    def pair(what: str, estimate: Any, actual: float | None, write: Callable[[float], str]) -> None:
        value = figure(estimate)
        if value is not None and actual is not None:
            found.append((what, write(value), write(actual)))

    pair("Steps", before.get("steps"), told["steps"], "{:,.0f}".format)
    pair("Tokens", before.get("tokens"), told["tokens"], "{:,.0f}".format)
    pair("Tokens per second of training", guess.get("tokens_per_s"), told["tokens_per_s"], "{:,.0f}".format)
    pair("Time of training", guess.get("training_s"), told["seconds"], clock)
    pair("Time in all", guess.get("seconds"), figure(run.facts.get("seconds")), clock)
    pair("Memory, GB", peak / 1e9 if peak else None, told["memory_gb"], "{:,.2f}".format)
    pair("Cost", guess.get("cost"), told["cost"], "{:,.2f}".format)
    return found


def source_lines(run: RunFiles) -> tuple[SourceLine, ...]:
    """Give each source's validation loss before, at its lowest, and after: from records, else from evaluations."""
    counted = {one.source: one for one in by_source(run.records)} if run.records is not None else {}
    found: list[SourceLine] = []
    for source in (*counted, *(s for s in run.val_by_source if s not in counted)):
        own, known = run.val_by_source.get(source), counted.get(source)
        first = float(own.value[0]) if own is not None and own.step[0] == 0 else known.before if known else None
        last = float(own.value[-1]) if own is not None else known.after if known else None
        lowest = float(own.value.min()) if own is not None else None
        found.append(SourceLine(source, known.records if known else None, first, lowest, last))
    return tuple(found)


def refusals(run: RunFiles) -> tuple[Refusals, ...]:
    """Count the records that were not used, by reason, source and split; the most frequent reason first."""
    by_reason: dict[str, tuple[Counter[str], Counter[str]]] = {}
    for line in run.rejected:
        sources, splits = by_reason.setdefault(line["reason"], (Counter(), Counter()))
        sources[line["source"]] += 1
        splits[line["split"]] += 1
    made = [
        Refusals(reason, sources.total(), dict(sources.most_common(MOST_SOURCES)), dict(splits.most_common()))
        for reason, (sources, splits) in by_reason.items()
    ]
    return tuple(sorted(made, key=lambda one: (-one.count, one.reason)))


def perplexity(loss: float | None) -> str:
    """Write the perplexity of a loss."""
    if loss is None or not math.isfinite(loss):
        return "—"
    value = math.exp(min(loss, 700))  # a float holds no more
    if value >= 1e6:
        return exponential(value)
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def clock(seconds: float | None) -> str:
    """Write a time for a person: 40 s, 12 min, 3 h 20 min."""
    if seconds is None or not math.isfinite(seconds):
        return "—"
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def nats(loss: float | None) -> str:
    """Write a loss."""
    return "—" if loss is None else f"{loss:.3f}"


def _count(run: RunFiles, split: str) -> int | None:
    if run.records is not None:
        return int((run.records["split"] == split).sum())
    said = figure(run.preflight.get(f"{split}_records"))
    return None if said is None else int(said)


def _end(of: Curve) -> float | None:
    return float(of.value[-1]) if len(of) else None


def _round(value: float) -> float:
    return round(float(value), 4)


def figure(value: Any) -> float | None:
    """Give a JSON number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def mapping(value: Any) -> Mapping[str, Any]:
    """Give a JSON object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType] # JSON
