"""Instability: a loss or gradients that leap, explode, overflow, or end in no number."""

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from schemas.run_files import Curve, Floats, RunFiles
from train.verdict.finding import MIN_STEPS, Finding, broke, times_rate
from train.verdict.trend import noise_sd, smoothed

LEAP = 0.5
"""Nats by which the mean training loss stands above where it was before: it will not be chance, nor the data."""
VERY_SURE = 4.0
"""The same for what is looked for in many places of a curve at once."""
SHARE_OF_STEPS = 0.01
"""Share of the steps with spikes, explosions or overflows from which they are a warning. A loss scaler that seeks its
scale overflows a few times at the start, and every 2,000 steps after."""
SCALER_STEPS = 20
"""Steps at the start in which a loss scaler may overflow: it begins at 2^16 and halves."""
EXPLOSION = 10.0
"""Times the usual gradient norm: clipping makes one harmless, and a repeated one says that the rate is too high. One
that --clip lets pass as it is counts as none: norms are a thousandth of it where all is learnt."""
BEFORE = 20
"""Steps before one whose median is its usual norm. Norms fall with the loss, so the first ones of a run that learns
well stand far above the median of the whole."""
WARMED = 0.05
"""Share of the run that is left out when gradient norms are judged: they are large until the model knows the format."""


def instability(run: RunFiles) -> Iterator[Finding]:
    """Find what broke, or nearly so: a loss that is no number or leaps, spikes, explosions, overflows."""
    train = run.curve("loss")
    lower = times_rate(run, 1 / 3)
    steps = broke(run)
    if steps:
        ids = [record.id for spike in run.spikes if spike.expected is None for record in spike.records]
        named = f" ({', '.join(one[:12] for one in ids[:3])})" if ids else ""
        if set(steps) <= set(run.val_not_finite):  # no step was to blame
            what, look = "validation loss", ""
        else:
            what, look = "loss or the gradient", f", and look at that step's records{named}"
        yield Finding(
            "instability",
            "problem",
            f"The {what} was infinite or no number at step {steps[0]}"
            + (f", and at {len(steps) - 1} later ones." if len(steps) > 1 else "."),
            {"steps": steps[:20], "records": ids[:20]},
            f"Start anew with a lower rate ({lower}) or --clip, and a longer warm-up (--warmup-ratio 0.1){look}.",
        )
    elif len(train) >= MIN_STEPS:
        yield from _leap(run, train, lower)
    yield from _spikes(run, lower)
    yield from _explosions(run, lower)
    late = [step for step in run.skipped if step > SCALER_STEPS]
    if len(late) > max(2, SHARE_OF_STEPS * len(train)):
        yield Finding(
            "instability",
            "warning",
            f"{len(late):,} of {len(train):,} steps changed nothing: their fp16 gradients overflowed.",
            {"steps": late[:20], "skipped": len(late)},
            f"Use --precision bf16 where the GPU has it, or a lower rate ({lower}).",
        )


