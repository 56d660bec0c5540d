"""Answers to prompts, so that a person can see what the numbers mean."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import GenerationConfig

from schemas.record import Record
from train.model import Trainee
from train.template import Template


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
    """Answer the first `count` prompts that leave room for `new_tokens`, greedily, with transformers' own attention."""
    samples: list[Sample] = []
    was_training = trainee.model.training
    trainee.model.eval()
    settings = GenerationConfig(
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=sorted(template.stop_ids),
        pad_token_id=min(template.stop_ids),
    )
    with trainee.stock_attention(), torch.inference_mode(), trainee.device.compute():
        for record in records:
            if len(samples) == count:
                break
            turn = next(i for i, message in enumerate(record.messages) if message.role == "assistant")
            if turn == 0:
                continue
            asked = replace(record, messages=record.messages[:turn])
            text = template.render(asked, prompt=True)
            ids = template.tokenizer(text, add_special_tokens=False, return_tensors="pt", verbose=False)["input_ids"]
            prompt_1T = torch.as_tensor(ids).to(trainee.device.device)
            if prompt_1T.shape[1] + new_tokens > max_tokens:
                continue
            generate: Any = trainee.network.generate
            found_1T = generate(
                input_ids=prompt_1T, attention_mask=torch.ones_like(prompt_1T), generation_config=settings
            )
            new = found_1T[0, prompt_1T.shape[1] :].tolist()
            answer = template.tokenizer.decode(new, skip_special_tokens=True)
            said = record.messages[turn - 1].content
            samples.append(Sample(record.id, record.source, said, record.messages[turn].content, str(answer)))
    trainee.model.train(was_training)
    return tuple(samples)
