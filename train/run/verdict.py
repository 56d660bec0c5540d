"""The verdict on a run, from the files of its folder alone: what went wrong, by which numbers, and what to change.

    over-fitting    validation rises while training falls; train records are known by heart; answers repeat themselves
    under-fitting   hardly below the start; a plateau, high and early; or the loss was still falling when the run ended
    instability     the loss or the gradients leap, overflow, or end in no number
    forgetting      a general set, or a source, is worse than before training
    inconclusive    too little was measured to say
    healthy         none of these, and enough was measured

Differences count where they are larger than the noise of what they are measured on, and large enough to matter.
Losses are in nats per target: 0.01 of them is 1% of perplexity.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from schemas.run_files import Curve, RunFiles, Sample, read_run
from train.run.folder import RunFolder
from train.run.trend import between, noise_sd, rise_of, slope_of, smoothed

Kind = Literal["over-fitting", "under-fitting", "instability", "forgetting", "healthy", "inconclusive"]
Level = Literal["ok", "note", "warning", "problem"]
LEVELS: tuple[Level, ...] = ("ok", "note", "warning", "problem")

MIN_EVALUATIONS = 5
"""Below it, noise alone has the shape of a rise too often: of the 120 orders of five values, 5 fall to a lowest one
and rise from it three times or more."""
MIN_RECORDS = 20
"""Validation records below which their mean says little: with losses that spread by 0.5 nats from record to record it
has a standard error above 0.1."""
MIN_STEPS = 10
"""Steps below which nothing is said about the course of the training loss."""

SURE = 2.0
"""Standard errors, or times the noise, from which a difference is taken for real: one chance in twenty, each."""
VERY_SURE = 4.0
"""The same for what is looked for in many places of a curve at once."""
SMALL = 0.01
"""Nats that do not matter: 1% of perplexity, less than runs of other seeds differ by."""
LEARNT = 0.02
"""Nats by which the validation loss must fall for a run to have taught anything: 2% of perplexity."""

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
"""Rise of the share of repeated 4-grams in answers; texts of people have below 0.1 (Welleck et al., arXiv 1908.04319)."""
NGRAM, MIN_WORDS, MIN_ANSWERS = 4, 12, 4
"""Words of a gram; words an answer must have to repeat any; answers before and after that must be there."""

STEEP = 0.15
"""Share of the whole fall that came in the last quarter of the run: an even fall has 0.25, one that has come to rest
under a decaying learning rate below 0.05."""
REST = 0.2
"""Share of the whole fall below which what the second half brought is little: an even fall has 0.5."""
PLATEAU_PERPLEXITY = 15.0
"""Validation perplexity above which a model does not follow conversations well (a rule of the field's guides)."""

LEAP = 0.5
"""Nats by which the mean training loss stands above where it was before: it will not be chance, nor the data."""
SHARE_OF_STEPS = 0.01
"""Share of the steps with spikes, explosions or overflows from which they are a warning. A loss scaler that seeks its
scale overflows a few times at the start, and every 2,000 steps after."""
SCALER_STEPS = 20
"""Steps at the start in which a loss scaler may overflow: it begins at 2^16 and halves."""
EXPLOSION = 10.0
"""Times the median gradient norm: clipping makes one harmless, and a repeated one says that the rate is too high."""
WARMED = 0.05
"""Share of the run that is left out when gradient norms are judged: they are large until the model knows the format."""

FORGOTTEN = (0.02, 0.1, 0.3)
"""Nats of loss on the general set from which it is a note, a warning, a problem: 2%, 10% and 35% of perplexity."""
PAIRED_SD = 0.2
"""Spread of the change from record to record that is supposed where the file does not say it: one of the usual size
after fine-tuning (0.1 to 0.2 nats)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is so: in a sentence, with the numbers behind it, and what to change."""

    kind: Kind
    level: Level
    found: str
    evidence: dict[str, Any]
    advice: str


def judge_folder(folder: Path) -> tuple[Finding, ...]:
    """Judge a run by its folder, and write verdict.json there."""
    found = judge(read_run(folder))
    RunFolder(folder).write_json("verdict.json", to_json(found))
    return found


def to_json(findings: tuple[Finding, ...]) -> dict[str, Any]:
    """Give what verdict.json holds."""
    return {"findings": [asdict(finding) for finding in findings]}


def kinds(findings: tuple[Finding, ...]) -> list[Kind]:
    """Name what was found, each once, the worst first."""
    return list(dict.fromkeys(finding.kind for finding in findings))


def judge(run: RunFiles) -> tuple[Finding, ...]:
    """Say what a run came to: the worst first, at least one finding. `healthy` stands alone."""
    unstable = list(_instability(run))
    broke = any(finding.level == "problem" for finding in unstable)
    found = [*unstable, *_over_fitting(run)]
    if not broke:  # what a broken run did not learn is no matter of too few steps
        found += _under_fitting(run, risen=any("rise" in finding.evidence for finding in found))
    found += [*_forgetting(run), *_inconclusive(run)]
    if not found:
        found = [_healthy(run)]
    return tuple(sorted(found, key=lambda f: (-LEVELS.index(f.level), f.kind == "inconclusive")))


# over-fitting


def _over_fitting(run: RunFiles) -> Iterator[Finding]:
    gap = _gap(run)
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
    few = (_val_records(run) or MIN_RECORDS) < MIN_RECORDS
    level: Level = "problem" if worse else "warning" if rise.height >= RISEN and not few else "note"
    epoch = run.curve("epoch")
    where = f"step {rise.low_step}" + (f" (epoch {int(epoch.at(rise.low_step)) + 1})" if len(epoch) else "")
    training = f"the training loss went from {then[0]:.3f} to {now[0]:.3f}" if then and now else ""
    rate = run.settings.get("lr")
    return Finding(
        "over-fitting",
        level,
        f"The validation loss was lowest at {where}, {rise.low:.3f}, and has risen to {rise.last:.3f} since, while "
        f"{training}." + (" That is worse than before training." if worse else ""),
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
        + (f"a lower rate (--lr {float(rate) / 2:g}), " if isinstance(rate, float) else "a lower rate, ")
        + "or more and more varied data.",
    )


def _around(train: Curve, val: Curve, step: int) -> tuple[float, float] | None:
    """Give the mean training loss over the evaluation interval that ends at a step, and its standard error."""
    interval = float(np.median(np.diff(val.step)))
    part = between(train, step - interval, step) if step > 0 else between(train, 0, interval)
    if not len(part):
        return None
    return float(part.value.mean()), noise_sd(part.value) / math.sqrt(len(part))


def _risen_sources(run: RunFiles) -> Iterator[Finding]:
    """A source rises from its lowest validation loss while the mean of all sources does not."""
    if len(run.val_by_source) < 2:
        return
    for source, val in run.val_by_source.items():
        if len(val) < MIN_EVALUATIONS or (_val_records(run, source) or 0) < MIN_RECORDS:
            continue
        rise = rise_of(val)
        own = run.train_by_source.get(source, run.curve("loss"))
        then, now = _around(own, val, rise.low_step), _around(own, val, int(val.step[-1]))
        falls = then is not None and now is not None and now[0] < then[0]
        if rise.height >= max(RISEN, AGAINST * rise.noise) and rise.tau >= RISING and falls:
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
                },
                f"Show {source} less often (a lower weight: sft curate select), or add rows to it.",
            )


