"""A training run as one HTML file: its verdict, its curves, its records, its answers. Read from the run folder alone.

The texts of records lie in the store; whoever calls hands over those that it has. A run that still goes on, or whose
files are broken, has a page of what is there, which says what is missing.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
from markupsafe import Markup

from curate.change import word_diff
from curate.diff.redaction import MASK, mask
from curate.report import charts
from curate.report.curves import Line, Mark, lines, moving_mean
from curate.report.page import page_of
from curate.report.record_losses import Listing, by_source, listings, spread
from curate.samples import SampleRow
from schemas.run_files import Curve, RunFiles, Sample, curve

MOST_SOURCES = 12
"""Sources that have a chart and a line of their own: the largest; the page says how many are left out."""
MOST_PROMPTS = 6
"""Prompts whose answers are shown; all are in samples.jsonl."""
MOST_ANSWERS = 8
"""Different answers to a prompt that are shown: the first, the last, and some between."""
COMMON = 0.5
"""Share of an answer that must have stood in the one before it to be shown as a change of it."""
MOST_EVALUATIONS = 50
"""Evaluations that the table has."""
MOST_SPIKES = 10
"""Spikes whose records are listed: the highest."""
SPIKE_RECORDS = 3
"""Records listed of each."""
MOST_EPOCHS = 12
"""Epochs up to which each has a mark in the chart."""

SETTINGS = (
    "lr", "batch", "micro_batch", "max_tokens", "max_epochs", "max_steps", "lora_r", "lora_alpha", "unfreeze",
    "warmup_ratio", "weight_decay", "clip", "neftune", "optimizer", "precision", "replay", "curriculum", "general",
    "overlong", "max_hours", "max_cost", "seed",
)  # fmt: skip
"""Settings that are shown at once; the others are behind an expander."""

_FACTS = (("Device", "device"), ("Started", "started"), ("Ended", "ended"), ("Ended by", "ended_by"), ("Run", "run_id"))
"""What run.json says that is shown as it stands."""

LEVELS = {"ok": "All is well", "note": "To be noted", "warning": "Warning", "problem": "Problem"}


@dataclass(frozen=True)
class Panel:
    """A chart with what stands below it."""

    title: str
    chart: Markup
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What a model answered from one evaluation to another: the same all the while."""

    first: int
    last: int
    pieces: tuple[tuple[str, str], ...]
    whole: bool


@dataclass(frozen=True)
class Prompt:
    """A prompt, what the dataset answers, and what the model did, step by step."""

    id: str
    source: str
    prompt: str
    reference: str
    answers: tuple[Answer, ...]
    left_out: int


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


def named_records(run: RunFiles) -> list[str]:
    """Name the records that the page shows: those of its lists, of its spikes, and of its samples."""
    listed = [line.id for listing in _listings(run) for line in listing.records]
    spiked = [record.id for spike in _worst_spikes(run) for record in spike.records[:SPIKE_RECORDS]]
    return list(dict.fromkeys([*listed, *spiked, *(sample.id for sample in run.samples)]))


