"""A tokenizer with the chat template that it is used with: from a conversation to the text that a model reads.

Where a tokenizer has no template, ChatML is used: turns between <|im_start|>role and a stop token. Tools stand in the
system turn as JSON lines between <tools> tags, and a call as `<tool_call>{"name": …, "arguments": …}</tool_call>`, as
Hermes and Qwen write them. All of this is plain text: no token is added to the vocabulary.
"""

import json
import re
from collections.abc import Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Any

from transformers import PreTrainedTokenizerBase

from schemas.errors import ModelError
from schemas.record import Message, Record
from train.text.prints import Prints

CHATML = (
    "{%- macro calls(message) -%}"
    "{%- for call in message['tool_calls'] -%}"
    "{%- set function = call['function'] if call['function'] is defined else call -%}"
    "{{- '' if loop.first and not message['content'] else '\\n' -}}"
    "{{- '<tool_call>\\n{\"name\": ' + (function['name'] | tojson) + ', \"arguments\": ' -}}"
    "{%- set given = function['arguments'] if function['arguments'] is defined else {} -%}"
    "{{- given if given is string else given | tojson -}}"
    "{{- '}\\n</tool_call>' -}}"
    "{%- endfor -%}{%- endmacro -%}"
    "{%- macro told(tools) -%}"
    "{{- '# Tools\\n\\n<tools>' -}}{%- for tool in tools -%}{{- '\\n' + (tool | tojson) -}}{%- endfor -%}"
    "{{- '\\n</tools>\\n\\nCall a tool with JSON between tags:\\n"
    '<tool_call>\\n{"name": NAME, "arguments": OBJECT}\\n</tool_call>\' -}}'
    "{%- endmacro -%}"
    "{{- BOS -}}"
    "{%- if tools and messages[0]['role'] != 'system' -%}"
    "{{- '<|im_start|>system\\n' + told(tools) + 'END' + '\\n' -}}"
    "{%- endif -%}"
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] -}}"
    "{%- if tools and loop.first and message['role'] == 'system' -%}{{- '\\n\\n' + told(tools) -}}{%- endif -%}"
    "{%- if message['tool_calls'] -%}{{- calls(message) -}}{%- endif -%}"
    "{{- 'END' + '\\n' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
"""The template for tokenizers that have none. END is <|im_end|> where that is one token, else the tokenizer's EOS; BOS
is the tokenizer's where it adds one to plain text."""

PINNED_DATE = "26 Jul 2024"
"""Templates that print the date would give other tokens tomorrow; this is the fallback that Llama 3 itself names."""

MOST_SHAPES = 1_024
"""Shapes of conversations whose literals are remembered; beyond, they are forgotten."""


