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
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from schemas.run_files import RunFiles, read_run
from train.run.folder import RunFolder
from train.verdict.finding import (
    LEARNT,
    LEVELS,
    MIN_EVALUATIONS,
    MIN_RECORDS,
    SURE,
    Finding,
    Kind,
    Level,
    broke,
    gap_of,
    mean_of,
    perplexity,
    sure_of_one_in,
    times_rate,
    val_records,
)
from train.verdict.fit import nothing_left, over_fitting, under_fitting
from train.verdict.instability import LEAP, instability
from train.verdict.trend import between, slope_of

FORGOTTEN = (0.02, 0.1, 0.3)
"""Nats of loss on the general set from which it is a note, a warning, a problem: 2%, 10% and 35% of perplexity."""
PAIRED_SD = 0.2
"""Spread of the change from record to record that is supposed where the file does not say it: one of the usual size
after fine-tuning (0.1 to 0.2 nats)."""


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
    unstable = list(instability(run))
    failed = any(finding.level == "problem" for finding in unstable)
    found = [*unstable, *over_fitting(run)]
    if not failed:  # what a broken run did not learn is no matter of too few steps
        found += under_fitting(run, over=any(finding.kind == "over-fitting" for finding in found))
        found += _worse(run) if not found else ()
    found += [*_forgetting(run), *_inconclusive(run)]
    if not found:
        found = [_healthy(run)]
    return tuple(sorted(found, key=lambda f: (-LEVELS.index(f.level), f.kind == "inconclusive")))


# forgetting


def _worse(run: RunFiles) -> Iterator[Finding]:
    """The validation loss ended above its start, and neither its course nor the training loss says why."""
    val = run.evaluations
    if len(val) < 2 or val.step[0] != 0:
        return
    start, last = float(val.value[0]), float(val.value[-1])
    few = len(val) < MIN_EVALUATIONS  # too few for a trend; so much worse in each of them is no noise
    if last - start < LEARNT or (few and float(val.value[1:].min()) - start < LEAP):
        return
    yield Finding(
        "instability",
        "problem",
        f"Validation is worse than before training: its loss went from {start:.3f} to {last:.3f}.",
        {"start": round(start, 4), "last": round(last, 4), "evaluations": len(val)},
        f"Lower the rate ({times_rate(run, 1 / 3)}), and compare the train records with the validation records.",
    )


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
                f"On {general.reference or 'the general set'} perplexity went from {perplexity(general.before)} to "
                f"{perplexity(general.after)}, {math.expm1(min(change, 7)):+,.0%}{' and more' if change > 7 else ''}, "
                f"over {general.records:,} records.",
                {
                    "change": round(change, 4),
                    "se": round(se, 4),
                    "records": general.records,
                    "before": round(general.before, 4),
                    "after": round(general.after, 4),
                },
                f"{_rehearse(run, general.reference)}, lower the rate, or "
                + (
                    "train adapters (--method lora)." if run.settings.get("method") == "full" else "train fewer epochs."
                ),
            )
    yield from _worse_sources(run)


def _rehearse(run: RunFiles, general: str) -> str:
    """Say how general rows get into training, or more of them."""
    if isinstance(given := run.settings.get("replay"), str) and given:
        return f"Mix more general rows into training (--replay {given} had too few or other ones)"
    return f"Mix general rows into training (--replay {general.partition('@')[0] or 'REF'}:0.15)"


def _worse_sources(run: RunFiles) -> Iterator[Finding]:
    """A source of the validation split is worse than before training while the mean of all improved."""
    if run.records is None:
        return
    known = run.records.filter(
        (pl.col("split") == "val") & pl.col("loss").is_not_null() & pl.col("loss_before").is_not_null()
    ).with_columns(change=pl.col("loss") - pl.col("loss_before"))
    if known["source"].n_unique() < 2 or mean_of(known["change"], known["n_target_tokens"])[0] >= 0:
        return
    sure = sure_of_one_in(known["source"].n_unique())
    for (source,), rows in sorted(known.partition_by("source", as_dict=True).items()):
        change, se = mean_of(rows["change"], rows["n_target_tokens"])
        if rows.height >= MIN_RECORDS and change >= max(FORGOTTEN[0], sure * se):
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
    if broke(run):  # what ended is no run that was too short
        return
    val, steps = run.evaluations, run.curve("loss")
    records = val_records(run)
    done = int(steps.step[-1]) if len(steps) else 0
    if not run.ended and not run.resumable:
        yield _unknown(
            "The run made no step: there is no run.json.",
            {"steps": done},
            f"The last lines of {run.path / 'training.log'} say why. Mend it, and start again with the same --out.",
        )
    elif not run.ended:
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
            f"{len(val)} {'evaluation is' if len(val) == 1 else 'evaluations are'} too few to tell a trend from noise.",
            {"evaluations": len(val)},
            f"Evaluate more often (--eval-every {done // 10})." if done >= 10 else "Train for more steps.",
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
    if gap := gap_of(run):
        evidence["gap"] = gap
    if nothing_left(run, start):
        return Finding(
            "healthy",
            "ok",
            f"There was nothing left to learn: the validation loss was {start:.3f} before training already (perplexity "
            f"{perplexity(start)}), and is {last:.3f}. Nothing leapt, and nothing that was measured got worse.",
            evidence,
            f"See whether the base model answers as well (sft eval {run.path}), and train on what it cannot do yet.",
        )
    return Finding(
        "healthy",
        "ok",
        f"The validation loss fell from {start:.3f} to {last:.3f} (perplexity {perplexity(start)} to "
        f"{perplexity(last)}) and stayed down; nothing leapt, and nothing that was measured got worse.",
        evidence,
        f"Look at its answers: sft eval {run.path}",
    )
