"""A finding about a run, and what all rules share: when a difference counts, and how records are averaged."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import polars as pl

from schemas.run_files import RunFiles
from schemas.train_config import FULL_LR, LORA_LR, TINY, TINY_DEFAULTS

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
LEARNT = 0.02
"""Nats by which the validation loss must fall for a run to have taught anything: 2% of perplexity."""
CHANCE = 0.05
"""How likely chance may be to make any finding of a family that is looked at together, as over all sources."""
SMALL = 0.01
"""Nats that do not matter: 1% of perplexity, less than runs of other seeds differ by."""


FAR = 10.0
"""Times the usual learning rate that sound runs still have: a small model wants a higher one than a large one does."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is so: in a sentence, with the numbers behind it, and what to change."""

    kind: Kind
    level: Level
    found: str
    evidence: dict[str, Any]
    advice: str


def gap_of(run: RunFiles) -> dict[str, float] | None:
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
        gain, se = mean_of(rows.select(pl.col("loss_before") - pl.col("loss")).to_series(), rows["n_target_tokens"])
        gains[split] = (gain, se, mean_of(rows["loss"], rows["n_target_tokens"])[0])
    (train, train_se, train_loss), (val, val_se, val_loss) = gains["train"], gains["val"]
    return {
        "growth": round(train - val, 4),
        "se": round(math.hypot(train_se, val_se), 4),
        "train": round(train_loss, 4),
        "val": round(val_loss, 4),
    }


def mean_of(values: pl.Series, targets: pl.Series) -> tuple[float, float]:
    """Give the mean over all targets, and its standard error with records as what was drawn (a ratio estimate)."""
    value, weight = values.to_numpy(), targets.fill_null(1).cast(pl.Float64).to_numpy()
    mean = float((value * weight).sum() / max(weight.sum(), 1e-12))
    se = math.sqrt(float(((weight * (value - mean)) ** 2).sum())) / max(float(weight.sum()), 1e-12)
    return mean, se * math.sqrt(len(value) / max(len(value) - 1, 1))


def sure_of_one_in(many: int) -> float:
    """Give the standard errors from which one of many differences is taken for real: chance makes one of them so large
    as often as it does for `SURE` and one alone (Bonferroni)."""
    return -NormalDist().inv_cdf(NormalDist().cdf(-SURE) / max(many, 1))


def beyond_chance(chances: Sequence[float]) -> list[bool]:
    """Say of each of several tests whether it holds, so that chance makes any of them hold in `CHANCE` of all runs at
    most, however many there are. `chances`: how likely chance makes each as large as it is (Holm 1979)."""
    held = [False] * len(chances)
    for rank, i in enumerate(sorted(range(len(chances)), key=chances.__getitem__)):
        if chances[i] > CHANCE / (len(chances) - rank):
            break
        held[i] = True
    return held


def broke(run: RunFiles) -> list[int]:
    """Give the steps at which a loss or a gradient, of training or validation, was infinite or no number."""
    spikes = (spike.step for spike in run.spikes if spike.expected is None)
    return sorted({*run.not_finite, *run.val_not_finite, *spikes})


def val_records(run: RunFiles, source: str | None = None) -> int | None:
    """Give how many validation records there are; None where no file says."""
    if run.records is not None:
        own = run.records.filter(pl.col("split") == "val")
        return own.height if source is None else own.filter(pl.col("source") == source).height
    said = run.preflight.get("val_records")
    return said if isinstance(said, int) and source is None else None


def perplexity(loss: float) -> str:
    """Write the perplexity of a loss; as a power of e where it has more than six digits."""
    return f"{math.exp(loss):,.1f}" if loss < math.log(1e6) else f"e^{loss:.0f}"


def times_rate(run: RunFiles, factor: float) -> str:
    """Name the learning rate times a factor, as an option to type; "a higher --lr" where the run's is not known.

    Where that would still be `FAR` from the rate that is usual for the run's model and method, the usual one is named.
    """
    method, rate = run.settings.get("method"), run.settings.get("lr")
    usual = None if method is None else FULL_LR if method == "full" else LORA_LR
    if run.settings.get("model") == TINY:
        usual = float(TINY_DEFAULTS["lr"])
    rate = usual if rate is None else rate
    if not isinstance(rate, float | int) or rate <= 0:
        return "a higher --lr" if factor > 1 else "a lower --lr"
    told = rate * factor
    if usual and (told * FAR < usual if factor > 1 else told > usual * FAR):
        told = usual
    return f"--lr {float(f'{told:.2g}'):g}"


def more_weights(run: RunFiles) -> str:
    """Name the way to train more weights than the run did."""
    if run.settings.get("method") == "full":
        return "take a larger base model"
    return "train more weights (a higher --lora-r, --method full)"
