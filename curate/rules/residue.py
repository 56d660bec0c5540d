"""Residue: what the text of a prompt template or of another toolkit leaves behind in an answer."""

import re

import polars as pl

from curate.rules.rule import Example, Rule, any_of, around, fix, reject, review, where

_TOKENS = (
    "<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|endoftext|>", "<|end_of_text|>", "<|begin_of_text|>",
    "<|eot_id|>", "<|eom_id|>",
    "<|start_header_id|>", "<|end_header_id|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|prompter|>",
    "<|endofprompt|>", "<|end_of_turn|>", "<start_of_turn>", "<end_of_turn>", "<|eot|>", "<|return|>",
    "<｜end▁of▁sentence｜>",
    "<｜begin▁of▁sentence｜>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<bot>:", "<human>:", "[EOS]", "<eos>",
    "<EOS>", "<bos>",
)  # fmt: skip
"""Special tokens of chat formats, written out. `<s>` and `</s>` are HTML too, and count only at an answer's edges."""

_EDGES = sorted({*_TOKENS, "<s>", "</s>", "<pad>", "[PAD]", "<unk>"} - {"<bot>:", "<human>:"}, key=len, reverse=True)
_HEADS = (*_EDGES, "<bot>:")
_ROLE = re.compile(r"(?:(user|system)\b|assistant\s*\n\s*)")
_LABEL = re.compile(
    r"\A\s*(?:#{2,3}\s*(?:Response|Output|Answer|Assistant)\s*:|ASSISTANT:(?![\s\S]*\n[A-Z][A-Z .]*:))[^\S\n]*\n*"
)
"""The heading of an answer; the first of several speakers in capitals belongs to a play."""
_ABOUT_TOKENS = (
    "token", "template", "prompt format", "chat format", "chatml", "html", "markup", "strike", "struck", "llama",
    "mistral", "gemma", "zephyr", "seq2seq", "decoder", "vocabulary",
)  # fmt: skip
"""A prompt with one of these, in any case, may ask for special tokens or for tags that look like them."""
_CODE = r"(?s)```.*?(?:```|\z)|`[^`\n]*`"
_MENTION = rf"{_CODE}|\p{{Ll}}[,:]? (?:" + "|".join(map(re.escape, _TOKENS)) + r")(?:[,.;:)]|$| \p{Ll})"
"""A token that a sentence or a piece of code speaks of; what leaks stands behind a sentence or begins a line."""

_HEADINGS = (
    r"(?im)^[^\S\n]*#{2,3}[^\S\n]*(?:instruction|response|input|human|assistant|user|system)[^\S\n]*:"
    r"|^[^\S\n]*below\s+is\s+an\s+instruction\s+that\s+describes\s+a\s+task"
    r"|^a\s+chat\s+between\s+a\s+curious\s+(?:user|human)\s+and\s+an\s+artificial\s+intelligence\s+assistant"
)
_SURE_HEADINGS = _HEADINGS.replace(
    "instruction|response|input|human|assistant|user|system", "instruction|human|assistant"
)
_MERGED = (
    r"(?im)^[^\S\n]*(?:#+[^\S\n]*)?\d{1,3}[.)][^\S\n]*(?:instruction|task|prompt)[^\S\n]*:[\s\S]*?"
    r"^[^\S\n]*(?:#+[^\S\n]*)?\d{1,3}[.)][^\S\n]*(?:input|output|response|answer)[^\S\n]*:"
)
"""The generator's own list of tasks, going on inside an answer: a numbered instruction and its input or output."""
_SPEAKER = r"(?m)[\s\S]\n[^\S\n]*(?:Human|User|HUMAN|USER|Question)[^\S\n]*:[^\S\n]*\S"
_SPEAKERS = ("Human:", "User:", "HUMAN:", "USER:", "Question:", "Human :", "User :", "Question :")
_ANY_SPEAKER = r"^\W*(?:\*\*)?[A-Z][\w .']{0,20}(?:\*\*)?:|(?i:dialog|conversation|chat|script|interview|transcript)"
_DIALOGUE = (
    "dialog",
    "conversation",
    "chat",
    "script",
    "interview",
    "role",
    "play",
    "scene",
    "transcript",
    "q&a",
    "faq",
)

_answer, _prompt = pl.col("answer"), pl.col("composed")


def _without_edges(text: str) -> str:
    """Take special tokens and a template's label off both ends; a text that is nothing else stays as it is.

    The text is read by places and not by an expression, which would try each token of a long run as a beginning.
    """
    start, end = _after_tokens(text), len(text)
    if not _ends_struck(text):
        while token := next((token for token in _EDGES if text.endswith(token, start, _last(text, start, end))), ""):
            end = _last(text, start, end) - len(token)
        end = len(text) if end == len(text) else _last(text, start, end)
    stripped = _LABEL.sub("", text[start:end])
    return stripped if stripped.strip() else text


