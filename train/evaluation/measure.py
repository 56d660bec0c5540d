"""A run's model and its base on the same records: losses, answers, and how near each answer is to its reference.

The tuned model comes first, then the base; each is loaded when something is missing in `train.evaluation.said`, and one
at a time is in memory. Out come plain rows, one per record, in the order of the records; `train.evaluation.account`
sums them up.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.errors import ModelError, RunInterruptedError
from schemas.eval_config import EvalConfig
from schemas.record import Record
from train.evaluation import metrics
from train.evaluation.answers import Asked, ask
from train.evaluation.generation import Answer, answered
from train.evaluation.losses import record_losses
from train.evaluation.pair import Pair, in_its_precision
from train.evaluation.said import Said, answer_key, loss_key
from train.model.device import PRECISIONS
from train.model.trainee import Trainee
from train.run.parts import Listener
from train.step import attention
from train.step.memory import free, is_out_of_memory
from train.text.template import Template, encode
from train.text.tokens import Example

PIECE = 16
"""Batches' worth of records that are scored, and written down, together: packing needs some to choose from."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A row for each record, and what a person should know. Keys of a row: see `_row`."""

    rows: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    models: dict[str, str]
    """What was measured: the digest of each model's weights, by side."""


@dataclass(frozen=True, slots=True)
class _Work:
    """What is asked of both models: records that can be scored, and prompts that can be answered, by record id."""

    examples: dict[str, Example]
    asked: dict[str, Asked]
    refused: dict[str, str]
    skipped: dict[str, str]


def measure(
    pair: Pair, records: Sequence[Record], config: EvalConfig, listener: Listener, *, categories: Mapping[str, str]
) -> Measured:
    """Score and ask both models of a run. `categories`: of each record id that has one.

    Raises ModelError for models that are not the run's, or where memory has no room for a single record, ConfigError
    for the device, RunInterruptedError after Ctrl-C; what was answered by then is kept, and the same call goes on.
    """
    notes: list[str] = []

    def tell(line: str) -> None:
        notes.append(line)
        listener.note(line)

    with Said(pair.folder.path / "eval" / "said.jsonl") as said:
        try:
            keys = {"tuned": pair.tuned_key(), "base": pair.base_key()}
            tuned, template = pair.tuned()
            for note in template.notes:
                tell(note)
            precision = PRECISIONS[tuned.device.autocast]
            work = _work(records, template, tuned, config, listener)
            sides = {"tuned": _Side("tuned", keys["tuned"], precision, template, said, config, listener, tell)}
            loaded = [tuned]
            del tuned
            sides["tuned"].fill(work, loaded.pop)
            loaded.clear()
            free()
            if config.base:
                sides["base"] = _Side("base", keys["base"], precision, template, said, config, listener, tell)
                sides["base"].fill(work, pair.base)
                free()
        except KeyboardInterrupt as stop:
            kept = sum("text" in line for line in said.known.values())
            raise RunInterruptedError(
                f"run {pair.folder.path}",
                f"interrupted; {kept} answers are kept in {said.path.parent}",
                remedy="the same command goes on from there",
            ) from stop
        done = listener.work("metrics", len(records))
        rows: list[dict[str, Any]] = []
        for record in records:
            rows.append(_row(record, work, sides, template, categories.get(record.id)))
            done(1)
    return Measured(tuple(rows), tuple(notes), {side: keys[side] for side in sides})


