"""What a finished run leaves: final and best weights, the loss of each record, and the figures that sum it up."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from train.evaluation.losses import Evaluation
from train.evaluation.samples import Sample
from train.preflight.report import Preflight
from train.run import forgetting
from train.run.budget import cost
from train.run.checkpoint import Cursor
from train.run.forgetting import Forgetting, General
from train.run.measuring import score
from train.run.parts import Run
from train.run.records import Before, write_records
from train.run.weights import save_weights


@dataclass(frozen=True, slots=True)
class Ending:
    """Where a run ended, and the validation split before and after; None without validation records.

    `seconds` are those of the whole run, all its parts together, and `cost` what they cost; None without a price.
    """

    cursor: Cursor
    before: Evaluation | None
    after: Evaluation | None
    forgetting: Forgetting | None = None
    seconds: float = 0.0
    cost: float | None = None

    def facts(self) -> dict[str, Any]:
        """Give what run.json and the store remember. Losses are nats per target."""
        before, after = self.before, self.after
        return {
            "steps": self.cursor.step,
            "tokens": self.cursor.tokens,
            "train_seconds": round(self.cursor.seconds, 3),
            "seconds": round(self.seconds, 3),
            "cost": None if self.cost is None else round(self.cost, 4),
            "loss_first": self.cursor.first_loss,
            "loss_last": self.cursor.last_loss,
            "val_loss_first": before.overall.loss if before else None,
            "val_loss_last": after.overall.loss if after else None,
            "val_perplexity_first": before.overall.perplexity if before else None,
            "val_perplexity_last": after.overall.perplexity if after else None,
            "val_loss_by_source": {source: found.loss for source, found in after.by_source.items()} if after else {},
            "best_step": self.cursor.best_step,
            "ended_by": self.cursor.ended_by,
            "stopped_early": self.cursor.ended_by == "patience",
            "spikes": self.cursor.spikes,
            "general": self.forgetting.to_json() if self.forgetting else None,
        }


@dataclass(frozen=True, slots=True)
class Result:
    """A finished run: its folder, what was checked before and found after, and how long it took in all."""

    folder: Path
    run_id: str
    preflight: Preflight
    ending: Ending
    samples: tuple[Sample, ...]
    seconds: float
    facts: dict[str, Any]


def save(
    run: Run,
    cursor: Cursor,
    *,
    before: Before,
    first: Evaluation | None,
    last: Evaluation | None,
    general: General | None,
) -> Ending:
    """Write final/, best/ where no evaluation did, records.arrow and general.json with the losses of the final weights.

    `first` and `last` are the validation split before step 0 and after the last one.
    """
    folder = run.folder.path
    save_weights(run.trainee, folder / "final")
    if cursor.best_step is None:
        save_weights(run.trainee, folder / "best")
    learnt = score(run, run.train, "scoring records") if run.config.score_train else None
    write_records(
        run.folder,
        train=run.train,
        val=run.val,
        before=before,
        after=(learnt, last.records if last else None),
        seen=run.plan.seen(len(run.examples), cursor.step),
        replayed=run.examples.chosen(np.arange(len(run.train), len(run.examples))),
    )
    forgotten = None
    if general is not None:
        forgotten = forgetting.measure(run.folder, general, lambda some: score(run, some, "general set"), first=False)
    seconds = run.clock.seconds()
    return Ending(cursor, first, last, forgotten, seconds, cost(run.config, seconds))
