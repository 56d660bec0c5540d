"""From a record to token ids and a proven loss mask.

The conversation is rendered once by the tokenizer's own chat template and tokenised once, with offsets. Where each
turn's text stands in the rendered text is not guessed: the template is rendered a second time with a sentinel in place
of every turn's text, which gives the literals around the turns; the rendered text must then read, from its first
character to its last, as literal, turn, literal, turn, …

    <|im_start|>user\\n  Who?  <|im_end|>\\n<|im_start|>assistant\\n  Ada.  <|im_end|>  \\n
    literal 0            turn  literal 1                           turn   stop       rest of literal 2
                                                                  └─ supervised ─┘

Supervised are the tokens of each assistant turn and the stop token that follows it, by position, never by id (PAD may
be EOS). The proof decodes them and compares the text; what fails is refused by name.
"""

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from schemas.errors import ModelError
from schemas.record import Message, Record
from train.text.tokens import Example, Tokens

CHATML = (
    "{{ BOS }}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + 'END' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The template for tokenizers that have none. END is <|im_end|> where that is one token, else the tokenizer's EOS; BOS
is the tokenizer's where it adds one to plain text. No token is added to the vocabulary."""

PINNED_DATE = "26 Jul 2024"
"""Templates that print the date would give other tokens tomorrow; this is the fallback that Llama 3 itself names."""

FATAL = ("template_error", "dropped", "no_stop", "unproven")
"""Refusals that condemn the template or tokenizer; the others condemn one record."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A record that cannot be trained on, and why: reason, and the evidence."""

    id: str
    source: str
    reason: str
    detail: str
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Encoded:
    """All records, each an example or a refusal, in input order. `trimmed`: records whose text lost outer space."""

    examples: Tokens
    refusals: tuple[Refusal, ...]
    trimmed: int


@dataclass(frozen=True, slots=True)
class _Turn:
    """Where one turn stands in the rendered text, [start, end) in characters, and where the next turn begins."""

    message: Message
    start: int
    end: int
    next_start: int


@dataclass(frozen=True, slots=True)
class _Rendered:
    record: Record
    text: str
    turns: tuple[_Turn, ...]
    trimmed: bool


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

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Ids that may end a turn: the special tokens."""
        added = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return frozenset(added | {int(i) for i in self.tokenizer.all_special_ids})

    def render(self, record: Record, *, contents: Sequence[str] | None = None, prompt: bool = False) -> str:
        """Render a record's turns, with other `contents` where given; `prompt` opens an assistant turn at the end."""
        texts = contents if contents is not None else [message.content for message in record.messages]
        turns = [_turn(message, text) for message, text in zip(record.messages, texts, strict=True)]
        tools: Any = json.loads(record.tools) if record.tools else None
        rendered = self.tokenizer.apply_chat_template(
            turns,
            tools=tools,
            tokenize=False,
            add_generation_prompt=prompt,
            enable_thinking=False,
            date_string=PINNED_DATE,
        )
        return str(rendered)

    def literals(self, record: Record) -> tuple[list[str], list[int]]:
        """Give the text around the turns, and the turns' order: literal 0, turn order[0], literal 1, …

        Turns without text are not looked for. Raises _NotRenderedError where the template leaves a turn out.
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
                raise _NotRenderedError(f"the template leaves out the {record.messages[i].role} turn")
            places.append((skeleton.index(sentinel), i))
        places.sort()
        literals, at = [], 0
        for start, i in places:
            literals.append(skeleton[at:start])
            at = start + len(sentinels[i])
        found = [*literals, skeleton[at:]], [i for _, i in places]
        if plain:
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


class _NotRenderedError(Exception):
    """The template left out something that the record says."""


def encode(
    records: Sequence[Record], template: Template, *, max_tokens: int, chunk: int = 512, strict: bool = True
) -> Encoded:
    """Turn records into examples of at most `max_tokens` tokens, or refusals; every record is in one of the two.

    Raises ModelError, naming a record and how many there are, where the template or tokenizer is to blame: it fails,
    leaves out a turn, ends an assistant turn without a stop token, or the decoded mask is not the assistant's text.
    Without `strict` these are refusals like the others.
    """
    special = _special_pattern(template.tokenizer)
    examples: list[Example] = []
    refusals: list[Refusal] = []
    trimmed = 0
    for at in range(0, len(records), chunk):
        rendered: list[_Rendered] = []
        for record in records[at : at + chunk]:
            found = _refuse_text(record, special) or _render(record, template)
            if isinstance(found, Refusal):
                refusals.append(found)
            else:
                rendered.append(found)
        for found in _tokenise(rendered, template, max_tokens):
            if isinstance(found, Refusal):
                refusals.append(found)
            else:
                examples.append(found)
        trimmed += sum(r.trimmed for r in rendered)
    if strict:
        _raise_fatal(refusals, template.name, len(records))
    return Encoded(Tokens.of(examples), tuple(refusals), trimmed)


def _turn(message: Message, text: str) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": text}
    if message.name:
        turn["name"] = message.name
    if message.tool_calls:
        turn["tool_calls"] = json.loads(message.tool_calls)
    return turn


def _special_pattern(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Match any special token spelt out in a text: tokenised, it would end a turn or forge one."""
    texts = {str(t) for t in tokenizer.all_special_tokens}
    texts |= {t.content for t in tokenizer.added_tokens_decoder.values() if t.special}
    texts |= {"<|im_start|>", "<|im_end|>"} if "<|im_start|>" in str(tokenizer.chat_template) else set()
    return re.compile("|".join(re.escape(t) for t in sorted(texts, key=len, reverse=True) if t.strip()) or r"(?!)")


def _refuse_text(record: Record, special: re.Pattern[str]) -> Refusal | None:
    """Refuse what no template can make right: nothing to learn, a blank answer, a special token in the text."""
    answers = [message for message in record.messages if message.role == "assistant"]
    if not answers:
        return Refusal(record.id, record.source, "no_targets", "no assistant turn")
    for message in record.messages:
        if found := special.search(message.content):
            return Refusal(record.id, record.source, "special_token", f"{message.role} turn spells out {found[0]!r}")
    if any(not message.content.strip() and not message.tool_calls for message in answers):
        return Refusal(record.id, record.source, "no_targets", "an assistant turn without text")
    return None


def _render(record: Record, template: Template) -> _Rendered | Refusal:
    """Render one record and find its turns."""
    try:
        literals, order = template.literals(record)
        text = template.render(record)
    except _NotRenderedError as error:
        return Refusal(record.id, record.source, "dropped", str(error))
    except Exception as error:  # noqa: BLE001 # a template is somebody's program: jinja raises whatever it likes
        return Refusal(record.id, record.source, "template_error", f"the template fails: {error}")
    if missing := _missing_names(record, text):
        return Refusal(record.id, record.source, "dropped", f"the template leaves out {missing}")
    spans = _walk(text, literals, [record.messages[i].content for i in order])
    if spans is None:
        return Refusal(record.id, record.source, "rewritten", "the template changes the text of a turn")
    starts = [start for start, _, _ in spans]
    turns = tuple(
        _Turn(record.messages[i], start, end, following)
        for i, (start, end, _), following in zip(order, spans, [*starts[1:], len(text)], strict=True)
        if record.messages[i].content.strip()
    )
    silent = [i for i, message in enumerate(record.messages) if message.tool_calls and not message.content.strip()]
    called = tuple(turn for i in silent if (turn := _silent_turn(record, i, text, template)))
    return _Rendered(record, text, (*turns, *called), any(cut for _, _, cut in spans))


def _silent_turn(record: Record, i: int, text: str, template: Template) -> _Turn | None:
    """Find a turn that calls tools and says nothing: what its record reads with it and did not read before it.

    None where the text does not begin as the record does that ends here: then nothing proves where the turn stands.
    """
    try:
        before = template.render(replace(record, messages=record.messages[:i]), prompt=True)
        until = template.render(replace(record, messages=record.messages[: i + 1]))
    except Exception:  # noqa: BLE001 # as in _render: many templates refuse half a conversation
        return None
    if not (text.startswith(until) and until.startswith(before)):
        return None
    return _Turn(record.messages[i], len(before), len(before), len(until))


def _missing_names(record: Record, text: str) -> str | None:
    """Name the first tool or tool call that the rendered text does not mention."""
    for kind, source in (("tool", record.tools), *(("tool call", m.tool_calls) for m in record.messages)):
        for name in _names(source):
            if name not in text:
                return f"the {kind} {name!r}"
    return None


def _names(source: str | None) -> list[str]:
    """Give the names in a JSON list of tools or tool calls."""
    return [str(entry.get("function", entry).get("name", "")) for entry in json.loads(source)] if source else []


def _walk(text: str, literals: Sequence[str], contents: Sequence[str]) -> list[tuple[int, int, bool]] | None:
    """Read the text as literal, turn, literal, turn, …, literal; turns as they are, or with outer space trimmed.

    Gives (start, end, trimmed) per turn in characters, or None where the text reads otherwise.
    """
    spans: list[tuple[int, int, bool]] = []
    if not text.startswith(literals[0]):
        return None
    at = len(literals[0])
    for i, content in enumerate(contents):
        last = i == len(contents) - 1
        for variant in dict.fromkeys((content, content.strip(), content.lstrip(), content.rstrip())):
            end = at + len(variant)
            rest_fits = text[end:] == literals[i + 1] if last else text.startswith(literals[i + 1], end)
            if text.startswith(variant, at) and rest_fits:
                spans.append((at, end, variant != content))
                at = end + len(literals[i + 1])
                break
        else:
            return None
    return spans


def _tokenise(rendered: Sequence[_Rendered], template: Template, max_tokens: int) -> list[Example | Refusal]:
    """Tokenise texts that were found to be sound; mark and prove the targets."""
    if not rendered:
        return []
    tokens = template.tokenizer(
        [r.text for r in rendered], add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    results: list[Example | Refusal] = []
    for r, ids, offsets in zip(rendered, tokens["input_ids"], tokens["offset_mapping"], strict=True):
        if len(ids) > max_tokens:
            detail = f"{len(ids)} tokens, the context holds {max_tokens}"
            results.append(Refusal(r.record.id, r.record.source, "overlong", detail, len(ids)))
        else:
            results.append(_mark(r, np.asarray(ids, np.int32), np.asarray(offsets, np.int64), template))
    return results


def _mark(
    r: _Rendered, ids: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], template: Template
) -> Example | Refusal:
    """Mark the tokens of each assistant turn and its stop token. Offsets: (tokens, 2) characters."""
    starts, ends = offsets[:, 0], offsets[:, 1]
    supervised = np.zeros(len(ids), np.bool_)
    for turn in r.turns:
        if turn.message.role != "assistant":
            continue
        first = int(np.searchsorted(ends, turn.start, side="right"))
        silent = not turn.message.content.strip()
        stop = (_call_stop if silent else _stop_after)(r.text, turn, ids, offsets, template.stop_ids)
        if stop is None and silent:
            continue  # nothing proves which tokens are the call: they are read, and no targets
        if stop is None:
            detail = f"no stop token after the assistant turn that ends {r.text[max(0, turn.end - 20) : turn.end]!r}"
            return Refusal(r.record.id, r.record.source, "no_stop", detail, len(ids))
        # A first token that also holds the space before the turn is fine, one that holds other text is not.
        before = r.text[int(starts[first]) : turn.start]
        told = template.tokenizer.decode(
            ids[first : stop + 1].tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        said = r.text[turn.start : int(ends[stop])]
        if before.strip() or not _same(str(told), said):
            if silent:
                continue
            detail = f"supervised tokens read {str(told)[:80]!r} where the turn and its stop token are {said[:80]!r}"
            return Refusal(r.record.id, r.record.source, "unproven", detail, len(ids))
        supervised[first : stop + 1] = True
    if not supervised[1:].any():
        return Refusal(r.record.id, r.record.source, "no_targets", "only tool calls that cannot be proven", len(ids))
    return Example(r.record.id, r.record.source, r.record.weight, ids, supervised)


def _stop_after(
    text: str, turn: _Turn, ids: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], stop_ids: frozenset[int]
) -> int | None:
    """Find the index of the special token that ends a turn. Only space, or the turn's tool calls, may stand between."""
    for i in range(int(np.searchsorted(offsets[:, 0], turn.end, side="left")), len(ids)):
        if int(offsets[i, 0]) >= turn.next_start:
            return None
        if int(ids[i]) in stop_ids:
            between = text[turn.end : int(offsets[i, 0])]
            return i if turn.message.tool_calls or not between.strip() else None
    return None


def _call_stop(
    text: str, turn: _Turn, ids: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], stop_ids: frozenset[int]
) -> int | None:
    """Find the index of the special token that ends a turn without text: all its calls before it, only space after."""
    for i in range(int(np.searchsorted(offsets[:, 0], turn.end, side="left")), len(ids)):
        start, end = (int(at) for at in offsets[i])
        if start >= turn.next_start:
            return None
        if int(ids[i]) in stop_ids and not text[end : turn.next_start].strip():
            said = text[turn.end : start]
            return i if all(name in said for name in _names(turn.message.tool_calls)) else None
    return None


def _same(told: str, said: str) -> bool:
    """Compare as tokenizers keep text: some drop the space before a first word, some compose letters (NFC)."""
    if told == said:
        return True
    return unicodedata.normalize("NFC", told).lstrip() == unicodedata.normalize("NFC", said).lstrip()


def _raise_fatal(refusals: Sequence[Refusal], name: str, total: int) -> None:
    fatal = [refusal for refusal in refusals if refusal.reason in FATAL]
    if not fatal:
        return
    first = fatal[0]
    raise ModelError(
        f"chat template of {name}",
        f"{first.detail} (record {first.id}, source {first.source}; {len(fatal)} of {total} records)",
        "every turn in the rendered text, each assistant turn closed by a stop token",
        "reject these records in the dataset, or give the tokenizer another chat_template",
    )