def _after_tokens(text: str) -> int:
    """Give the place behind the tokens that begin a text, and the name of the assistant behind them."""
    at, found = 0, _first(text, 0)
    while token := next((token for token in _HEADS if text.startswith(token, found)), ""):
        at = found + len(token)
        found = _first(text, at)
    role = _ROLE.match(text, found) if at else None
    if role and role[1]:
        return 0  # somebody else's turn: no answer
    return role.end() if role else found if at else 0


def _first(text: str, at: int) -> int:
    """Give the place of the first letter that is no blank."""
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _last(text: str, start: int, end: int) -> int:
    """Give the place behind the last letter that is no blank."""
    while end > start and text[end - 1].isspace():
        end -= 1
    return end


def _ends_struck(text: str) -> bool:
    """Say whether a text ends in a word that is struck out by a tag of HTML, which opens inside the text."""
    kept = text.rstrip()
    opens = kept.rfind("<s>")
    return (
        kept.endswith("</s>")
        and opens > 0
        and not text[:opens].isspace()
        and kept.find("<", opens + 3) == len(kept) - len("</s>")
    )


def _without(text: pl.Expr, pattern: str, test: pl.Expr) -> pl.Expr:
    """Give a text without what a pattern finds, where a cheap test holds, and "" elsewhere."""
    return pl.when(test).then(text).otherwise(pl.lit("")).str.replace_all(pattern, " ")


def _has_residue() -> pl.Expr:
    """Say whether an answer holds headings of a template. Some of these also head the parts of a document."""
    bare = _without(_answer, _CODE, any_of(_answer, "##", "elow is an instruction", " a curious "))
    all_headings = bare.str.count_matches(r"(?m)^[^\S\n]*#{1,6}[^\S\n]*\w")
    alone = all_headings == bare.str.count_matches(_HEADINGS)
    return bare.str.contains(_SURE_HEADINGS) | (bare.str.contains(_HEADINGS) & alone)


MERGED_INSTRUCTION: Rule = reject(
    "merged_instruction",
    where(any_of(_answer, "instruction:", "task:", "prompt:", "instruction :", fold=True), _answer).str.contains(
        _MERGED
    )
    & ~any_of(_prompt, "instruction", "task", "prompt", fold=True),
    around("answer", r"(?im)^[^\S\n]*(?:#+[^\S\n]*)?\d{1,3}[.)][^\S\n]*(?:instruction|task|prompt)[^\S\n]*:"),
    origin="AlpacaDataCleaned: merged instructions",
    hit=Example(
        "Name a peak.", "Kilimanjaro.\n6. Instruction: Thank a friend.\n6. Input:\n<noinput>\n6. Output:\nDear friend,"
    ),
    near=Example("How do I plan a lesson?", "1. Instruction: tell them what to do.\n2. Practice: let them try."),
)

RULES: list[Rule] = [
    fix(
        "edge_tokens",
        ["answer"],
        lambda text: any_of(text, *_EDGES, "<bot>:", "##", "ASSISTANT:"),
        _without_edges,
        unless=any_of(pl.col("user"), *_ABOUT_TOKENS, fold=True),
        origin="open-instruct: stray special tokens",
        hit=Example(answer="It is a long enough answer.</s>"),
        near=Example(answer="Write <s>old</s> to strike a word out."),
    ),
    reject(
        "special_tokens",
        any_of(_without(_answer, _MENTION, any_of(_answer, *_TOKENS)), *_TOKENS)
        & ~any_of(_prompt, *_TOKENS)
        & ~any_of(_prompt, *_ABOUT_TOKENS, fold=True),
        around("answer", "|".join(map(re.escape, _TOKENS))),
        origin="open-instruct: stray special tokens",
        hit=Example(answer="It rains.<|im_end|>\n<|im_start|>user\nAnd now?"),
        near=Example("How is a chat template closed?", "With <|im_end|> after each turn."),
    ),
    reject(
        "template_residue",
        _has_residue() & ~any_of(_prompt, "###", "template", "prompt", fold=True),
        around("answer", _HEADINGS),
        origin="Alpaca and Vicuna prompt templates",
        hit=Example(answer="It rains.\n\n### Instruction:\nSay it again."),
        near=Example(answer="## Instructions\nStir well.\n\n### Input and output\nWater in, tea out."),
    ),
    review(
        "speaker_leak",
        where(any_of(_answer, *_SPEAKERS), _answer).str.contains(_SPEAKER)
        & ~_answer.str.head(200).str.contains(_ANY_SPEAKER)
        & ~any_of(_prompt, *_DIALOGUE, fold=True),
        around("answer", r"\n[^\S\n]*(?:Human|User|HUMAN|USER|Question)[^\S\n]*:"),
        origin="open-instruct",
        hit=Example(answer="It rains today.\nHuman: And tomorrow?\nAssistant: It will be dry."),
        near=Example(answer="Human beings say it rains.\nUsers of umbrellas agree."),
    ),
]