def run_page(
    run: RunFiles,
    findings: Sequence[Mapping[str, Any]],
    rows: Mapping[str, SampleRow] | None = None,
    *,
    redacted: Iterable[str] = (),
    command: str = "",
    notes: Sequence[str] = (),
) -> str:
    """Write the page of a run.

    `findings`: those of verdict.json, the worst first. `rows`: records as they may be shown, by id. `redacted`: ids of
    records that pii redacted in a later version: their prompts and answers are masked. `command`: what made the page.
    """
    facts = run.facts
    reference = str(run.config.get("dataset") or "") or f"{facts.get('dataset', 'unknown')}@{facts.get('seq', '?')}"
    model = str(facts.get("model") or run.settings.get("model") or "unknown model")
    method = str(facts.get("method") or run.settings.get("method") or "")
    sources = source_lines(run)
    evaluated = _some(list(zip(run.evaluations.step, run.evaluations.value, strict=True)), MOST_EVALUATIONS)
    values: dict[str, Any] = {
        "run": run,
        "title": f"{model} on {reference}",
        "reference": reference,
        "model": model,
        "method": method,
        "findings": [dict(finding) for finding in findings],
        "worst": str(findings[0].get("level", "note")) if findings else "note",
        "levels": LEVELS,
        "evidence": _evidence,
        "summary": summary(run),
        "manifest": str(facts.get("manifest") or "")[:16],
        "said": [(name, str(facts[key])) for name, key in _FACTS if facts.get(key)],
        "versions": {name: str(version) for name, version in _mapping(facts.get("versions")).items()},
        "weights": [_figure(run.preflight.get(name)) for name in ("trainable_weights", "weights")],
        "settings": {name: run.settings[name] for name in SETTINGS if run.settings.get(name) not in (None, "", ())},
        "other_settings": {
            name: value for name, value in sorted(run.settings.items()) if name not in (*SETTINGS, "model", "method")
        },
        "estimates": estimates(run),
        "evaluations": [(int(step), float(value)) for step, value in evaluated],
        "evaluations_left": len(run.evaluations) - len(evaluated),
        "loss_chart": _loss_chart(run),
        "source_panels": _source_panels(run),
        "speed_panels": _speed_panels(run),
        "sources": sources[:MOST_SOURCES],
        "sources_left": len(sources) - MOST_SOURCES,
        "refusals": refusals(run),
        "spread_panels": _spread_panels(run),
        "listings": _listings(run),
        "rows": rows or {},
        "prompts": _prompts(run, frozenset(redacted)),
        "prompts_left": len({sample.id for sample in run.samples}) - MOST_PROMPTS,
        "spikes": _worst_spikes(run),
        "spike_records": SPIKE_RECORDS,
        "command": command or f"sft report {run.path}",
        "notes": tuple(notes),
        "clock": clock,
        "ppl": perplexity,
        "loss": _written,
    }
    return page_of("run.html", values)


def perplexity(loss: float | None) -> str:
    """Write the perplexity of a loss."""
    if loss is None or not math.isfinite(loss):
        return "—"
    value = math.exp(min(loss, 60))
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def clock(seconds: float | None) -> str:
    """Write a time for a person: 40 s, 12 min, 3 h 20 min."""
    if seconds is None or not math.isfinite(seconds):
        return "—"
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _written(loss: float | None) -> str:
    return "—" if loss is None else f"{loss:.3f}"


def summary(run: RunFiles) -> dict[str, Any]:
    """Give a run's figures: steps, tokens, time, losses before and after. None where a file does not say."""
    val, train, tokens = run.evaluations, run.curve("loss"), run.curve("tokens")
    smooth = moving_mean(train) if len(train) else train
    seconds = _figure(run.facts.get("train_seconds")) or _end(run.curve("seconds"))
    total = _end(tokens)
    planned = _figure(run.preflight.get("steps"))
    price = _figure(run.settings.get("price_per_hour"))
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
        "cost": _figure(run.facts.get("cost")) or (round(seconds / 3600 * price, 4) if seconds and price else None),
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
    guess, peak = _mapping(before.get("forecast")), _figure(_mapping(before.get("rehearsal")).get("peak"))
    found: list[tuple[str, str, str]] = []

    def pair(what: str, estimate: Any, actual: float | None, write: Callable[[float], str]) -> None:
        value = _figure(estimate)
        if value is not None and actual is not None:
            found.append((what, write(value), write(actual)))

    pair("Steps", before.get("steps"), told["steps"], "{:,.0f}".format)
    pair("Tokens", before.get("tokens"), told["tokens"], "{:,.0f}".format)
    pair("Tokens per second of training", guess.get("tokens_per_s"), told["tokens_per_s"], "{:,.0f}".format)
    pair("Time of training", guess.get("training_s"), told["seconds"], clock)
    pair("Time in all", guess.get("seconds"), _figure(run.facts.get("seconds")), clock)
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


