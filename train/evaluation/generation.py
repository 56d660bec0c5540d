"""Greedy generation for many prompts at once, with transformers' own attention.

Prompts of one batch are padded on the left, so that all of them end where the answers begin:

    ids        . . A B C | x y        attention_mask  0 0 1 1 1        position_ids  1 1 0 1 2
               A B C D E | z .                        1 1 1 1 1                      0 1 2 3 4

Padding is masked and positions count from a prompt's own first token, so a prompt gets the answer that it would get
alone (on a GPU in half precision up to rounding: batches are made of the lengths alone, so a rerun repeats it).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from train.model.load import Trainee
from train.text.template import Template

# Shapes: B prompts of a batch, T tokens of the longest one, N tokens generated.


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said. `whole`: it ended by itself, and was not cut off at the most tokens that it may say."""

    text: str
    whole: bool


def generate(
    trainee: Trainee,
    template: Template,
    prompts: Sequence[Sequence[int]],
    *,
    new_tokens: int,
    batch_tokens: int,
    on_answers: Callable[[int], None] = lambda _: None,
) -> list[Answer]:
    """Answer prompts (token ids) greedily, with at most `new_tokens` tokens each; answers come in the prompts' order.

    A batch holds as many prompts as fit, padded and answered, into `batch_tokens`; one at least. `on_answers` hears of
    the number of answers done.
    """
    answers: dict[int, Answer] = {}
    was_training = trainee.model.training
    trainee.model.eval()
    settings = GenerationConfig(
        max_new_tokens=new_tokens,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,  # plain greedy, whatever the model's own generation_config asks for
        no_repeat_ngram_size=0,
        eos_token_id=sorted(template.stop_ids),
        pad_token_id=min(template.stop_ids),
    )
    with trainee.stock_attention(), torch.inference_mode(), trainee.device.compute():
        for batch in _batches([len(prompt) for prompt in prompts], new_tokens, batch_tokens):
            ids_BT, mask_BT, positions_BT = _pad_left([prompts[i] for i in batch], min(template.stop_ids))
            place = trainee.device.device
            call: Any = trainee.network.generate
            found_BN = call(
                input_ids=ids_BT.to(place),
                attention_mask=mask_BT.to(place),
                position_ids=positions_BT.to(place),
                generation_config=settings,
            )[:, ids_BT.shape[1] :]
            for i, said in zip(batch, found_BN.tolist(), strict=True):
                answers[i] = _read(said, template)
            on_answers(len(batch))
    trainee.model.train(was_training)
    return [answers[i] for i in range(len(prompts))]


def _batches(lengths: Sequence[int], new_tokens: int, batch_tokens: int) -> Iterator[list[int]]:
    """Cut the prompts, shortest first, into batches that take at most `batch_tokens` with padding and answers."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if batch and (len(batch) + 1) * (lengths[i] + new_tokens) > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _pad_left(prompts: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Give ids, attention mask and positions, each (B, T), of prompts that all end in the last column."""
    longest = max(map(len, prompts))
    ids_BT = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts])
    mask_BT = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    positions_BT = (mask_BT.cumsum(1) - 1).masked_fill(mask_BT == 0, 1)
    return ids_BT, mask_BT, positions_BT


def _read(said: Sequence[int], template: Template) -> Answer:
    """Decode what stands before the first stop token."""
    end = next((i for i, token in enumerate(said) if token in template.stop_ids), None)
    text = template.tokenizer.decode(list(said[:end]), skip_special_tokens=True)
    return Answer(str(text), end is not None)
