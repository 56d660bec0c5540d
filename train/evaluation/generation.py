"""Answers to many prompts at once, with transformers' own attention and its cache of keys and values.

Prompts of one batch are padded on the left, so that all of them end where the answers begin:

    ids        . . A B C | x y        attention_mask  0 0 1 1 1        position_ids  1 1 0 1 2
               A B C D E | z .                        1 1 1 1 1                      0 1 2 3 4

Padding is masked and positions count from a prompt's own first token, so a prompt gets the answer that it would get
alone (on a GPU in half precision up to rounding: batches are made of the lengths alone, so a rerun repeats it). That
holds for drawn answers too: what is drawn is Gumbel noise on the scores (argmax of both is a draw by the model's own
probabilities), from a generator of each prompt's own.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, TemperatureLogitsWarper
from transformers.generation.logits_process import TopPLogitsWarper
from transformers.generation.streamers import BaseStreamer

from schemas.errors import ModelError
from train.model.trainee import Trainee
from train.step import processes, sharding
from train.step.memory import free, is_out_of_memory
from train.text.template import Template

# Shapes: B prompts of a batch, T tokens of the longest one, N tokens generated, V tokens of the vocabulary.


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said. `whole`: it ended by itself, and was not cut off at the most tokens that it may say.

    `tokens`: how many it said, without the stop token.
    """

    text: str
    whole: bool
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Sampling:
    """How much chance decides: none at temperature 0. The same prompt, asked as often, draws the same by its seed.

    `asked` counts how often each prompt was, by its digest.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 17
    asked: Counter[bytes] = field(default_factory=Counter[bytes])


GREEDY = Sampling()


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
    for found in answered(trainee, template, prompts, new_tokens=new_tokens, batch_tokens=batch_tokens):
        answers |= found
        on_answers(len(found))
    return [answers[i] for i in range(len(prompts))]


def answered(
    trainee: Trainee,
    template: Template,
    prompts: Sequence[Sequence[int]],
    *,
    new_tokens: int,
    batch_tokens: int,
    sampling: Sampling = GREEDY,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[dict[int, Answer]]:
    """Answer prompts as `generate` does, a batch at a time, as they are done: answers by the place of their prompts.

    Where memory runs out, batches are halved from there on, which `say` hears of. Raises ModelError where one prompt
    alone takes more memory than there is.
    """
    seeds = _seeds(prompts, sampling)
    lengths = [len(prompt) for prompt in prompts]
    waiting = deque(_batches(lengths, range(len(prompts)), new_tokens, batch_tokens))
    with generating(trainee):
        while waiting:
            batch = waiting.popleft()
            try:
                found_BN = _generate(
                    trainee,
                    template,
                    [prompts[i] for i in batch],
                    new_tokens=new_tokens,
                    processors=_processors(sampling, [seeds[i] for i in batch], trainee),
                )
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise ModelError(
                        f"model {trainee.name}",
                        f"a prompt of {lengths[batch[0]]} tokens alone takes more memory than {trainee.device} has",
                        "a smaller model, or shorter prompts",
                        "give fewer --new-tokens, or --device cpu",
                    ) from error
            else:
                yield {i: read(said, template) for i, said in zip(batch, found_BN.tolist(), strict=True)}
                continue
            batch_tokens = max(1, len(batch) // 2) * (max(lengths[i] for i in batch) + new_tokens)
            left = sorted([*batch, *(i for other in waiting for i in other)])
            waiting = deque(_batches(lengths, left, new_tokens, batch_tokens))
            say(f"out of memory: batches of {batch_tokens:,} tokens from here on")
            free()


def stream(
    trainee: Trainee,
    template: Template,
    prompt: Sequence[int],
    *,
    new_tokens: int,
    sampling: Sampling = GREEDY,
    on_text: Callable[[str], None],
) -> Answer:
    """Answer one prompt; `on_text` hears of each piece of text as it is said. The pieces are the answer's text."""
    heard = _Stream(template, on_text)
    processors = _processors(sampling, _seeds([prompt], sampling), trainee)
    with generating(trainee):
        found_BN = _generate(trainee, template, [prompt], new_tokens=new_tokens, processors=processors, streamer=heard)
    heard.finish()
    return read(found_BN[0].tolist(), template)


