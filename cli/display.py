"""How a run, or other long work of the trainer, is shown while it goes on."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from cli.render import console, say

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from train.evaluation.losses import Evaluation
    from train.run.reading import StepMetrics

PLAIN_LINES = 10
"""Lines about steps that a run prints where there is no terminal."""


class Display(AbstractContextManager["Display"]):
    """Shows a run on stderr: bars with loss, tokens/s and time left on a terminal, else plain lines; or nothing."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.notes: list[str] = []
        self.bars: Progress | None = None
        self.steps: TaskID | None = None
        self.last_work: TaskID | None = None

    def __enter__(self) -> "Display":
        if not self.quiet and sys.stderr.isatty():
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            self.bars = Progress(
                TextColumn("{task.description:<16}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[told]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=console(stderr=True),
                transient=True,
            )
            self.bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the bars away, so that other lines can be printed."""
        if self.bars:
            self.bars.stop()

    def note(self, line: str) -> None:
        """Say one line about the run, and keep it."""
        self.notes.append(line)
        if not self.quiet:
            say(line)

    def work(self, what: str, total: int) -> Callable[[int], None]:
        """Show work other than training: at most one bar of it at a time."""
        bars = self.bars
        if bars is None:
            return lambda _: None
        if self.last_work is not None:
            bars.remove_task(self.last_work)
        task = self.last_work = bars.add_task(what, total=total or None, told="", visible=True)

        def advance(done: int) -> None:
            bars.advance(task, done)
            if bars.tasks and total and any(t.id == task and t.finished for t in bars.tasks):
                bars.update(task, visible=False)

        return advance

    def step(self, metrics: "StepMetrics") -> None:
        """Show a step."""
        told = f"loss {metrics.loss:.3f}  {metrics.tokens_per_s:,.0f} tokens/s"
        if self.bars:
            if self.steps is None:
                self.steps = self.bars.add_task("training", total=metrics.total, completed=metrics.step - 1, told="")
            self.bars.update(self.steps, completed=metrics.step, told=told)
        elif not self.quiet and metrics.step % max(1, metrics.total // PLAIN_LINES) == 0:
            say(f"step {metrics.step}/{metrics.total}  {told}")

    def evaluated(self, found: "Evaluation") -> None:
        """Say what an evaluation found."""
        from train.verdict.finding import perplexity

        loss = found.overall.loss
        self.note(f"step {found.step}: validation loss {loss:.3f}, perplexity {perplexity(loss)}")
