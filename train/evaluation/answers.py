"""What a finished run's model and its base model answer to the same prompts, so that people can compare them.

The prompt is the conversation before its last answer, which is the reference. Answers are greedy, so the same run gives
the same ones.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from schemas.record import Record, last_answer
from schemas.review_config import AnswerConfig
from train.evaluation.generation import Answer, generate
from train.evaluation.pair import Pair, in_its_precision
from train.evaluation.samples import prompt_ids
from train.model.trainee import Trainee
from train.run.folder import RunFolder
from train.run.parts import Listener
from train.step import attention
from train.step.memory import free
from train.text.template import Template, encode


@dataclass(frozen=True, slots=True)
class Answered:
    """One prompt, by the id of its record, with the answers of the tuned and the base model."""

    id: str
    tuned: Answer
    base: Answer


@dataclass(frozen=True, slots=True)
class Answers:
    """What was answered, in the order of the records, and the records that could not be asked, by reason."""

    answered: tuple[Answered, ...]
    skipped: dict[str, int]


@dataclass(frozen=True, slots=True)
class Asked:
    """A record that can be asked: the turn that is its reference, and the token ids of what stands before it."""

    record: Record
    turn: int
    prompt: list[int]


def answer(
    folder: RunFolder, records: Sequence[Record], config: AnswerConfig, *, count: int, listener: Listener
) -> Answers:
    """Answer the prompts of the first `count` records that can be asked, with the tuned model and with its base.

    Raises what `RunFolder.finished` raises, ModelError for weights that cannot be loaded or are not those of the run,
    ConfigError for the device.
    """
    pair = Pair.open(folder, device=config.device, precision=config.precision)
    tuned, template = pair.tuned()
    asked, skipped = _first(records, template, tuned, config.new_tokens, count)
    said_tuned = _say(tuned, template, asked, config, listener.work("answers, tuned", len(asked)))
    del tuned
    free()
    base = pair.base()
    said_base = _say(base, template, asked, config, listener.work("answers, base", len(asked)))
    del base
    free()
    pairs = zip(asked, said_tuned, said_base, strict=True)
    return Answers(tuple(Answered(a.record.id, t, b) for a, t, b in pairs), dict(skipped))


def ask(record: Record, template: Template, model: Trainee, *, new_tokens: int) -> Asked | str:
    """Render the prompt of a record's last answer; or say why it cannot be asked: no text to compare with, no room."""
    limit, _ = attention.context(model.network.config)
    turn = last_answer(record.messages)
    if turn is None:
        return "the last answer is no text"
    if refusals := encode([record], template, max_tokens=1 << 30, strict=False).refusals:
        return f"cannot be rendered ({refusals[0].reason})"
    ids = prompt_ids(record, turn, template)
    if limit is not None and len(ids) + new_tokens > limit:
        return f"no room for {new_tokens} more tokens in the model's context of {limit}"
    return Asked(record, turn, ids)


def _first(
    records: Sequence[Record], template: Template, model: Trainee, new_tokens: int, count: int
) -> tuple[list[Asked], Counter[str]]:
    asked: list[Asked] = []
    skipped: Counter[str] = Counter()
    for record in records:
        if len(asked) == count:
            break
        found = ask(record, template, model, new_tokens=new_tokens)
        if isinstance(found, str):
            skipped[found] += 1
        else:
            asked.append(found)
    return asked, skipped


def _say(
    model: Trainee, template: Template, asked: Sequence[Asked], config: AnswerConfig, done: Callable[[int], None]
) -> list[Answer]:
    return generate(
        in_its_precision(model),
        template,
        [a.prompt for a in asked],
        new_tokens=config.new_tokens,
        batch_tokens=config.batch_tokens,
        on_answers=done,
    )