def _gap(run: RunFiles) -> dict[str, float] | None:
    """Give how much more train records gained than validation records, per target, with its standard error."""
    if run.records is None:
        return None
    gains: dict[str, tuple[float, float, float]] = {}
    for split in ("train", "val"):
        rows = run.records.filter(
            (pl.col("split") == split) & pl.col("loss").is_not_null() & pl.col("loss_before").is_not_null()
        )
        if rows.height < MIN_RECORDS:
            return None
        gain, se = _mean(rows.select(pl.col("loss_before") - pl.col("loss")).to_series(), rows["n_target_tokens"])
        gains[split] = (gain, se, _mean(rows["loss"], rows["n_target_tokens"])[0])
    (train, train_se, train_loss), (val, val_se, val_loss) = gains["train"], gains["val"]
    return {
        "growth": round(train - val, 4),
        "se": round(math.hypot(train_se, val_se), 4),
        "train": round(train_loss, 4),
        "val": round(val_loss, 4),
    }


def _mean(values: pl.Series, targets: pl.Series) -> tuple[float, float]:
    """Give the mean over all targets, and its standard error with records as what was drawn (a ratio estimate)."""
    value, weight = values.to_numpy(), targets.fill_null(1).cast(pl.Float64).to_numpy()
    mean = float((value * weight).sum() / max(weight.sum(), 1e-12))
    se = math.sqrt(float(((weight * (value - mean)) ** 2).sum())) / max(float(weight.sum()), 1e-12)
    return mean, se * math.sqrt(len(value) / max(len(value) - 1, 1))


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


