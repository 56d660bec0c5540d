"""What a finished run leaves: final and best weights, the loss of each record, and the figures that sum it up."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc

from train.evaluation.losses import Evaluation, RecordLoss
from train.evaluation.samples import Sample
from train.run.checkpoint import Cursor
from train.run.folder import whole_file
from train.run.loop import Run, save_weights, score
from train.run.preflight import Preflight


@dataclass(frozen=True, slots=True)
class Ending:
    """Where a run ended, and the validation split before and after; None without validation records."""

    cursor: Cursor
    before: Evaluation | None
    after: Evaluation | None

    def facts(self) -> dict[str, Any]:
        """Give what run.json and the store remember. Losses are nats per target."""
        before, after = self.before, self.after
        return {
            "steps": self.cursor.step,
            "tokens": self.cursor.tokens,
            "train_seconds": round(self.cursor.seconds, 3),
            "loss_first": self.cursor.first_loss,
            "loss_last": self.cursor.last_loss,
            "val_loss_first": before.overall.loss if before else None,
            "val_loss_last": after.overall.loss if after else None,
            "val_perplexity_first": before.overall.perplexity if before else None,
            "val_perplexity_last": after.overall.perplexity if after else None,
            "val_loss_by_source": {source: found.loss for source, found in after.by_source.items()} if after else {},
            "best_step": self.cursor.best_step,
            "stopped_early": self.cursor.stopped,
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


def save(run: Run, ending: Ending) -> None:
    """Write final/, best/ where no evaluation did, and records.arrow with the losses of the final weights."""
    folder = run.folder.path
    save_weights(run.trainee, folder / "final")
    if ending.cursor.best_step is None:
        save_weights(run.trainee, folder / "best")
    _write_records(folder / "records.arrow", score(run, run.train, "scoring records"), ending)


def _write_records(path: Path, fitted: Sequence[RecordLoss], ending: Ending) -> None:
    """Write one row per record: mean loss of the final weights in nats; for split val also that before training."""
    first = {r.id: r.mean for r in ending.before.records} if ending.before else {}
    rows = [("train", r, None) for r in fitted]
    rows += [("val", r, first.get(r.id)) for r in (ending.after.records if ending.after else ())]
    table = pa.table(
        {
            "id": pa.array([r.id for _, r, _ in rows], pa.string()),
            "source": pa.array([r.source for _, r, _ in rows], pa.string()),
            "split": pa.array([split for split, _, _ in rows], pa.string()),
            "n_target_tokens": pa.array([r.targets for _, r, _ in rows], pa.int64()),
            "loss": pa.array([r.mean for _, r, _ in rows], pa.float64()),
            "loss_before": pa.array([before for _, _, before in rows], pa.float64()),
        }
    )
    with whole_file(path) as place, pyarrow.ipc.new_file(str(place), table.schema) as writer:
        writer.write_table(table)
