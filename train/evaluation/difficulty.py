"""How hard an answer is for a language model: its perplexity, and instruction-following difficulty (IFD).

    perplexity = exp(L(answer | prompt))        IFD = L(answer | prompt) / L(answer)

L is the mean negative log-likelihood of the answer's tokens, in nats. IFD (Cherry LLM, arXiv 2308.12032; GPT-2 is
enough to score with: Superfiltering, arXiv 2402.00530) is near 0 where the prompt makes the answer easy, near 1 where
the model hardly uses the prompt, and from 1 on where the prompt does not help at all. Superfiltering's code divides
perplexities instead of losses; 1 means the same there, other values are others.

What is measured, exactly. The record is rendered by the model's chat template, as for training. The answer is the text
of the assistant turns, without the stop token that ends each: all of them, each given everything before it. For the
answer alone, the very same token ids of each turn stand after one start token: BOS, else EOS (as lm-evaluation-harness
does). A tokenizer without either leaves the first token of each turn out of both losses. So both are means over the
same tokens, and IFD is the ratio of two sums:

    given   <|im_start|>user Who?<|im_end|> <|im_start|>assistant A d a .<|im_end|>
                                                                  ▲ ▲ ▲
    alone                                                 <start> A d a .             the same targets
                                                                  ▲ ▲ ▲

The losses come from the trainer's packed forward pass, after its self-test.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import exp, isfinite
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.errors import ModelError
from schemas.manifest import digest
from schemas.record import Record
from schemas.train_config import TrainConfig
from train.evaluation.losses import RecordLoss, record_losses
from train.model.adapt import adapt
from train.model.device import PRECISIONS
from train.model.trainee import Trainee
from train.model.tuned import load_trained
from train.preflight.selftest import self_test
from train.step import attention
from train.step.memory import free, is_out_of_memory
from train.text.template import Refusal, Template, encode
from train.text.tokens import Example

METHOD = "ifd/1"
"""Goes up whenever the same model would give another number for the same text."""

PIECE_BATCHES = 4
"""Forward passes whose records are scored, and reported, together: packing needs some to choose from."""


@dataclass(frozen=True, slots=True)
class Difficulty:
    """The difficulty of one record; both numbers are None where it has none, and `refusal` says why."""

    id: str
    perplexity: float | None = None
    ifd: float | None = None
    refusal: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """A record whose answers are the targets, and each of the answers alone. Both have the same targets."""

    given: Example
    alone: tuple[Example, ...]


class DifficultyModel:
    """A causal language model that measures records.

    `key` digests all that a difficulty depends on besides the record; `provenance` says it to people.
    """

    def __init__(
        self, trainee: Trainee, template: Template, base_digest: str, *, max_tokens: int, batch_tokens: int
    ) -> None:
        limit, what = attention.context(trainee.network.config)
        self.notes: list[str] = [*trainee.notes, *template.notes]
        if limit is not None and limit < max_tokens:
            self.notes.append(f"max_tokens {max_tokens} lowered to {limit}, {what}")
            max_tokens = limit
        self._trainee, self._template = trainee, template
        self._max_tokens, self._batch_tokens = max_tokens, batch_tokens
        self._start = start_token(template)
        self._tested = False
        backend: Any = template.tokenizer.backend_tokenizer  # a fast tokenizer: Template has seen to it
        self.provenance: dict[str, Any] = {
            "model": _plain_name(trainee.name),
            "weights": base_digest,
            "method": METHOD,
            "chat_template": sha256(template.text.encode()).hexdigest(),
            "tokenizer": sha256(backend.to_str().encode()).hexdigest(),
            "start_token": self._start,
            "max_tokens": max_tokens,
            "precision": PRECISIONS[trainee.device.autocast],
        }
        self.key = digest({name: value for name, value in self.provenance.items() if name != "model"})

    @classmethod
    def load(cls, config: TrainConfig, records: Sequence[Record], *, batch_tokens: int) -> "DifficultyModel":
        """Load the model that `config.model` names; `tiny` is built from `records`. `max_tokens` is the config's too.

        Besides what training starts from, it may be what training left: a run folder (its `final`), or a folder of
        adapters, which are merged into their base model. Raises ModelError for a model, tokenizer or template that
        cannot be used, ConfigError for the device.
        """
        base = load_trained(config, records)
        # Nothing is trained, so there are no adapters; a model that was loaded in half precision stays so.
        trainee = adapt(base, config.model_copy(update={"method": "full"}))
        return cls(
            trainee,
            Template(base.tokenizer, base.name),
            base.digest,
            max_tokens=config.max_tokens,
            batch_tokens=batch_tokens,
        )

    def measure(self, records: Sequence[Record]) -> Iterator[list[Difficulty]]:
        """Measure records, in pieces as they are done; every record is in one piece, with numbers or with a refusal.

        Raises ModelError where one record alone takes more memory than there is, CheckFailedError where packed records
        and single ones differ.
        """
        for piece in _pieces(records, PIECE_BATCHES * self._batch_tokens):
            yield self._measured(piece)

    def _measured(self, records: Sequence[Record]) -> list[Difficulty]:
        examples, refusals = encode_each(records, self._template, max_tokens=self._max_tokens)
        pairs = {example.id: pair for example in examples if (pair := pair_of(example, self._start))}
        flat = [part for pair in pairs.values() for part in (pair.given, *pair.alone)]
        losses = iter(self._losses(flat))
        found: dict[str, Difficulty] = {r.id: Difficulty(r.id, refusal=f"{r.reason}: {r.detail}") for r in refusals}
        for name, pair in pairs.items():
            given, alone = next(losses), sum(next(losses).nll_sum for _ in pair.alone)
            found[name] = difficulty(name, given.nll_sum, alone, given.targets)
        return [
            found.get(r.id, Difficulty(r.id, refusal="no_targets: no answer of two tokens or more")) for r in records
        ]

    def _losses(self, examples: Sequence[Example]) -> Sequence[RecordLoss]:
        """Score examples, packed; where the memory does not suffice, in passes of half as many tokens from then on."""
        if not examples:
            return ()
        if not self._tested:
            self_test(self._trainee, examples)
            self._tested = True
        longest = max(map(len, examples))
        while True:
            try:
                return record_losses(self._trainee, examples, max_tokens=max(self._batch_tokens, longest))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self._batch_tokens <= longest:
                    raise ModelError(
                        f"--difficulty {self._trainee.name}",
                        f"a record of {longest} tokens alone takes more memory than {self._trainee.device} has",
                        "a smaller model, or shorter records",
                        f"give --max-tokens a number below {longest}, or --device cpu",
                    ) from error
            self._batch_tokens //= 2
            self.notes.append(f"out of memory: forward passes of {self._batch_tokens} tokens from here on")
            free()


def _plain_name(name: str) -> str:
    """Name a model as another machine may know it: without the path; `run/final` and `run/best` with the run."""
    path = Path(name)
    if not path.is_dir():
        return name
    return "/".join(path.resolve().parts[-2:]) if path.name in ("final", "best") else path.resolve().name


def difficulty(name: str, given_nll: float, alone_nll: float, targets: int) -> Difficulty:
    """Make the two numbers of the sums of two losses over the same targets, in nats."""
    mean = given_nll / targets
    if not (isfinite(given_nll) and isfinite(alone_nll) and mean < LARGEST_LOSS):
        return Difficulty(name, refusal="not_finite: the model gives no finite loss")
    if alone_nll <= 0:
        return Difficulty(name, exp(mean), refusal="certain: the answer alone has no loss to compare with")
    return Difficulty(name, exp(mean), given_nll / alone_nll)


LARGEST_LOSS = 88.0
"""Nats per token from which on perplexity is more than a 32-bit float holds."""


def start_token(template: Template) -> int | None:
    """Give the token that an answer alone stands after: BOS, else EOS, else none."""
    bos, eos = template.tokenizer.bos_token_id, template.tokenizer.eos_token_id
    return bos if isinstance(bos, int) else eos if isinstance(eos, int) else None


def pair_of(example: Example, start: int | None) -> _Pair | None:
    """Give a record with its answers as targets, and each answer alone; None where there is nothing to measure."""
    ids = example.input_ids
    supervised = np.zeros(len(example), np.bool_)
    alone: list[Example] = []
    for first, end in _runs(example.supervised):
        answer = ids[first : end - 1]  # the last token of a run is the stop token
        targets = np.ones(len(answer), np.bool_)
        if first == 0 or start is None:
            targets[:1] = False
        if not targets.any():
            continue
        supervised[first : end - 1] = targets
        begin = () if start is None else (start,)
        alone.append(
            Example(
                example.id,
                example.source,
                1.0,
                np.concatenate([np.asarray(begin, np.int32), answer]),
                np.concatenate([np.zeros(len(begin), np.bool_), targets]),
            )
        )
    if not alone:
        return None
    used = slice(0, int(np.flatnonzero(supervised)[-1]) + 1)  # what comes after the last target changes nothing
    return _Pair(Example(example.id, example.source, 1.0, ids[used], supervised[used]), tuple(alone))


def encode_each(
    records: Sequence[Record], template: Template, *, max_tokens: int
) -> tuple[Sequence[Example], Sequence[Refusal]]:
    """Encode records as for training, but let none stand in the way of the others: each is an example or a refusal."""
    try:
        encoded = encode(records, template, max_tokens=max_tokens)
    except ModelError as error:
        if len(records) == 1:
            return (), (Refusal(records[0].id, records[0].source, "template", error.found),)
        parts = [encode_each([record], template, max_tokens=max_tokens) for record in records]
        return [e for examples, _ in parts for e in examples], [r for _, refusals in parts for r in refusals]
    return encoded.examples, encoded.refusals


def _runs(mask: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Give the bounds [first, end) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    yield from ((int(a), int(b)) for a, b in edges.reshape(-1, 2))


def _pieces(records: Sequence[Record], tokens: int) -> Iterator[Sequence[Record]]:
    """Cut records into runs of about so many tokens, taken as four characters each."""
    begin, characters = 0, 0
    for i, record in enumerate(records):
        characters += sum(len(message.content) for message in record.messages)
        if characters >= 4 * tokens:
            yield records[begin : i + 1]
            begin, characters = i + 1, 0
    if begin < len(records):
        yield records[begin:]