# under-fitting


def _under_fitting(run: RunFiles, *, risen: bool) -> Iterator[Finding]:
    val = run.evaluations
    if len(val) < 2 or val.step[0] != 0 or not run.ended:
        return
    start, low = float(val.value[0]), float(val.value.min())
    rate = run.settings.get("lr")
    higher = f"--lr {float(rate) * 5:g}" if isinstance(rate, float) else "a higher --lr"
    if start - low < LEARNT:
        paired = _paired(run)
        yield Finding(
            "under-fitting",
            "problem" if start - low < SMALL else "warning",
            f"The validation loss has hardly moved: {start:.3f} before training, {low:.3f} at its lowest.",
            {"fall": round(start - low, 4), "start": round(start, 4), "lowest": round(low, 4), **paired},
            f"Raise the rate ({higher}), train for more steps, or train more weights (a higher --lora-r, --method "
            f"full). At perplexity {_perplexity(start)} the base model may also know this data already.",
        )
    elif len(val) >= MIN_EVALUATIONS and not risen:
        yield from _unfinished_fall(val, higher)


def _unfinished_fall(val: Curve, higher: str) -> Iterator[Finding]:
    """The loss falls to the end, or it has long been at rest, and high."""
    start, last, end = float(val.value[0]), float(val.value[-1]), float(val.step[-1])
    noise = rise_of(val).noise
    late = val.at(0.75 * end) - last
    if late >= max(LEARNT, SURE * noise, STEEP * (start - last)):
        yield Finding(
            "under-fitting",
            "warning",
            f"The loss was still falling when the run ended: {late / (start - last):.0%} of the whole fall came in "
            f"its last quarter ({last + late:.3f} to {last:.3f}).",
            {"late_fall": round(late, 4), "whole_fall": round(start - last, 4), "noise": round(noise, 4)},
            f"Train about twice as long (--max-epochs, or --max-steps {2 * int(end)}), or at a higher rate ({higher}).",
        )
    rest = val.at(0.5 * end) - last
    if last > math.log(PLATEAU_PERPLEXITY) and abs(rest) < max(SMALL, noise, REST * (start - last)):
        yield Finding(
            "under-fitting",
            "warning",
            f"The loss came to rest early and high: perplexity {_perplexity(last)} at the end, and half-way "
            f"{_perplexity(last + rest)}.",
            {"second_half_fall": round(rest, 4), "loss": round(last, 4), "noise": round(noise, 4)},
            f"Raise the rate ({higher}), train more weights (a higher --lora-r, --method full), take a larger base "
            "model, and look at the records with the highest loss.",
        )


def _paired(run: RunFiles) -> dict[str, Any]:
    """Give the mean gain of the validation records, with its standard error, where both losses are known."""
    if run.records is None:
        return {}
    rows = run.records.filter(
        (pl.col("split") == "val") & pl.col("loss").is_not_null() & pl.col("loss_before").is_not_null()
    )
    if rows.height < 2:
        return {}
    gain, se = _mean(rows.select(pl.col("loss_before") - pl.col("loss")).to_series(), rows["n_target_tokens"])
    return {"gain": round(gain, 4), "gain_se": round(se, 4), "records": rows.height}


def _perplexity(loss: float) -> str:
    return f"{math.exp(min(loss, 60)):,.1f}"


# instability


