"""Over-fitting and under-fitting: what a run learnt by heart, and what it could still have learnt."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from schemas.run_files import Curve, RunFiles, Sample
from train.verdict.finding import (
    LEARNT,
    MIN_EVALUATIONS,
    MIN_RECORDS,
    SMALL,
    SURE,
    Finding,
    Level,
    beyond_chance,
    gap_of,
    mean_of,
    more_weights,
    perplexity,
    times_rate,
    val_records,
)
from train.verdict.trend import between, chance_of_rise, noise_sd, rise_of

AGAINST = 2.0
"""Times the largest movement against it that a rise must have: of curves at rest with normal noise, 1 in 150 has."""
RISING = 0.6
"""Kendall's tau from the lowest evaluation on from which it is a rise: four of five pairs stand in order."""
RISEN = 0.05
"""Nats of rise from which it is a warning: weights of the last step are 5% worse than the best in perplexity."""
GAP = 0.5
"""Nats by which train records gained more than validation records: perplexity fell 1.6 times further on them."""
WIDE_GAP = 1.0
"""The same, 2.7 times further: they are known by heart."""
REPEATED = 0.2
"""Rise of the share of repeated 4-grams in answers; texts of people have below 0.1 (arXiv 1908.04319)."""
NGRAM, MIN_WORDS, MIN_ANSWERS = 4, 12, 4
"""Words of a gram; words an answer must have to repeat any; answers before and after that must be there."""

LEARNT_SHARE = 0.1
"""Share of the loss before training that is learnt something too, where it is less than `LEARNT`: of a low loss little
can fall."""
STEEP = 0.15
"""Share of the whole fall that came in the last quarter of the run: an even fall has 0.25, one that has come to rest
under a decaying learning rate below 0.05."""
REST = 0.2
"""Share of the whole fall below which what the second half brought is little: an even fall has 0.5."""
MOVES = 0.1
"""Nats in a quarter, or half, of the run that are no rest, however large the whole fall was: 10% of perplexity. A model
that begins far off, as an untrained one does, has most of its fall behind it after a few steps."""
PLATEAU_PERPLEXITY = 15.0
"""Validation perplexity above which a model does not follow conversations well (a rule of the field's guides)."""


def over_fitting(run: RunFiles) -> Iterator[Finding]:
    """Find what was learnt by heart: by the curves, of all and of single sources, by single records, by answers."""
    gap = gap_of(run)
    risen = _risen(run, run.evaluations, gap)
    if risen:
        yield risen
    elif gap and gap["growth"] >= GAP and gap["growth"] >= SURE * gap["se"]:
        wide = gap["growth"] >= WIDE_GAP
        yield Finding(
            "over-fitting",
            "warning" if wide else "note",
            f"Train records gained {gap['growth']:.2f} nats more than validation records: their loss is "
            f"{gap['train']:.2f} against {gap['val']:.2f}.",
            {"gap": gap},
            f"Train for fewer epochs ({_epochs(run)}), or on more data: what validation does not gain is "
            "learnt by heart.",
        )
    if not risen:
        yield from _risen_sources(run)
    yield from _repetition(run)


def _risen(run: RunFiles, val: Curve, gap: dict[str, float] | None) -> Finding | None:
    """The validation loss stands above its lowest value, beyond its noise, while the training loss does not rise."""
    if len(val) < MIN_EVALUATIONS:
        return None
    rise = rise_of(val)
    if rise.height < max(SMALL, AGAINST * rise.noise) or rise.tau < RISING:
        return None
    train = run.curve("loss")
    then = _around(train, val, rise.low_step)
    now = _around(train, val, int(val.step[-1]))
    fell = then is not None and now is not None and now[0] < then[0]
    by_heart = now is not None and now[0] + GAP < rise.last
    if not (fell or by_heart):
        return None
    worse = rise.last > float(val.value[0]) and val.step[0] == 0
    few = (val_records(run) or MIN_RECORDS) < MIN_RECORDS
    level: Level = "problem" if worse else "warning" if rise.height >= RISEN and not few else "note"
    epoch = run.curve("epoch")
    named = f"step {rise.low_step}" + (f" (epoch {int(epoch.at(rise.low_step)) + 1})" if len(epoch) else "")
    where = f"at {named}" if rise.low_step else "before training"
    training = f", while the training loss went from {then[0]:.3f} to {now[0]:.3f}" if then and now else ""
    return Finding(
        "over-fitting",
        level,
        f"The validation loss was lowest {where}, {rise.low:.3f}, and has risen to {rise.last:.3f} since{training}."
        + (" That is worse than before training." if worse else ""),
        {
            "rise": round(rise.height, 4),
            "noise": round(rise.noise, 4),
            "lowest": {"step": rise.low_step, "loss": round(rise.low, 4)},
            "last": {"step": int(val.step[-1]), "loss": round(rise.last, 4)},
            "tau": round(rise.tau, 2),
            "train_loss": [round(part[0], 4) for part in (then, now) if part],
            **({"gap": gap} if gap else {}),
        },
        f"Stop at step {rise.low_step}: best/ holds those weights. Next time fewer epochs, "
        f"a lower rate ({times_rate(run, 0.5)}), or more and more varied data."
        if rise.low_step
        else f"No weights of this run are better than the base model's. Try a lower rate ({times_rate(run, 1 / 5)}), "
        "fewer epochs, or more and more varied data.",
    )


