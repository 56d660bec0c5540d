"""What is measured of the weights during a run: losses of records, answers to prompts. A signal ends it at once."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

from train.evaluation.losses import Evaluation, Losses, evaluation, record_losses
from train.evaluation.samples import answer
from train.run.parts import Run
from train.step import processes
from train.text.tokens import Example


def evaluate(run: Run, step: int, caught: Sequence[int] = ()) -> Evaluation:
    """Score the validation split, which has at least one record; write its metrics and tell of it."""
    found = evaluation(step, score(run, run.val, "validation", caught))
    run.measured(found.metrics())
    tell(run, found)
    return found


def tell(run: Run, found: Evaluation) -> None:
    """Write what an evaluation found into the log, and tell of it."""
    overall = found.overall
    run.folder.log(f"step {found.step}: validation loss {overall.loss:.4f}, perplexity {overall.perplexity:.2f}")
    run.listener.evaluated(found)


def sample(run: Run, step: int, caught: Sequence[int] = ()) -> None:
    """Answer the run's prompts, and add the answers to samples.jsonl."""
    if run.template is None or not run.prompts:
        return
    said = answer(
        run.trainee,
        run.template,
        run.prompts,
        step=step,
        new_tokens=run.config.sample_tokens,
        on_answers=unless(caught, lambda _: None),
    )
    for one in said:
        run.folder.append("samples.jsonl", asdict(one))


def score(run: Run, examples: Sequence[Example], what: str, caught: Sequence[int] = ()) -> Losses:
    """Give the loss of each example under the current weights; whoever listens hears of it as work named `what`."""
    return record_losses(
        run.trainee,
        examples,
        max_tokens=run.plan.max_tokens,
        micro_batch=run.config.micro_batch,
        on_records=unless(caught, run.listener.work(what, len(examples))),
    )


class SignalledError(Exception):
    """A signal came while something was measured."""


def unless(caught: Sequence[int], tell: Callable[[int], None]) -> Callable[[int], None]:
    """Pass on what is told, and stop once a signal has come."""

    def told(done: int) -> None:
        if processes.any_of(said=bool(caught)):
            raise SignalledError
        tell(done)

    return told
