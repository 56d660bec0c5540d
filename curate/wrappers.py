"""Wrappers: prompt formats of other toolkits that stand as text inside a field, taken apart into turns.

A format is recognised only where it is whole: it begins the text, its turns alternate, each turn ends as the format has
it, and no marker of it is left inside a turn. What mentions a format, or shows a piece of one, stays as it is.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_BLANK_LINES_AHEAD = re.compile(r"\A(?:[^\S\n]*\n)+")
_LAST_END = re.compile(r"(?:</s>|<eos>|<\|endoftext\|>|<\|end_of_text\|>)\s*\Z")  # tokenizers' ends of a text
_TURNS = re.compile("s?uc?a(?:ua)*$")  # first letters of system, user, context, assistant


@dataclass(frozen=True)
class Turn:
    """What one speaker says. `role` is system, user, assistant, or context (the material of the first user turn)."""

    role: str
    text: str


@dataclass(frozen=True)
class Wrapper:
    """A format: a marker ahead of each turn, and what stands at a turn's end.

    `marker` finds the markers; its first group that matched is looked up in `roles`. `opening` matches what may stand
    ahead of the first marker, `end` what must follow a turn: every turn, or those of the assistant alone. `residue`
    finds what no turn may hold. `signs` are letters of which every text in the format holds one.
    """

    name: str
    signs: tuple[str, ...]
    marker: re.Pattern[str]
    roles: Mapping[str, str]
    opening: re.Pattern[str] = field(
        default_factory=lambda: re.compile(r"\s*(?:(?:<s>|<bos>|<\|begin_of_text\|>)\s*)?")
    )
    end: re.Pattern[str] | None = None
    end_of_all: bool = False
    residue: re.Pattern[str] | None = None

    def parse(self, text: str) -> list[Turn] | None:
        """Give the turns of a text that is whole in this format; the last has no text where the answer is left open."""
        markers = list(self.marker.finditer(text))
        if not markers or not self.opening.fullmatch(text, 0, markers[0].start()):
            return None
        turns: list[Turn] = []
        for here, after in zip(markers, [*markers[1:], None], strict=True):
            role = self.roles.get(next(group for group in here.groups() if group is not None), "")
            said = text[here.end() : after.start() if after else len(text)]
            is_open = after is None and role == "assistant" and not said.strip()
            ended = None if is_open else self._without_end(role, said)
            if not is_open and ended is None:
                return None
            turns.append(Turn(role, _trimmed(_LAST_END.sub("", ended or "") if after is None else ended or "")))
        return _in_order(turns) if self._clean(turns) else None

    def answer(self, text: str) -> str | None:
        """Give an answer from a field of its own without the end of the format; None where markers are left."""
        ended = self._without_end("assistant", text)
        ended = _LAST_END.sub("", text if ended is None else ended)
        return _trimmed(ended) if self._clean([Turn("assistant", ended)]) else None

    def _without_end(self, role: str, said: str) -> str | None:
        if self.end is None or not (self.end_of_all or role == "assistant"):
            return said
        ends = list(self.end.finditer(said))
        return said[: ends[-1].start()] if ends and not said[ends[-1].end() :].strip() else None

    def _clean(self, turns: Sequence[Turn]) -> bool:
        patterns = [p for p in (self.marker, self.end, self.residue) if p]
        return not any(p.search(turn.text) for p in patterns for turn in turns)


def _trimmed(text: str) -> str:
    """Remove blank lines ahead and blanks behind; of a single line, also the blanks ahead (else: it may be code)."""
    text = _BLANK_LINES_AHEAD.sub("", text.rstrip())
    return text if "\n" in text else text.lstrip()


def _in_order(turns: list[Turn]) -> list[Turn] | None:
    """Take the turns where roles alternate and nobody but the system, or an answer left open, says nothing."""
    if not _TURNS.match("".join(turn.role[:1] or "?" for turn in turns)):
        return None
    if any(not t.text for t in turns[:-1] if t.role in ("user", "assistant")):
        return None
    return [t for t in turns if t.text or t.role == "assistant"]


_ROLES = {"system": "system", "user": "user", "assistant": "assistant", "model": "assistant"}
_SPEAKERS = {"USER": "user", "ASSISTANT": "assistant", "Human": "user", "Assistant": "assistant"}
_VICUNA_OPENING = re.compile(
    r"\s*(?:<s>\s*)?(?:A chat between a curious (?:user|human) and an artificial intelligence assistant\.\s+The"
    r" assistant gives helpful, detailed, and polite answers to the (?:user|human)'s (?:questions|input)\.\s*)?"
)
_ALPACA_OPENING = re.compile(
    r"\s*(?:<s>\s*)?(?:Below is an instruction that describes a task"
    r"(?:, paired with an input that provides further context)?\.\s+Write a response that appropriately"
    r" completes the request\.\s*)?"
)


@dataclass(frozen=True)
class _Llama2(Wrapper):
    """Llama-2 puts the system prompt inside the first user turn."""

    def parse(self, text: str) -> list[Turn] | None:
        turns = super().parse(text)
        if not turns:
            return turns
        if inside := re.fullmatch(r"<<SYS>>(.*?)<</SYS>>(.*)", turns[0].text, re.DOTALL):
            system, asked = (_trimmed(part) for part in inside.groups())
            turns = [*([Turn("system", system)] if system else []), Turn("user", asked), *turns[1:]]
        return None if any(re.search("<</?SYS>>", t.text) or not t.text for t in turns[:-1]) else turns


WRAPPERS: tuple[Wrapper, ...] = (
    Wrapper(
        "Alpaca",
        ("### Response:",),
        re.compile(r"^### (Instruction|Input|Response):[^\S\n]*(?:\n|\Z|(?=\S))", re.MULTILINE),
        {"Instruction": "user", "Input": "context", "Response": "assistant"},
        _ALPACA_OPENING,
    ),
    Wrapper(
        "ChatML",
        ("<|im_start|>",),
        re.compile(r"<\|im_start\|>(system|user|assistant)(?:\n|\Z)"),
        _ROLES,
        end=re.compile(r"<\|im_end\|>(?:\s*<\|endoftext\|>)?"),
        end_of_all=True,
        residue=re.compile(r"<\|im_start\|>"),
    ),
    Wrapper(
        "Llama-3",
        ("<|start_header_id|>",),
        re.compile(r"<\|start_header_id\|>(system|user|assistant)<\|end_header_id\|>"),
        _ROLES,
        end=re.compile(r"<\|eot_id\|>(?:\s*<\|end_of_text\|>)?|<\|end_of_text\|>"),
        end_of_all=True,
        residue=re.compile(r"<\|(?:start|end)_header_id\|>"),
    ),
    _Llama2(
        "Llama-2",
        ("[INST]",),
        re.compile(r"(?:(?:<s>\s*)?(\[INST\])|(\[/INST\])) ?"),
        {"[INST]": "user", "[/INST]": "assistant"},
        re.compile(r"\s*"),
        end=re.compile(r"</s>"),
    ),
    Wrapper(
        "Zephyr",
        ("<|user|>",),
        re.compile(r"<\|(system|user|assistant)\|>(?:\n|\Z)"),
        _ROLES,
        end=re.compile(r"</s>|<\|end\|>(?:\s*<\|endoftext\|>)?"),
        end_of_all=True,
        residue=re.compile(r"<\|(?:system|user|assistant)\|>"),
    ),
    Wrapper(
        "Gemma",
        ("<start_of_turn>",),
        re.compile(r"<start_of_turn>(user|model)(?:\n|\Z)"),
        _ROLES,
        end=re.compile(r"<end_of_turn>(?:\s*<eos>)?"),
        end_of_all=True,
        residue=re.compile(r"<start_of_turn>"),
    ),
    Wrapper(
        "Vicuna",
        ("USER:",),
        re.compile(r"(?:\A|(?<=\s)|(?<=</s>))(USER|ASSISTANT):(?: |(?=\s)|\Z)"),
        _SPEAKERS,
        _VICUNA_OPENING,
        end=re.compile(r"</s>"),
    ),
    Wrapper(
        "Guanaco",
        ("### Human:",),
        re.compile(r"### (Human|Assistant):(?: |(?=\s)|\Z)"),
        _SPEAKERS,
        _VICUNA_OPENING,
    ),
    Wrapper(
        "HH-RLHF",
        ("Human:",),
        re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):(?: |(?=\s)|\Z)"),
        _SPEAKERS,
        re.compile(r"\s*"),
        residue=re.compile(r"(?m)^(?:Human|Assistant):"),
    ),
)
"""The formats that are known, each of them distinct from the others by its markers."""

SIGNS = tuple(dict.fromkeys(sign for wrapper in WRAPPERS for sign in wrapper.signs))
"""A text without any of these is in none of the formats."""


@dataclass(frozen=True)
class Unwrapped:
    """A row after a wrapper was taken apart, and the name of its format."""

    messages: list[dict[str, Any]]
    context: str | None
    format: str


def unwrap(messages: Sequence[Mapping[str, Any]], context: str | None) -> Unwrapped | None:
    """Take a row apart whose user turn, or only turn, is a whole conversation or a prompt in one of the formats.

    The conversation may stand whole in one field with nothing in the other; or the prompt stands in the user turn, up
    to where the answer begins, and the answer is the assistant's turn. None where the row is not
    wrapped with certainty.
    """
    asked, answered, system = _fields(messages)
    if asked is None or (context or "").strip():
        return None
    for wrapper in WRAPPERS:
        turns = _conversation(wrapper, asked, answered or "")
        if turns is None or (system and turns[0].role == "system"):
            continue
        said = [Turn("system", system)] if system else []
        said += [turn for turn in turns if turn.role != "context"]
        if answered is None and not said[-1].text:
            said.pop()  # the row never had an answer
        material = [turn.text for turn in turns if turn.role == "context"]
        rows = [{"role": t.role, "content": t.text, "name": None, "tool_calls": None} for t in said]
        return Unwrapped(rows, material[0] if material else context, wrapper.name)
    return None


def _fields(messages: Sequence[Mapping[str, Any]]) -> tuple[str | None, str | None, str]:
    """Give the one user text, the one assistant text (None: no such turn) and the system prompt; else no user text."""
    roles = "".join(str(m["role"])[:1] for m in messages)
    if not re.fullmatch("s?ua?", roles) or any(m.get("name") or m.get("tool_calls") for m in messages):
        return None, None, ""
    texts = {m["role"]: m["content"] or "" for m in messages}
    return texts.get("user"), texts.get("assistant"), texts.get("system", "").strip()


def _conversation(wrapper: Wrapper, asked: str, answered: str) -> list[Turn] | None:
    """Read the two fields of a row as one conversation."""
    if not any(sign in asked or sign in answered for sign in wrapper.signs):
        return None
    if not asked.strip():
        whole = wrapper.parse(answered)
        return whole if whole and whole[-1].text else None
    turns = wrapper.parse(asked)
    if turns is None or not answered.strip():
        return turns
    answer = wrapper.answer(answered)
    return [*turns[:-1], Turn("assistant", answer)] if not turns[-1].text and answer is not None else None
