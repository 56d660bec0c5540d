"""What is measured before step 0, for the end to be compared with. A resumed run reads what was found."""

import time

from train.evaluation.losses import Evaluation, evaluation
from train.run import forgetting
from train.run.forgetting import General
from train.run.measuring import sample, score, tell
from train.run.parts import Run
from train.run.records import Before, read_before, write_before


def measure_before(run: Run, general: General | None) -> tuple[Before, Evaluation | None]:
    """Score the records and the general set under the base model, and answer the prompts.

    Gives the losses, and those of the validation split as an evaluation; None without validation records.
    """
    before = read_before(run.folder, run.train, run.val)
    if before is None:
        before = _measured(run, general)
        write_before(run.folder, before)  # last: a run that is killed before it measures all of it again
    return before, evaluation(0, before.val) if before.val is not None else None


def _measured(run: Run, general: General | None) -> Before:
    started = time.monotonic()
    begun = any(line["step"] for line in run.folder.metrics())  # the losses were lost later: what was told stays
    if not begun:
        run.folder.rewind(-1)
    val = score(run, run.val, "before training") if run.val else None
    if val is not None and not begun:
        found = evaluation(0, val)
        run.folder.metric(found.metrics())
        tell(run, found)
    if not begun:
        sample(run, 0)
    if general is not None:
        forgetting.measure(run.folder, general, lambda some: score(run, some, "general set"), first=True)
    train = score(run, run.train, "scoring records") if run.config.score_train else None
    return Before(train, val, time.monotonic() - started)