def _leap(run: RunFiles, train: Curve, lower: str) -> Iterator[Finding]:
    """The mean loss leaps and stays, or leaps at the start, where the rate is first at its peak."""
    window = max(5, len(train) // 20)
    means = smoothed(train, window)
    if not len(means):
        return
    noise = noise_sd(train.value) / math.sqrt(window)
    least = max(LEAP, VERY_SURE * noise)
    lowest = int(np.argmin(means.value))
    risen = float(means.value[-1] - means.value[lowest])
    val = run.evaluations
    hard_first = run.settings.get("curriculum") is not None  # an order by difficulty moves the loss by itself
    confirmed = float(val.value[-1] - val.value.min()) >= LEAP if len(val) else not hard_first
    began = float(np.median(train.value[:3]))
    peak = int(np.argmax(means.value))
    over = float(means.value[peak]) - began
    if risen >= least and confirmed:
        yield Finding(
            "instability",
            "problem",
            f"Training broke: its mean loss was {means.value[lowest]:.3f} at step {int(means.step[lowest])} and is "
            f"{means.value[-1]:.3f} at the end.",
            {"risen": round(risen, 4), "noise": round(noise, 4), "lowest_step": int(means.step[lowest])},
            f"Lower the rate ({lower}), warm up for longer (--warmup-ratio 0.1)"
            + (", and use best/." if len(val) and val.step[int(np.argmin(val.value))] > 0 else "."),
        )
    elif over >= least and not hard_first:
        worse = len(val) > 1 and float(val.value[-1]) > float(val.value[0])
        yield Finding(
            "instability",
            "problem" if worse else "warning",
            f"The loss rose above its start before it fell: {began:.3f} at first, {means.value[peak]:.3f} on average "
            f"around step {int(means.step[peak])}, {means.value[-1]:.3f} at the end.",
            {"over_start": round(over, 4), "noise": round(noise, 4), "peak_step": int(means.step[peak])},
            f"Lower the rate ({lower}) or warm up for longer (--warmup-ratio 0.1): what was unlearnt there is not "
            "all learnt again.",
        )


def _spikes(run: RunFiles, lower: str) -> Iterator[Finding]:
    high = [spike for spike in run.spikes if spike.expected is not None]
    if not high:
        return
    count, steps = len(high), max(len(run.curve("loss")), 1)
    named = Counter(record.id for spike in high for record in spike.records[:3])
    often = [record for record, _ in named.most_common(5)]
    worst = max(high, key=lambda s: (s.loss or 0.0) - (s.expected or 0.0))
    leapt = f": at step {worst.step} to {worst.loss:.2f}" if worst.loss is not None else ""
    expected = f", where {worst.expected:.2f} was expected" if leapt and worst.expected is not None else ""
    look = f"Look at these records: {', '.join(record[:12] for record in often)} (sft why REF ID)" if often else ""
    many = count >= 3 and count > SHARE_OF_STEPS * steps
    yield Finding(
        "instability",
        "warning" if many else "note",
        f"The loss leapt at {count:,} of {steps:,} steps{leapt}{expected}."
        if count > 1
        else f"The loss leapt once{leapt}{expected}.",
        {"spikes": [s.step for s in high[:20]], "count": count, "records": often},
        f"{look or 'Look at the records of these steps'}; where they are sound, "
        + (f"lower the rate ({lower}) or --clip." if many else "so few leaps ask for nothing more."),
    )


def _explosions(run: RunFiles, lower: str) -> Iterator[Finding]:
    norm = run.curve("grad_norm")
    if len(norm) < MIN_STEPS:
        return
    late = norm.step > WARMED * norm.step[-1]
    clip = run.settings.get("clip")
    least = float(clip) if isinstance(clip, float | int) else 1e-12
    explodes = late & (norm.value > np.maximum(EXPLOSION * _before(norm.value), least))
    wild, values = norm.step[explodes], norm.value[explodes]
    if len(wild) >= 3 and len(wild) > SHARE_OF_STEPS * late.sum():
        yield Finding(
            "instability",
            "warning",
            f"The gradient norm was more than {EXPLOSION:g} times the median of the {BEFORE} steps before it at "
            f"{len(wild)} steps, {float(values.max()):.1f} at most.",
            {"steps": [int(step) for step in wild[:20]], "count": len(wild), "largest": round(float(values.max()), 4)},
            f"Lower the rate ({lower}), --clip or --beta2, and look at the records of those steps.",
        )


def _before(value: Floats) -> Floats:
    """Give the median of the `BEFORE` values before each; of the first one itself."""
    padded = np.concatenate([np.full(BEFORE, np.nan), value])
    medians = np.nanmedian(sliding_window_view(padded[1:-1], BEFORE), axis=1) if len(value) > 1 else value[:0]
    return np.concatenate([value[:1], medians])