def generating(trainee: Trainee) -> AbstractContextManager[object]:
    """Give the context in which a model generates: transformers' own attention, no dropout, no gradients."""
    stack = ExitStack()
    was_training = trainee.model.training
    trainee.model.eval()
    stack.callback(trainee.model.train, was_training)
    stack.callback(sharding.settle, trainee.network)
    for context in (trainee.stock_attention(), processes.without_gradients(), trainee.device.compute()):
        stack.enter_context(context)
    return stack


def read(said: Sequence[int], template: Template) -> Answer:
    """Decode what stands before the first stop token."""
    end = next((i for i, token in enumerate(said) if token in template.stop_ids), None)
    text = template.tokenizer.decode(list(said[:end]), skip_special_tokens=True)
    return Answer(str(text), end is not None, len(said[:end]))


def _generate(
    trainee: Trainee,
    template: Template,
    prompts: Sequence[Sequence[int]],
    *,
    new_tokens: int,
    processors: LogitsProcessorList,
    streamer: BaseStreamer | None = None,
) -> Tensor:
    """Give the tokens that follow each prompt, (B, N); what follows a stop token means nothing."""
    pad = min(template.stop_ids)
    ids_BT, mask_BT, positions_BT = _pad_left(prompts, pad)
    place = trainee.device.device
    call: Any = trainee.network.generate
    settings = GenerationConfig(
        max_new_tokens=new_tokens,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,  # plain, whatever the model's own generation_config asks for
        no_repeat_ngram_size=0,
        use_cache=True,
        eos_token_id=sorted(template.stop_ids),
        pad_token_id=pad,
    )
    return call(
        input_ids=ids_BT.to(place),
        attention_mask=mask_BT.to(place),
        position_ids=positions_BT.to(place),
        generation_config=settings,
        logits_processor=processors,
        streamer=streamer,
        synced_gpus=processes.ranks() > 1,
    )[:, ids_BT.shape[1] :]


def _batches(lengths: Sequence[int], asked: Sequence[int], new_tokens: int, batch_tokens: int) -> Iterator[list[int]]:
    """Cut the asked prompts, shortest first, into batches that take at most `batch_tokens` with padding and answers."""
    batch: list[int] = []
    for i in sorted(asked, key=lambda i: (lengths[i], i)):
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


def _seeds(prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[int]:
    """Give each prompt a seed of its own: of its tokens, and of how often it was asked before."""
    if not sampling.temperature:  # nothing is drawn
        return [0] * len(prompts)
    seeds: list[int] = []
    for prompt in prompts:
        name = blake2b(repr(list(prompt)).encode(), digest_size=16).digest()
        material = repr((sampling.seed, sampling.asked[name], name)).encode()
        seeds.append(int.from_bytes(blake2b(material, digest_size=8).digest(), "little") >> 1)
        sampling.asked[name] += 1
    return seeds


def _processors(sampling: Sampling, seeds: Sequence[int], trainee: Trainee) -> LogitsProcessorList:
    if not sampling.temperature:
        return LogitsProcessorList()
    steps: list[LogitsProcessor] = [TemperatureLogitsWarper(sampling.temperature)]
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(sampling.top_p))
    return LogitsProcessorList([*steps, _Gumbel(seeds, trainee.device.device)])


class _Gumbel(LogitsProcessor):
    """Adds Gumbel noise to the scores: the greatest of them is then a draw by softmax. A generator for each prompt."""

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002 # transformers' signature
        """Give noisy scores, (B, V). What top_p took out, at -inf, stays out."""
        noise_BV = torch.stack(
            [
                torch.empty(scores.shape[-1], dtype=torch.float32, device=scores.device).exponential_(generator=one)
                for one in self.generators
            ]
        )
        return scores.float() - noise_BV.log()


class _Stream(BaseStreamer):
    """Hears tokens one by one and gives their text on; a letter that is not whole yet waits for its last token."""

    def __init__(self, template: Template, on_text: Callable[[str], None]) -> None:
        self.template, self.on_text = template, on_text
        self.said: list[int] = []
        self.told = ""
        self.asked = False

    def put(self, value: Tensor) -> None:
        """Hear of the prompt first, then of each token."""
        if not self.asked:
            self.asked = True
            return
        self.said += value.flatten().tolist()
        self._tell(read(self.said, self.template).text.removesuffix("\ufffd"))

    def end(self) -> None:
        """Hear that nothing follows; `finish` tells the rest."""

    def finish(self) -> None:
        """Tell what was held back."""
        self._tell(read(self.said, self.template).text)

    def _tell(self, text: str) -> None:
        if len(text) > len(self.told) and text.startswith(self.told):
            piece, self.told = text[len(self.told) :], text
            self.on_text(piece)
