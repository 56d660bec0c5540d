"""Answers to prompts, so that a person can see what the numbers mean."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from schemas.record import Record
from train.evaluation.generation import generate
from train.model.load import Trainee
from train.text.template import Template


@dataclass(frozen=True, slots=True)
class Sample:
    """A prompt, the answer that the dataset has, and the model's."""

    id: str
    source: str
    prompt: str
    reference: str
    answer: str


def sample_answers(
    trainee: Trainee, template: Template, records: Sequence[Record], *, count: int, new_tokens: int, max_tokens: int
) -> tuple[Sample, ...]:
    """Answer the first `count` prompts that leave room for `new_tokens`, greedily, one at a time."""
    asked: list[tuple[Record, int, list[int]]] = []
    for record in records:
        if len(asked) == count:
            break
        turn = next(i for i, message in enumerate(record.messages) if message.role == "assistant")
        ids = prompt_ids(record, turn, template) if turn else []
        if ids and len(ids) + new_tokens <= max_tokens:
            asked.append((record, turn, ids))
    answers = generate(trainee, template, [ids for *_, ids in asked], new_tokens=new_tokens, batch_tokens=0)
    return tuple(
        Sample(record.id, record.source, record.messages[turn - 1].content, record.messages[turn].content, answer.text)
        for (record, turn, _), answer in zip(asked, answers, strict=True)
    )


def prompt_ids(record: Record, turn: int, template: Template) -> list[int]:
    """Give the token ids of the conversation before a turn, rendered so that the model speaks next."""
    text = template.render(replace(record, messages=record.messages[:turn]), prompt=True)
    return [int(i) for i in template.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]]
