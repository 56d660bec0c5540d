"""Residue: what the text of a prompt template or of another toolkit leaves behind in an answer."""

import re

import polars as pl

from curate.rules.rule import Example, Rule, any_of, around, finds, fix, reject, review, where

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
_END = re.compile(r"(?:\s*(?:" + "|".join(map(re.escape, _EDGES)) + r"))+\s*\Z")
_START = re.compile(r"\A(?:\s*(?:" + "|".join(map(re.escape, [*_EDGES, "<bot>:"])) + r"))+\s*(?:assistant\s*\n+)?")
_LABEL = re.compile(r"\A\s*(?:#{2,3}\s*(?:Response|Output|Answer|Assistant)\s*:|ASSISTANT:)[^\S\n]*\n*")

_HEADINGS = (
    r"(?im)^[^\S\n]*#{2,3}[^\S\n]*(?:instruction|response|input|human|assistant|user|system)[^\S\n]*:"
    r"|^[^\S\n]*below\s+is\s+an\s+instruction\s+that\s+describes\s+a\s+task"
    r"|^a\s+chat\s+between\s+a\s+curious\s+(?:user|human)\s+and\s+an\s+artificial\s+intelligence\s+assistant"
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
    stripped = _LABEL.sub("", _END.sub("", _START.sub("", text)))
    return stripped if stripped.strip() else text


MERGED_INSTRUCTION: Rule = reject(
    "merged_instruction",
    where(any_of(_answer, "instruction:", "task:", "prompt:", "instruction :", fold=True), _answer).str.contains(
        _MERGED
    ),
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
        origin="open-instruct: stray special tokens",
        hit=Example(answer="It is a long enough answer.</s>"),
        near=Example(answer="Write <s>old</s> to strike a word out."),
    ),
    reject(
        "special_tokens",
        any_of(_answer, *_TOKENS) & ~any_of(_prompt, *_TOKENS, "token", "template", "prompt format"),
        around("answer", "|".join(map(re.escape, _TOKENS))),
        origin="open-instruct: stray special tokens",
        hit=Example(answer="It rains.<|im_end|>\n<|im_start|>user\nAnd now?"),
        near=Example("How is a chat template closed?", "With <|im_end|> after each turn."),
    ),
    reject(
        "template_residue",
        finds(where(any_of(_answer, "##", "elow is an instruction", " a curious "), _answer), _HEADINGS)
        & ~any_of(_prompt, "###", "template", "prompt", fold=True),
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
