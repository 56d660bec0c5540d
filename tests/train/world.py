"""A small world for the trainer's tests: records of two sources, a watcher of runs, a Llama of 16 dimensions."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from schemas.record import Message, Record
from train.evaluation.losses import Evaluation
from train.run.reading import StepMetrics
from train.step import attention

torch.set_num_threads(1)

TEXT = "the cat sat on a mat and saw one red bird fly over two old trees near the sea while rain fell"
WORDS = TEXT.split()


def record(number: int, *turns: tuple[str, str], source: str = "a", weight: float = 1.0) -> Record:
    return Record(f"{number:032x}", source, tuple(Message(*turn) for turn in turns), weight=weight)


def make_records(count: int) -> list[Record]:
    """Conversations of one to three exchanges, some with a system turn, of lengths that differ."""
    made: list[Record] = []
    for i in range(count):
        said = [" ".join(WORDS[(i + j) % len(WORDS)] for j in range(2 + (i * 7 + k * 3) % 9)) for k in range(6)]
        turns = [("system", "Be brief.")] if i % 4 == 0 else []
        for k in range(1 + i % 3):
            turns += [("user", said[2 * k] + "?"), ("assistant", said[2 * k + 1] + ".")]
        made.append(record(i, *turns, source="ab"[i % 2]))
    return made


class Watcher:
    """A listener that remembers; `at_step` is called with the number of each step, and may raise."""

    def __init__(self, at_step: Callable[[int], None] | None = None) -> None:
        self.lines: list[str] = []
        self.losses: list[float] = []
        self.evaluations: list[Evaluation] = []
        self.at_step = at_step

    def note(self, line: str) -> None:
        self.lines.append(line)

    def work(self, what: str, total: int) -> Callable[[int], None]:
        assert what
        assert total >= 0
        return lambda _: None

    def step(self, metrics: StepMetrics) -> None:
        self.losses.append(metrics.loss)
        if self.at_step:
            self.at_step(metrics.step)

    def evaluated(self, found: Evaluation) -> None:
        self.evaluations.append(found)


def small_llama(vocabulary: int, **settings: Any) -> LlamaForCausalLM:
    attention.register()
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=vocabulary,
        **{**shape, "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.2, **settings},
    )
    model = LlamaForCausalLM(config)
    model.set_attn_implementation(attention.NAME)
    return model