def _work(
    records: Sequence[Record], template: Template, model: Trainee, config: EvalConfig, listener: Listener
) -> _Work:
    """Encode all records as in training, and render their prompts; what cannot be is named with its reason."""
    limit, _ = attention.context(model.network.config)
    encoded = encode(records, template, max_tokens=limit or 1 << 30, strict=False)
    asked: dict[str, Asked] = {}
    skipped: dict[str, str] = {}
    done = listener.work("prompts", len(records))
    for record in records:
        found = ask(record, template, model, new_tokens=config.new_tokens)
        if isinstance(found, str):
            skipped[record.id] = found
        else:
            asked[record.id] = found
        done(1)
    refused = {refusal.id: f"{refusal.reason}: {refusal.detail}" for refusal in encoded.refusals}
    return _Work({example.id: example for example in encoded.examples}, asked, refused, skipped)


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two models: what it has said and scored, and how it is made to say the rest."""

    name: str
    weights: str
    precision: str
    template: Template
    said: Said
    config: EvalConfig
    listener: Listener
    tell: Callable[[str], None]

    def answer(self, asked: Asked) -> Answer | None:
        """Give the answer of a prompt where it is known."""
        return self.said.answer(self._answer_key(asked))

    def loss(self, example: Example) -> tuple[int, float] | None:
        """Give targets and nats of a record where they are known."""
        return self.said.loss(loss_key(self.weights, example, self.precision))

    def fill(self, work: _Work, load: Callable[[], Trainee]) -> None:
        """Score and ask what is missing; the model is loaded where something is."""
        examples = [example for example in work.examples.values() if self.loss(example) is None]
        asked = [one for one in work.asked.values() if self.answer(one) is None]
        if not examples and not asked:
            return
        model = load()
        self._score(model, examples)
        self._ask(in_its_precision(model), asked)

    def _answer_key(self, asked: Asked) -> str:
        return answer_key(self.weights, asked.prompt, self.config.new_tokens, self.precision)

    def _score(self, model: Trainee, examples: Sequence[Example]) -> None:
        done = self.listener.work(f"losses, {self.name}", len(examples))
        batch_tokens = self.config.batch_tokens
        for piece in _pieces(examples, PIECE * batch_tokens):
            longest = max(map(len, piece))
            while True:
                try:
                    found = record_losses(model, piece, max_tokens=max(batch_tokens, longest))
                    break
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    if batch_tokens <= longest:
                        raise ModelError(
                            f"model {model.name}",
                            f"a record of {longest} tokens alone takes more memory than {model.device} has",
                            "a smaller model, or shorter records",
                            "try --device cpu",
                        ) from error
                batch_tokens //= 2
                self.tell(f"out of memory: losses of {batch_tokens:,} tokens at once from here on")
                free()
            keys = (loss_key(self.weights, example, self.precision) for example in piece)
            self.said.add(
                {"key": key, "id": one.id, "targets": one.targets, "nll": one.nll_sum}
                for key, one in zip(keys, found, strict=True)
            )
            done(len(piece))

    def _ask(self, model: Trainee, asked: Sequence[Asked]) -> None:
        """Ask, and write each batch down as it is done. Prompts that are the same are asked once."""
        fresh = list({self._answer_key(one): one for one in asked}.items())
        done = self.listener.work(f"answers, {self.name}", len(fresh))
        for batch in answered(
            model,
            self.template,
            [one.prompt for _, one in fresh],
            new_tokens=self.config.new_tokens,
            batch_tokens=self.config.batch_tokens,
            say=self.tell,
        ):
            self.said.add(
                {"key": fresh[i][0], "id": fresh[i][1].record.id, "text": a.text, "whole": a.whole, "tokens": a.tokens}
                for i, a in batch.items()
            )
            done(len(batch))


def _pieces(examples: Sequence[Example], tokens: int) -> list[Sequence[Example]]:
    """Cut examples into runs of about so many tokens."""
    pieces: list[Sequence[Example]] = []
    begin, held = 0, 0
    for i, example in enumerate(examples):
        held += len(example)
        if held >= tokens:
            pieces.append(examples[begin : i + 1])
            begin, held = i + 1, 0
    return [*pieces, examples[begin:]] if begin < len(examples) else pieces


def _row(
    record: Record, work: _Work, sides: Mapping[str, _Side], template: Template, category: str | None
) -> dict[str, Any]:
    """Give what is known of a record. A side is null where it was not asked; `loss` where the record cannot be scored.

    id, source, category, prompt [{role, content}], reference, reference_tokens, refused (why no loss), skipped (why no
    answer), and for each side: targets, nll, and of an answer: text, whole, tokens, exact_match, token_f1, rouge_l,
    chrf, repetition, loop.
    """
    asked, example = work.asked.get(record.id), work.examples.get(record.id)
    row: dict[str, Any] = {
        "id": record.id,
        "source": record.source,
        "category": category,
        "prompt": None,
        "reference": None,
        "reference_tokens": None,
        "refused": work.refused.get(record.id),
        "skipped": work.skipped.get(record.id),
        "tuned": None,
        "base": None,
    }
    if asked:
        reference = record.messages[asked.turn].content
        row["prompt"] = [{"role": m.role, "content": m.content} for m in record.messages[: asked.turn]]
        row["reference"] = reference
        row["reference_tokens"] = len(
            template.tokenizer(reference, add_special_tokens=False, verbose=False)["input_ids"]
        )
    for name, side in sides.items():
        found = (side.loss(example) if example else None) or (None, None)
        row[name] = {"targets": found[0], "nll": found[1], "answer": None}
        if asked and (answer := side.answer(asked)):
            row[name]["answer"] = _scored(answer, row["reference"])
    return row


def _scored(answer: Answer, reference: str) -> dict[str, Any]:
    text = answer.text
    return {
        "text": text,
        "whole": answer.whole,
        "tokens": answer.tokens,
        "exact_match": metrics.exact_match(text, reference),
        "token_f1": metrics.token_f1(text, reference),
        "rouge_l": metrics.rouge_l(text, reference),
        "chrf": metrics.chrf(text, reference),
        "repetition": metrics.repetition(text),
        "loop": metrics.loops(text),
    }
