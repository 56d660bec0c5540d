"""What a run is made of, and who watches it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from schemas.train_config import TrainConfig
from train.evaluation.losses import Evaluation
from train.evaluation.samples import Prompt
from train.model.trainee import Trainee
from train.plan import Plan
from train.run.budget import Clock
from train.run.checkpoint import Identity
from train.run.folder import RunFolder
from train.run.reading import StepMetrics
from train.run.track import Tracker
from train.text.template import Template
from train.text.tokens import Tokens


class Listener(Protocol):
    """Whoever watches a run: the command line, or a test. Raising from it ends the run as a kill would."""

    def note(self, line: str) -> None:
        """Hear one line about the run."""
        ...

    def work(self, what: str, total: int) -> Callable[[int], None]:
        """Hear that work of `total` units begins; what is given back hears of the units done."""
        ...

    def step(self, metrics: StepMetrics) -> None:
        """Hear of an optimizer step."""
        ...

    def evaluated(self, found: Evaluation) -> None:
        """Hear of an evaluation on the validation split."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Everything that a run is made of, known before step 0. `reserve`: seconds that its ending will take."""

    config: TrainConfig
    trainee: Trainee
    plan: Plan
    train: Tokens
    val: Tokens
    identity: Identity
    folder: RunFolder
    listener: Listener
    resume_with: str
    read: Tokens | None = None
    template: Template | None = None
    prompts: tuple[Prompt, ...] = ()
    trackers: tuple[Tracker, ...] = ()
    clock: Clock = field(default_factory=Clock)
    reserve: float = 0.0

    @property
    def examples(self) -> Tokens:
        """What the plan's indices are of: the records of train, and after them those that are replayed."""
        return self.train if self.read is None else self.read

    def say(self, line: str) -> None:
        """Write a line to the log and to whoever listens."""
        self.folder.log(line)
        self.listener.note(line)

    def measured(self, line: dict[str, Any]) -> None:
        """Write a line of metrics to the folder, and to the dashboards that were asked for."""
        self.folder.metric(line)
        for tracker in self.trackers:
            tracker.write(line)