def _around(train: Curve, val: Curve, step: int) -> tuple[float, float] | None:
    """Give the mean training loss over the evaluation interval that ends at a step, and its standard error."""
    interval = float(np.median(np.diff(val.step)))
    part = between(train, step - interval, step) if step > 0 else between(train, 0, interval)
    if not len(part):
        return None
    return float(part.value.mean()), noise_sd(part.value) / math.sqrt(len(part))


def _risen_sources(run: RunFiles) -> Iterator[Finding]:
    """A source rises from its lowest validation loss while the mean of all sources does not.

    Of many sources at rest some seem to rise: each must do so beyond what chance makes of any of them.
    """
    if len(run.val_by_source) < 2:
        return
    seen = {
        source: val
        for source, val in run.val_by_source.items()
        if len(val) >= MIN_EVALUATIONS and (val_records(run, source) or 0) >= MIN_RECORDS
    }
    rises = [rise_of(val) for val in seen.values()]
    chances = [
        chance_of_rise(between(val, rise.low_step, math.inf)) for val, rise in zip(seen.values(), rises, strict=True)
    ]
    held = beyond_chance(chances)
    for (source, val), rise, chance, sure in zip(seen.items(), rises, chances, held, strict=True):
        own = run.train_by_source.get(source, run.curve("loss"))
        then, now = _around(own, val, rise.low_step), _around(own, val, int(val.step[-1]))
        falls = then is not None and now is not None and now[0] < then[0]
        if sure and rise.height >= max(RISEN, AGAINST * rise.noise) and rise.tau >= RISING and falls:
            yield Finding(
                "over-fitting",
                "warning",
                f"Source {source} alone over-fits: its validation loss was lowest at step {rise.low_step}, "
                f"{rise.low:.3f}, and is {rise.last:.3f} at the end, while the mean of all sources does not rise.",
                {
                    "source": source,
                    "source_rise": round(rise.height, 4),
                    "noise": round(rise.noise, 4),
                    "lowest": {"step": rise.low_step, "loss": round(rise.low, 4)},
                    "tau": round(rise.tau, 2),
                    "chance": float(f"{chance:.2g}"),
                    "sources": len(seen),
                },
                f"Show {source} less often (a lower weight: sft curate select), or add rows to it.",
            )


def repeated_share(text: str) -> float | None:
    """Give the share of a text's 4-grams of words that stood in it before; None for a text of few words."""
    words = text.split()
    if len(words) < MIN_WORDS:
        return None
    grams = [tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams)