def _instability(run: RunFiles) -> Iterator[Finding]:
    train = run.curve("loss")
    rate = run.settings.get("lr")
    lower = f"--lr {float(rate) / 3:g}" if isinstance(rate, float) else "a lower --lr"
    if run.not_finite:
        yield Finding(
            "instability",
            "problem",
            f"The loss is no number at step {run.not_finite[0]}"
            + (f", and at {len(run.not_finite) - 1} later ones." if len(run.not_finite) > 1 else "."),
            {"steps": list(run.not_finite[:20])},
            f"Lower the rate ({lower}) or --clip, warm up for longer, and look at that step's records in spikes.jsonl.",
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
            f"{len(late)} of {len(train)} steps changed nothing: their fp16 gradients overflowed.",
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
    confirmed = not len(val) or float(val.value[-1] - val.value.min()) >= LEAP
    began = float(np.median(train.value[:3]))
    peak = int(np.argmax(means.value))
    over = float(means.value[peak]) - began
    hard_first = run.settings.get("curriculum") is not None  # an order by difficulty moves the loss by itself
    if risen >= least and confirmed:
        yield Finding(
            "instability",
            "problem",
            f"Training broke: its mean loss was {means.value[lowest]:.3f} at step {int(means.step[lowest])} and is "
            f"{means.value[-1]:.3f} at the end.",
            {"risen": round(risen, 4), "noise": round(noise, 4), "lowest_step": int(means.step[lowest])},
            f"Lower the rate ({lower}), warm up for longer (--warmup-ratio 0.1), and use best/.",
        )
    elif over >= least and not hard_first:
        yield Finding(
            "instability",
            "warning",
            f"The loss rose above its start before it fell: {began:.3f} at first, {means.value[peak]:.3f} on average "
            f"around step {int(means.step[peak])}, {means.value[-1]:.3f} at the end.",
            {"over_start": round(over, 4), "noise": round(noise, 4), "peak_step": int(means.step[peak])},
            f"Lower the rate ({lower}) or warm up for longer (--warmup-ratio 0.1): what was unlearnt there is not "
            "all learnt again.",
        )


def _spikes(run: RunFiles, lower: str) -> Iterator[Finding]:
    if not run.spikes:
        return
    count, steps = len(run.spikes), max(len(run.curve("loss")), 1)
    named = Counter(record.id for spike in run.spikes for record in spike.records[:3])
    often = [record for record, _ in named.most_common(5)]
    worst = max(run.spikes, key=lambda s: (s.loss or 0.0) - (s.expected or 0.0))
    leapt = f": at step {worst.step} to {worst.loss:.2f}" if worst.loss is not None else ""
    expected = f", where {worst.expected:.2f} was expected" if leapt and worst.expected is not None else ""
    look = f"Look at these records: {', '.join(record[:12] for record in often)} (sft why REF ID)" if often else ""
    many = count >= 3 and count > SHARE_OF_STEPS * steps
    yield Finding(
        "instability",
        "warning" if many else "note",
        f"The loss leapt at {count} of {steps} steps{leapt}{expected}."
        if count > 1
        else f"The loss leapt once{leapt}{expected}.",
        {"spikes": [s.step for s in run.spikes[:20]], "count": count, "records": often},
        f"{look}; where they are sound, lower the rate ({lower}) or --clip."
        if look
        else f"Lower the rate ({lower}) or --clip.",
    )


def _explosions(run: RunFiles, lower: str) -> Iterator[Finding]:
    norm = run.curve("grad_norm")
    if len(norm) < MIN_STEPS:
        return
    later = between(norm, WARMED * float(norm.step[-1]), float(norm.step[-1]))
    usual = float(np.median(later.value))
    wild = later.step[later.value > EXPLOSION * max(usual, 1e-12)]
    if len(wild) >= 3 and len(wild) > SHARE_OF_STEPS * len(later):
        yield Finding(
            "instability",
            "warning",
            f"The gradient norm was more than {EXPLOSION:g} times its median of {usual:.2f} at {len(wild)} steps, "
            f"{float(later.value.max()):.1f} at most.",
            {"steps": [int(step) for step in wild[:20]], "count": len(wild), "median": round(usual, 4)},
            f"Lower the rate ({lower}), --clip or --beta2, and look at the records of those steps.",
        )


# forgetting


def _forgetting(run: RunFiles) -> Iterator[Finding]:
    general = run.general
    if general:
        change = general.after - general.before
        se = general.se if general.se is not None else PAIRED_SD / math.sqrt(max(general.records, 1))
        if change >= FORGOTTEN[0] and change >= SURE * se:
            level: Level = LEVELS[sum(change >= bound for bound in FORGOTTEN)]
            yield Finding(
                "forgetting",
                level,
                f"On {general.reference or 'the general set'} perplexity went from {_perplexity(general.before)} to "
                f"{_perplexity(general.after)}, {math.expm1(min(change, 60)):+.0%}, over {general.records:,} records.",
                {
                    "change": round(change, 4),
                    "se": round(se, 4),
                    "records": general.records,
                    "before": round(general.before, 4),
                    "after": round(general.after, 4),
                },
                f"Mix general rows into training (--replay {general.reference.partition('@')[0] or 'REF'}:0.15), lower "
                "the rate, or train adapters (--method lora) for fewer epochs.",
            )
    yield from _worse_sources(run)


def _worse_sources(run: RunFiles) -> Iterator[Finding]:
    """A source of the validation split is worse than before training while the mean of all improved."""
    if run.records is None:
        return
    known = run.records.filter(
        (pl.col("split") == "val") & pl.col("loss").is_not_null() & pl.col("loss_before").is_not_null()
    ).with_columns(change=pl.col("loss") - pl.col("loss_before"))
    if known["source"].n_unique() < 2 or _mean(known["change"], known["n_target_tokens"])[0] >= 0:
        return
    for (source,), rows in sorted(known.partition_by("source", as_dict=True).items()):
        change, se = _mean(rows["change"], rows["n_target_tokens"])
        if rows.height >= MIN_RECORDS and change >= max(FORGOTTEN[0], SURE * se):
            yield Finding(
                "forgetting",
                "warning",
                f"Source {source} is worse than before training, by {change:.3f} nats over {rows.height:,} validation "
                "records, while the mean of all sources improved.",
                {"source": source, "change": round(change, 4), "se": round(se, 4), "records": rows.height},
                f"Look at the train rows of {source} with the highest loss: they may contradict its validation rows, "
                "or be too few among the others (sft curate select).",
            )


# too little known, or all well


def _inconclusive(run: RunFiles) -> Iterator[Finding]:
    val, steps = run.evaluations, run.curve("loss")
    records = _val_records(run)
    done = int(steps.step[-1]) if len(steps) else 0
    if not run.ended:
        yield _unknown(
            f"The run has not ended: its last step is {done}.",
            {"steps": done},
            f"Go on with it: sft train --resume --out {run.path}",
        )
    elif not len(val):
        yield _unknown(
            "Nothing was measured on validation records.",
            {"evaluations": 0},
            "Give the dataset a validation split (sft curate split): without one nobody sees over-fitting.",
        )
    elif len(val) < MIN_EVALUATIONS:
        yield _unknown(
            f"{len(val)} evaluations are too few to tell a trend from noise.",
            {"evaluations": len(val)},
            f"Evaluate more often (--eval-every {max(1, done // 10)}).",
        )
    elif records is not None and records < MIN_RECORDS:
        yield _unknown(
            f"{records} validation {'record is' if records == 1 else 'records are'} too few to judge by.",
            {"val_records": records},
            "Put more rows into the validation split (sft curate split), or into the dataset.",
        )


def _unknown(found: str, evidence: dict[str, Any], advice: str) -> Finding:
    return Finding("inconclusive", "note", found, evidence, advice)


def _healthy(run: RunFiles) -> Finding:
    val = run.evaluations
    start, last = float(val.value[0]), float(val.value[-1])
    slope = slope_of(between(val, float(val.step[-1]) / 2, float(val.step[-1])))
    evidence: dict[str, Any] = {
        "val_loss": [round(start, 4), round(last, 4)],
        "evaluations": len(val),
        "slope_per_step": slope.per_step,
        **({"slope_se": slope.se} if math.isfinite(slope.se) else {}),
    }
    if gap := _gap(run):
        evidence["gap"] = gap
    return Finding(
        "healthy",
        "ok",
        f"The validation loss fell from {start:.3f} to {last:.3f} (perplexity {_perplexity(start)} to "
        f"{_perplexity(last)}) and stayed down; nothing leapt, and nothing that was measured got worse.",
        evidence,
        f"Look at its answers: sft eval {run.path}",
    )


def _val_records(run: RunFiles, source: str | None = None) -> int | None:
    """Give how many validation records there are; None where no file says."""
    if run.records is not None:
        own = run.records.filter(pl.col("split") == "val")
        return own.height if source is None else own.filter(pl.col("source") == source).height
    said = run.preflight.get("val_records")
    return said if isinstance(said, int) and source is None else None