class Template:
    """A tokenizer with the chat template it is used with.

    Raises ModelError where the tokenizer cannot give character offsets, or has no token that could end a turn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
        self.tokenizer, self.name = tokenizer, name
        self.notes: list[str] = []
        self._literals: dict[tuple[tuple[str, bool, str | None], ...], tuple[list[str], list[int]]] = {}
        if not tokenizer.is_fast:
            raise ModelError(
                f"tokenizer of {name}",
                f"{type(tokenizer).__name__} gives no character offsets, so the loss mask cannot be proven",
                "a fast tokenizer (tokenizer.json)",
                "convert it with transformers' convert_slow_tokenizer and save it beside the model",
            )
        if not tokenizer.chat_template:
            tokenizer.chat_template = self._default()
            stop = self._default_stop()
            self.notes.append(f"{name} has no chat template: using ChatML with stop token {stop!r}")
        if "strftime_now" in self.text and "date_string" in self.text:
            self.notes.append(f"the chat template prints a date: pinned to {PINNED_DATE} so that runs can be repeated")

    @property
    def text(self) -> str:
        """The chat template itself."""
        return str(self.tokenizer.chat_template)

    @property
    def digest(self) -> str:
        """Identify the chat template: 32 hex digits."""
        return blake2b(self.text.encode(), digest_size=16).hexdigest()

    @property
    def tokenizer_digest(self) -> str:
        """Identify the tokenizer: 32 hex digits."""
        return blake2b(self.backend.to_str().encode(), digest_size=16).hexdigest()

    @property
    def backend(self) -> Any:
        """The Rust tokenizer (`tokenizers.Tokenizer`): a fast tokenizer has one."""
        fast: Any = self.tokenizer
        return fast.backend_tokenizer

    @cached_property
    def prints(self) -> Prints:
        """Makes fingerprints of what this tokenizer wrote."""
        return Prints(self.tokenizer)

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Ids that may end a turn: the special tokens."""
        added = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return frozenset(added | {int(i) for i in self.tokenizer.all_special_ids})

    @cached_property
    def special(self) -> re.Pattern[str]:
        """Match any special token spelt out in a text: tokenised, it would end a turn or forge one."""
        texts = {str(t) for t in self.tokenizer.all_special_tokens}
        texts |= {t.content for t in self.tokenizer.added_tokens_decoder.values() if t.special}
        texts |= {"<|im_start|>", "<|im_end|>"} if "<|im_start|>" in self.text else set()
        return re.compile("|".join(re.escape(t) for t in sorted(texts, key=len, reverse=True) if t.strip()) or r"(?!)")

    def render(self, record: Record, *, contents: Sequence[str] | None = None, prompt: bool = False) -> str:
        """Render a record's turns, with other `contents` where given; `prompt` opens an assistant turn at the end."""
        texts = contents if contents is not None else [message.content for message in record.messages]
        turns = [_turn(message, text) for message, text in zip(record.messages, texts, strict=True)]
        return str(self._applied(turns, json.loads(record.tools) if record.tools else None, prompt=prompt))

    def render_all(self, records: Sequence[Record]) -> list[str]:
        """Render records that have no tools, in one call of the tokenizer. The template may raise whatever it likes."""
        if not records:
            return []
        turns = [[_turn(message, message.content) for message in record.messages] for record in records]
        return [str(text) for text in self._applied(turns, None)]

    def _applied(self, turns: list[Any], tools: Any, *, prompt: bool = False) -> Any:
        return self.tokenizer.apply_chat_template(
            turns,
            tools=tools,
            tokenize=False,
            add_generation_prompt=prompt,
            enable_thinking=False,
            date_string=PINNED_DATE,
        )

    def literals(self, record: Record) -> tuple[list[str], list[int]]:
        """Give the text around the turns, and the turns' order: literal 0, turn order[0], literal 1, …

        Turns without text are not looked for. Raises NotRenderedError where the template leaves a turn out.
        """
        shape = tuple((message.role, bool(message.content), message.name) for message in record.messages)
        plain = not record.tools and not any(message.tool_calls for message in record.messages)
        if plain and shape in self._literals:
            return self._literals[shape]
        sentinels = [f"xQ7sentinel{i}Q7x" if message.content else "" for i, message in enumerate(record.messages)]
        skeleton = self.render(record, contents=sentinels)
        places: list[tuple[int, int]] = []
        for i, sentinel in enumerate(sentinels):
            if not sentinel:
                continue
            if sentinel not in skeleton:
                raise NotRenderedError(f"the template leaves out the {record.messages[i].role} turn")
            places.append((skeleton.index(sentinel), i))
        places.sort()
        literals, at = [], 0
        for start, i in places:
            literals.append(skeleton[at:start])
            at = start + len(sentinels[i])
        found = [*literals, skeleton[at:]], [i for _, i in places]
        if plain:
            if len(self._literals) >= MOST_SHAPES:  # names or many turns: hardly one is like another
                self._literals.clear()
            self._literals[shape] = found
        return found

    def _default_stop(self) -> str:
        known = self.tokenizer.convert_tokens_to_ids("<|im_end|>")
        if isinstance(known, int) and known in self.stop_ids and known != self.tokenizer.unk_token_id:
            return "<|im_end|>"
        if self.tokenizer.eos_token is None:
            raise ModelError(f"tokenizer of {self.name}", "no chat template and no end-of-text token", "one of the two")
        return str(self.tokenizer.eos_token)

    def _default(self) -> str:
        bos = "bos_token" if self.adds_bos else "''"
        return CHATML.replace("BOS", bos).replace("END", self._default_stop())

    @cached_property
    def adds_bos(self) -> bool:
        """Whether the tokenizer puts its BOS before plain text."""
        bos = self.tokenizer.bos_token_id
        return bos is not None and list(self.tokenizer("a")["input_ids"])[:1] == [bos]


class NotRenderedError(Exception):
    """The template left out something that the record says."""


def _turn(message: Message, text: str) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": text}
    if message.name:
        turn["name"] = message.name
    if message.tool_calls:
        turn["tool_calls"] = json.loads(message.tool_calls)
    return turn