def _listings(run: RunFiles) -> tuple[Listing, ...]:
    return listings(run.records) if run.records is not None else ()


def _worst_spikes(run: RunFiles) -> list[Any]:
    worst = sorted(run.spikes, key=lambda spike: -(spike.loss or 0.0))[:MOST_SPIKES]
    return sorted(worst, key=lambda spike: spike.step)


def _loss_chart(run: RunFiles) -> Markup | None:
    train, val = run.curve("loss"), run.evaluations
    if not len(train) and not len(val):
        return None
    drawn = [
        Line("training", train, "before", "raw"),
        Line("training", train, "before", "smooth"),
        Line("validation", val, "after", "dots"),
    ]
    marks = _epochs(run)
    if len(val) > 2:
        low = int(np.argmin(val.value))
        if low + 1 < len(val):
            marks = [*marks, Mark(float(val.step[low]), f"lowest, {int(val.step[low]):,}", "after")]
    leapt = curve((spike.step, spike.loss) for spike in run.spikes if spike.loss is not None)
    return lines("loss", "Loss by step", drawn, wide=True, marks=marks, trouble=leapt)


def _epochs(run: RunFiles) -> list[Mark]:
    """Mark the first step of each epoch but the first."""
    epoch = run.curve("epoch")
    starts = np.flatnonzero(np.diff(epoch.value) > 0) + 1
    if not 0 < len(starts) <= MOST_EPOCHS:
        return []
    return [Mark(float(epoch.step[i]), f"epoch {int(epoch.value[i]) + 1}") for i in starts]


def _source_panels(run: RunFiles) -> tuple[Panel, ...]:
    names = [line.source for line in source_lines(run)] or list(run.train_by_source)
    if len(names) < 2:
        return ()
    empty = curve(())
    panels: list[Panel] = []
    for number, source in enumerate(names[:MOST_SOURCES]):
        train, val = run.train_by_source.get(source, empty), run.val_by_source.get(source, empty)
        drawn = [Line("training", train, "before", "smooth"), Line("validation", val, "after", "dots")]
        panels.append(Panel(source, lines(f"source-{number}", f"Loss of {source} by step", drawn)))
    return tuple(panels)


def _speed_panels(run: RunFiles) -> tuple[Panel, ...]:
    panels: list[Panel] = []

    def panel(name: str, title: str, drawn: Sequence[Line], *notes: str, **how: Any) -> None:
        if any(len(line.curve) for line in drawn):
            panels.append(Panel(title, lines(name, title, drawn, **how), notes))

    panel("lr", "Learning rate", [Line("rate", run.curve("lr"), "after")], from_zero=True)
    norm = run.curve("grad_norm")
    clip = _figure(run.settings.get("clip"))
    if len(norm):
        above = f"{(norm.value > clip).mean():.0%} of the steps were clipped to {clip:g}" if clip else ""
        skipped = f"{len(run.skipped):,} steps overflowed and changed nothing" if run.skipped else ""
        drawn = [Line("norm", norm, "s0", "raw"), Line("norm", norm, "after", "smooth")]
        panel("norm", "Gradient norm", drawn, *filter(None, (above, skipped)), log=True)
    speed = run.curve("tokens_per_s")
    if len(speed):
        note = f"median {charts.compact(float(np.median(speed.value)))} tokens/s"
        drawn = [Line("speed", speed, "s0", "raw"), Line("speed", _middling(speed), "after", "smooth")]
        panel("speed", "Tokens per second", drawn, note, from_zero=True)
    memory = run.curve("memory_gb")
    if len(memory):
        note = f"{float(memory.value.max()):.2f} GB at most"
        panel("memory", "Memory, GB", [Line("memory", memory, "after")], note, from_zero=True)
    tokens = run.curve("tokens")
    if len(tokens):
        note = f"{int(tokens.value[-1]):,} tokens in all"
        panel("tokens", "Tokens so far", [Line("tokens", tokens, "after")], note, from_zero=True)
    return tuple(panels)