def _repetition(run: RunFiles) -> Iterator[Finding]:
    """Answers repeat themselves more than those of the base model to the same prompts."""
    steps = sorted({sample.step for sample in run.samples})
    if len(steps) < 2:
        return
    cut = steps[max(len(steps) * 3 // 4, 1)]
    last_shares = _shares(sample for sample in run.samples if sample.step >= cut)
    first_shares = _shares(sample for sample in run.samples if sample.step == steps[0])
    both = sorted(last_shares.keys() & first_shares.keys())
    if len(both) < MIN_ANSWERS:
        return
    rises = np.array([np.mean(last_shares[p]) - np.mean(first_shares[p]) for p in both])
    rise, se = float(rises.mean()), float(rises.std(ddof=1) / math.sqrt(len(rises)))
    if rise < max(REPEATED, SURE * se):
        return
    was, now = (float(np.mean([np.mean(shares[p]) for p in both])) for shares in (first_shares, last_shares))
    yield Finding(
        "over-fitting",
        "warning",
        f"Answers repeat themselves: {now:.0%} of their 4-grams stood in them before, {was:.0%} at step {steps[0]}.",
        {"repeated": [round(was, 3), round(now, 3)], "se": round(se, 3), "prompts": len(both), "from_step": cut},
        "Use an earlier checkpoint or best/, train for fewer epochs or at a lower rate, and look for train records "
        "whose answers repeat themselves.",
    )


def _shares(samples: Iterator[Sample]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for sample in samples:
        if (share := repeated_share(sample.answer)) is not None:
            found.setdefault(sample.id, []).append(share)
    return found


def _epochs(run: RunFiles) -> str:
    epoch = run.curve("epoch")
    return f"this run had {int(epoch.value.max()) + 1}" if len(epoch) else "--max-epochs"


def under_fitting(run: RunFiles, *, over: bool) -> Iterator[Finding]:
    """Find what could still be learnt, in a run that has ended; with `over`, one that over-fits, only that it learnt
    nothing."""
    val = run.evaluations
    if len(val) < 2 or val.step[0] != 0 or not run.ended:
        return
    start, low = float(val.value[0]), float(val.value.min())
    if nothing_left(run, low):
        return
    higher = times_rate(run, 5)
    learnt = min(LEARNT, LEARNT_SHARE * start)
    if start - low < learnt and float(val.value[-1]) - start < LEARNT:
        paired = _paired(run)
        yield Finding(
            "under-fitting",
            "problem" if start - low < SMALL else "warning",
            f"The validation loss has hardly moved: {start:.3f} before training, {low:.3f} at its lowest.",
            {"fall": round(start - low, 4), "start": round(start, 4), "lowest": round(low, 4), **paired},
            f"Raise the rate ({higher}), train for more steps, or {more_weights(run)}."
            + (
                f" At perplexity {perplexity(start)} the base model may also know this data already."
                if start < math.log(PLATEAU_PERPLEXITY)
                else ""
            ),
        )
    elif start - low >= learnt and len(val) >= MIN_EVALUATIONS and not over:
        yield from _unfinished_fall(run, higher)


def nothing_left(run: RunFiles, loss: float) -> bool:
    """Whether a validation loss is so low that no run could teach much more: a cross-entropy does not fall below 0.

    It is where less than `LEARNT` remains, or where the records' mean cannot be told from 0.
    """
    if loss < LEARNT or run.records is None:
        return loss < LEARNT
    rows = run.records.filter((pl.col("split") == "val") & pl.col("loss").is_not_null())
    if rows.height < MIN_RECORDS:
        return False
    mean, se = mean_of(rows["loss"], rows["n_target_tokens"])
    return mean < SURE * se


def _unfinished_fall(run: RunFiles, higher: str) -> Iterator[Finding]:
    """The loss falls to the end, or it has long been at rest, and high."""
    val = run.evaluations
    start, last, end = float(val.value[0]), float(val.value[-1]), float(val.step[-1])
    noise = rise_of(val).noise
    late = val.at(0.75 * end) - last
    if late >= max(LEARNT, SURE * noise, min(STEEP * (start - last), MOVES)):
        yield Finding(
            "under-fitting",
            "warning",
            f"The loss was still falling when the run ended: {late / (start - last):.0%} of the whole fall came in "
            f"its last quarter ({last + late:.3f} to {last:.3f}).",
            {"late_fall": round(late, 4), "whole_fall": round(start - last, 4), "noise": round(noise, 4)},
            f"Train about twice as long ({_longer(run, int(end))}), or at a higher rate ({higher}).",
        )
    rest = val.at(0.5 * end) - last
    if last > math.log(PLATEAU_PERPLEXITY) and abs(rest) < max(SMALL, noise, min(REST * (start - last), MOVES)):
        yield Finding(
            "under-fitting",
            "warning",
            f"The loss came to rest early and high: perplexity {perplexity(last)} at the end, and half-way "
            f"{perplexity(last + rest)}.",
            {"second_half_fall": round(rest, 4), "loss": round(last, 4), "noise": round(noise, 4)},
            f"Raise the rate ({higher}), {more_weights(run)}, and look at the records with the highest loss.",
        )


def _longer(run: RunFiles, steps: int) -> str:
    """Name the option that ended the run, to be raised."""
    budget = {"hours": "--max-hours", "cost": "--max-cost"}.get(str(run.facts.get("ended_by")))
    return f"a higher {budget}" if budget else f"--max-epochs, or --max-steps {2 * steps}"


def _paired(run: RunFiles) -> dict[str, Any]:
    """Give the mean gain of the validation records, with its standard error, where both losses are known."""
    if run.records is None:
        return {}
    rows = run.records.filter(
        (pl.col("split") == "val") & pl.col("loss").is_not_null() & pl.col("loss_before").is_not_null()
    )
    if rows.height < 2:
        return {}
    gain, se = mean_of(rows.select(pl.col("loss_before") - pl.col("loss")).to_series(), rows["n_target_tokens"])
    return {"gain": round(gain, 4), "gain_se": round(se, 4), "records": rows.height}
