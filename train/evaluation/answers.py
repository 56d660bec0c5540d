"""What a finished run's model and its base model answer to the same prompts, so that people can compare them.

Both read the prompt as the run rendered it: the run's own tokenizer, chat template and stop tokens. The prompt is the
conversation before its last answer, which is the reference. Answers are greedy, so the same run gives the same ones.
"""

import gc
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import torch

from schemas.errors import ModelError
from schemas.record import Record, last_answer
from schemas.review_config import AnswerConfig
from schemas.train_config import TrainConfig
from train.evaluation.generation import Answer, generate
from train.evaluation.samples import prompt_ids
from train.model.load import TINY, Base, adapt, load_base
from train.model.tuned import load_trained
from train.run.folder import RunFolder
from train.run.loop import Listener
from train.step import attention
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
class _Asked:
    record: Record
    prompt: list[int]


def answer(
    folder: RunFolder, records: Sequence[Record], config: AnswerConfig, *, count: int, listener: Listener
) -> Answers:
    """Answer the prompts of the first `count` records that can be asked, with the tuned model and with its base.

    Raises what `RunFolder.finished` raises, ModelError for weights that cannot be loaded or are not those of the run,
    ConfigError for the device.
    """
    facts = folder.finished()
    settings = TrainConfig.model_validate(folder.read_json("config.json")["train"])
    settings = settings.model_copy(update={"device": config.device, "precision": config.precision})
    tuned = load_trained(settings.model_copy(update={"model": str(folder.path)}))
    template = Template(tuned.tokenizer, tuned.name)
    found = blake2b(template.text.encode(), digest_size=16).hexdigest()
    _same("chat template", found, facts["identity"]["template"], folder)
    asked, skipped = _ask(records, template, tuned, config, count)
    done = listener.work("answers, tuned", len(asked))
    said_tuned = _say(tuned, template, asked, config=config, settings=settings, done=done)
    del tuned
    _free()
    base = load_base(settings, (), tiny_base=folder.base) if settings.model == TINY else load_base(settings, ())
    _same("base model", base.digest, facts["identity"]["base"], folder)
    done = listener.work("answers, base", len(asked))
    said_base = _say(base, template, asked, config=config, settings=settings, done=done)
    del base
    _free()
    pairs = zip(asked, said_tuned, said_base, strict=True)
    return Answers(tuple(Answered(a.record.id, t, b) for a, t, b in pairs), dict(skipped))


def _ask(
    records: Sequence[Record], template: Template, model: Base, config: AnswerConfig, count: int
) -> tuple[list[_Asked], Counter[str]]:
    """Render the prompts of the first records that have a text to compare with, and room for the answer."""
    limit, _ = attention.context(model.model.config)
    asked: list[_Asked] = []
    skipped: Counter[str] = Counter()
    for record in records:
        if len(asked) == count:
            break
        turn = last_answer(record.messages)
        if turn is None:
            skipped["the last answer is no text"] += 1
        elif refusals := encode([record], template, max_tokens=1 << 30, strict=False).refusals:
            skipped[f"cannot be rendered ({refusals[0].reason})"] += 1
        else:
            ids = prompt_ids(record, turn, template)
            if limit is not None and len(ids) + config.new_tokens > limit:
                skipped[f"no room for {config.new_tokens} more tokens in the model's context of {limit}"] += 1
            else:
                asked.append(_Asked(record, ids))
    return asked, skipped


def _say(
    model: Base,
    template: Template,
    asked: Sequence[_Asked],
    *,
    config: AnswerConfig,
    settings: TrainConfig,
    done: Callable[[int], None],
) -> list[Answer]:
    # Nothing is trained, so there are no adapters: those of the run are merged.
    trainee = adapt(model, settings.model_copy(update={"method": "full", "checkpointing": "none"}))
    return generate(
        trainee,
        template,
        [a.prompt for a in asked],
        new_tokens=config.new_tokens,
        batch_tokens=config.batch_tokens,
        on_answers=done,
    )


def _same(what: str, found: str, expected: str, folder: RunFolder) -> None:
    if found != expected and "unknown" not in expected:
        raise ModelError(
            f"run {folder.path}",
            f"its {what} is another one now ({found[:16]}, and {expected[:16]} in the run)",
            "the files that the run was made with",
        )


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