def _middling(of: Curve) -> Curve:
    """Give a curve without its wildest values, which a first step that compiles has."""
    low, high = np.quantile(of.value, (0.01, 0.99))
    return replace(of, value=np.clip(of.value, low, high))


def _spread_panels(run: RunFiles) -> tuple[Panel, ...]:
    if run.records is None:
        return ()
    panels: list[Panel] = []
    for split, title in (("train", "Train records"), ("val", "Validation records")):
        if found := spread(run.records, split):
            after, before = found
            middle = f"after: {charts.middle(after)}"
            notes = (f"before: {charts.middle(before)}; {middle}" if before else middle, f"{after.rows:,} records")
            panels.append(
                Panel(title, charts.histogram(f"spread-{split}", f"Loss of {title.lower()}", after, before), notes)
            )
    return tuple(panels)


def _prompts(run: RunFiles, redacted: frozenset[str]) -> tuple[Prompt, ...]:
    by_id: dict[str, list[Sample]] = {}
    for sample in run.samples:
        by_id.setdefault(sample.id, []).append(sample)
    return tuple(_prompt(samples, hide=name in redacted) for name, samples in list(by_id.items())[:MOST_PROMPTS])


def _prompt(samples: Sequence[Sample], *, hide: bool) -> Prompt:
    """Sum up the answers to a prompt: each stretch of equal ones once, as a difference to the one before."""
    ordered = sorted(samples, key=lambda sample: sample.step)
    stretches = [list(same) for _, same in groupby(ordered, key=lambda sample: (sample.answer, sample.whole))]
    kept: list[list[Sample]] = _some(stretches, MOST_ANSWERS)
    answers: list[Answer] = []
    before: str | None = None
    for stretch in kept:
        text = mask(stretch[0].answer) if hide else stretch[0].answer
        pieces = _change(before, text) if before else (("same", text),)
        answers.append(Answer(stretch[0].step, stretch[-1].step, pieces, stretch[0].whole))
        before = text
    one = ordered[0]
    prompt, reference = (MASK, MASK) if hide else (one.prompt, one.reference)
    return Prompt(one.id, one.source, prompt, reference, tuple(answers), len(stretches) - len(kept))


def _change(before: str, after: str) -> tuple[tuple[str, str], ...]:
    """Give the difference of two answers, word by word; the later one alone where they have little in common."""
    pieces = tuple(word_diff(before, after))
    same = sum(len(text) for kind, text in pieces if kind == "same")
    return pieces if same >= COMMON * len(after) else (("same", after),)


def _some(held: Sequence[Any], most: int) -> list[Any]:
    """Keep the first, the last, and some evenly between."""
    return list(held) if len(held) <= most else [held[round(i)] for i in np.linspace(0, len(held) - 1, most)]


def _evidence(finding: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Write the numbers behind a finding as words and values."""
    held = finding.get("evidence")
    found: list[tuple[str, str]] = []
    for name, value in held.items() if isinstance(held, dict) else ():  # pyright: ignore[reportUnknownVariableType] # JSON
        found.append((str(name).replace("_", " "), _value(value)))
    return found


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(own)}" for name, own in value.items())  # pyright: ignore[reportUnknownVariableType] # JSON
    if isinstance(value, list):
        return ", ".join(map(_value, value))  # pyright: ignore[reportUnknownArgumentType] # JSON
    return str(value)


def _count(run: RunFiles, split: str) -> int | None:
    if run.records is not None:
        return int((run.records["split"] == split).sum())
    said = _figure(run.preflight.get(f"{split}_records"))
    return None if said is None else int(said)


def _end(of: Curve) -> float | None:
    return float(of.value[-1]) if len(of) else None


def _round(value: float) -> float:
    return round(float(value), 4)


def _figure(value: Any) -> float | None:
    """Give a JSON number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType] # JSON
