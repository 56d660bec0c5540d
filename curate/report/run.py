"""A training run as one HTML file: its verdict, its curves, its records, its answers. Read from the run folder alone.

The texts of records lie in the store; whoever calls hands over those that it has. A run that still goes on, or whose
files are broken, has a page of what is there, which says what is missing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal

import numpy as np
from markupsafe import Markup

from curate.change import word_diff
from curate.diff.redaction import MASK, mask
from curate.report import charts
from curate.report.curves import Line, Mark, lines
from curate.report.page import Panel, page_of
from curate.report.record_losses import Listing, listings, spread
from curate.report.run_figures import (
    MOST_SOURCES,
    clock,
    estimates,
    figure,
    mapping,
    nats,
    perplexity,
    refusals,
    source_lines,
    summary,
)
from curate.samples import SampleRow
from schemas.run_files import Curve, RunFiles, Sample, curve

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
        "versions": {name: str(version) for name, version in mapping(facts.get("versions")).items()},
        "weights": [figure(run.preflight.get(name)) for name in ("trainable_weights", "weights")],
        "settings": {name: run.settings[name] for name in SETTINGS if run.settings.get(name) not in (None, "", ())},
        "other_settings": {
            name: value for name, value in sorted(run.settings.items()) if name not in (*SETTINGS, "model", "method")
        },
        "estimates": estimates(run),
        "evaluations": [(int(step), float(value)) for step, value in evaluated],
        "evaluations_left": len(run.evaluations) - len(evaluated),
        "loss_chart": _loss_chart(run, "wide"),
        "loss_on_a_phone": _loss_chart(run, "tall"),
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
        "loss": nats,
    }
    return page_of("run.html", values)


def _listings(run: RunFiles) -> tuple[Listing, ...]:
    return listings(run.records) if run.records is not None else ()


def _worst_spikes(run: RunFiles) -> list[Any]:
    worst = sorted(run.spikes, key=lambda spike: -(spike.loss or 0.0))[:MOST_SPIKES]
    return sorted(worst, key=lambda spike: spike.step)


def _loss_chart(run: RunFiles, size: Literal["tall", "wide"]) -> Markup | None:
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
    return lines(f"loss-{size}", "Loss by step", drawn, size=size, marks=marks, trouble=leapt)


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
        if not len(train) and not len(val):  # scored as records alone
            continue
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
    clip = figure(run.settings.get("clip"))
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
            sides = [("before", before), ("after", after)]
            notes = tuple(f"{side}: {charts.middle(of)}" for side, of in sides if of)
            panels.append(
                Panel(
                    f"{title}, {after.rows:,}",
                    charts.histogram(f"spread-{split}", f"Loss of {title.lower()}", after, before),
                    notes,
                )
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
