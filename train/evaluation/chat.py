"""A model that answers what it is asked: one prompt, many, or a conversation. For a run as it was trained, else as is.

A prompt is a conversation whose next turn is the model's; it is rendered by the model's own chat template, as in
training, and the answer ends at the template's stop tokens.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.errors import ConfigError, InputError
from schemas.eval_config import GenerateConfig
from schemas.record import ROLES, Message, Record
from schemas.train_config import TINY, TrainConfig
from train.evaluation.generation import Answer, Sampling, answered, stream
from train.evaluation.pair import Pair, in_its_precision, ready
from train.evaluation.samples import prompt_ids
from train.model.source import local
from train.model.trainee import Trainee
from train.model.tuned import load_trained
from train.run.folder import RunFolder
from train.step import attention
from train.text.template import Template

NEW_TOKENS = 512
"""Tokens of an answer, at most, where nobody says how many."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation whose next turn is asked for; `reference` is the answer that it came with, if it did."""

    messages: tuple[Message, ...]
    reference: str | None = None


class Chat:
    """A model, ready to be asked. `notes`: what a person should know of it."""

    def __init__(self, model: Trainee, template: Template, config: GenerateConfig, notes: Sequence[str]) -> None:
        self.model, self.template, self.config = in_its_precision(model), template, config
        self.notes = (*notes, *template.notes)
        self.context, _ = attention.context(self.model.network.config)
        self.new_tokens = config.new_tokens or min(NEW_TOKENS, (self.context or 2 * NEW_TOKENS) // 2)
        self.sampling = Sampling(config.temperature, config.top_p, config.seed)
        self._special = sorted(
            {token.content for token in template.tokenizer.added_tokens_decoder.values() if token.special}
            | {str(token) for token in template.tokenizer.all_special_tokens}
        )

    @classmethod
    def load(cls, name: str, config: GenerateConfig) -> "Chat":
        """Load a finished run's tuned model, or with `config.base` its base; else the model of that folder or hub id.

        Raises what `Pair.open` and its models raise, ConfigError for options that only a run has, ModelError for a
        model that cannot be loaded.
        """
        place = local(name)
        folder = RunFolder(place) if place is not None else None
        if folder is not None and folder.holds_run():
            weights = "best" if config.best else "final"
            pair = Pair.open(folder, device=config.device, precision=config.precision, weights=weights)
            tuned, template = pair.tuned()
            if not config.base:
                return cls(tuned, template, config, (f"run {name}, its {weights} weights",))
            del tuned
            return cls(pair.base(), template, config, (f"the base model of run {name}: {pair.facts['model']}",))
        if option := next((o for o in ("base", "best") if getattr(config, o)), None):
            raise ConfigError(f"--{option}", f"{name} is no run, and has one model only", "the folder of a run")
        if name == TINY:
            raise ConfigError(
                name, "it is made of a dataset, and here is none", "the folder of a run with --model tiny"
            )
        own = {"model": name, "method": "full", "device": config.device, "precision": config.precision}
        settings = TrainConfig.model_validate(own)
        base = load_trained(settings)
        return cls(ready(base), Template(base.tokenizer, base.name), config, (f"{name} is no run: the model as it is",))

    def ids(self, messages: Sequence[Message]) -> list[int]:
        """Render a conversation. Raises InputError where it cannot be asked: no room, forged turns, a template's no."""
        where = "prompt"
        for message in messages:
            if forged := next((token for token in self._special if token.strip() and token in message.content), None):
                raise InputError(where, f"the {message.role} turn spells out {forged!r}", "text without special tokens")
        try:
            ids = prompt_ids(Record("", "", tuple(messages)), len(messages), self.template)
        except Exception as error:  # a template is somebody's program: jinja raises whatever it likes
            raise InputError(where, f"the chat template refuses it ({error})", "turns that it knows") from error
        if self.context is not None and len(ids) + self.new_tokens > self.context:
            found = f"{len(ids)} tokens and {self.new_tokens} new ones are more than its context of {self.context}"
            raise InputError(where, found, "a shorter one", "give fewer --new-tokens, or begin anew")
        return ids

    def answer(self, messages: Sequence[Message], on_text: Callable[[str], None]) -> Answer:
        """Answer one conversation; `on_text` hears of the text as it is said."""
        return stream(
            self.model,
            self.template,
            self.ids(messages),
            new_tokens=self.new_tokens,
            sampling=self.sampling,
            on_text=on_text,
        )

    def answers(self, prompts: Sequence[Sequence[int]], say: Callable[[str], None]) -> Iterator[dict[int, Answer]]:
        """Answer rendered prompts, a batch at a time, as they are done: answers by the place of their prompts."""
        return answered(
            self.model,
            self.template,
            prompts,
            new_tokens=self.new_tokens,
            batch_tokens=self.config.batch_tokens,
            sampling=self.sampling,
            say=say,
        )


def read_prompt(line: str, system: str | None) -> Prompt:
    """Read a line: plain text, or JSON with `prompt` or `messages`. `system` comes first where there is no system turn.

    Messages that end with an answer are asked for it anew; it becomes the reference. Raises InputError for other lines.
    """
    if not line.strip():
        raise InputError("line", "it is empty", "a prompt")
    reference: str | None = None
    if not line.lstrip().startswith("{"):
        messages = [Message("user", line.strip())]
    else:
        messages = _messages(line)
        if messages[-1].role == "assistant":
            reference = messages.pop().content
    if not messages or messages[-1].role not in ("user", "tool"):
        raise InputError("line", "nothing to answer: no turn of a user at its end", "a conversation that ends with one")
    if system and messages[0].role != "system":
        messages.insert(0, Message("system", system))
    return Prompt(tuple(messages), reference)


def _messages(line: str) -> list[Message]:
    try:
        found: Any = json.loads(line)
    except ValueError as error:
        raise InputError("line", f"not JSON ({error})", "plain text, or JSON with prompt or messages") from error
    prompt, turns = found.get("prompt"), found.get("messages")
    if isinstance(prompt, str) and prompt.strip():
        return [Message("user", prompt)]
    if not isinstance(turns, list) or not turns:
        raise InputError(
            "line", f"JSON with {', '.join(map(str, found)) or 'nothing'}", "a text in prompt, or messages"
        )
    messages: list[Message] = []
    for turn in turns:  # pyright: ignore[reportUnknownVariableType] # anybody's JSON
        role, content = (turn.get("role"), turn.get("content")) if isinstance(turn, dict) else (None, None)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] # likewise
        if role not in ROLES or not isinstance(content, str):
            raise InputError("line", "a message without role or content", f"a role of {', '.join(ROLES)}, and a text")
        messages.append(Message(str(role), content))  # pyright: ignore[reportUnknownArgumentType] # likewise
    return messages
