"""Answers to prompts, so that a person can see what the numbers mean: the same prompts at each evaluation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from schemas.dataset import find
from schemas.record import Record
from train.evaluation.generation import generate
from train.model.trainee import Trainee
from train.text.template import Template
from train.text.tokens import Tokens

CANDIDATES = 32
"""Records that are looked at per prompt, at most: with that many, one of them leaves room for an answer."""

BATCH_TOKENS = 8192
"""Tokens of prompts and answers that are generated at once: a few prompts, and less memory than a training step."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked: the turn before an answer, and the token ids of the conversation up to the answer."""

    id: str
    source: str
    text: str
    reference: str
    input_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """A prompt, the answer that the dataset has, and the model's after `step` steps. `whole`: it ended by itself."""

    step: int
    id: str
    source: str
    prompt: str
    reference: str
    answer: str
    whole: bool


def choose_prompts(
    records: Sequence[Record], examples: Tokens, template: Template, *, count: int, new_tokens: int, max_tokens: int
) -> tuple[Prompt, ...]:
    """Choose prompts of records that are among `examples` and leave room for `new_tokens`: by their ids alone.

    The first answer of a record is what is asked for.
    """
    if not count:
        return ()
    order = np.argsort(examples.keys, kind="stable")[: CANDIDATES * count]
    ids = [str(examples.ids[int(i)].as_py()) for i in order]
    found = find(records, ids)
    prompts: list[Prompt] = []
    for record in (found[name] for name in ids if name in found):
        turn = next(i for i, message in enumerate(record.messages) if message.role == "assistant")
        tokens = prompt_ids(record, turn, template) if turn else []
        if tokens and len(tokens) + new_tokens <= max_tokens:
            asked, said = record.messages[turn - 1].content, record.messages[turn].content
            prompts.append(Prompt(record.id, record.source, asked, said, tuple(tokens)))
        if len(prompts) == count:
            break
    return tuple(prompts)


def answer(
    trainee: Trainee,
    template: Template,
    prompts: Sequence[Prompt],
    *,
    step: int,
    new_tokens: int,
    on_answers: Callable[[int], None] = lambda _: None,
) -> tuple[Sample, ...]:
    """Answer prompts greedily under the current weights, of which `step` steps have been made."""
    if not prompts:
        return ()
    answers = generate(
        trainee,
        template,
        [prompt.input_ids for prompt in prompts],
        new_tokens=new_tokens,
        batch_tokens=BATCH_TOKENS,
        on_answers=on_answers,
    )
    return tuple(
        Sample(step, prompt.id, prompt.source, prompt.text, prompt.reference, said.text, said.whole)
        for prompt, said in zip(prompts, answers, strict=True)
    )


def prompt_ids(record: Record, turn: int, template: Template) -> list[int]:
    """Give the token ids of the conversation before a turn, rendered so that the model speaks next."""
    text = template.render(replace(record, messages=record.messages[:turn]), prompt=True)
    return [int(i) for i in template.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]]
