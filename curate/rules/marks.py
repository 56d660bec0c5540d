"""Marks: characters of another encoding, citation marks of an encyclopaedia, and fences of code that never close."""

import re

import ftfy
import polars as pl

from curate.rules.rule import Example, Rule, any_of, fix, review, tail_shown, where

_MOJIBAKE = (
    "Ã", "Â", "â€", "â\x80", "â\x82", "â\x84", "â‚", "â„", "âˆ", "â†", "Å", "Ä", "Ð", "Ñ", "ð", "ï»", "ï¿", "Î",
    "Ï", "√", "‚Ä", "¬", "Ø", "Ù", "×", "à", "Ġ", "вЂ", "Р", "С",
)  # fmt: skip
"""One of these begins every two bytes that were read as Latin-1, Windows-1252, MacRoman or Windows-1251."""

_ABOUT_ENCODING = ("mojibake", "encoding", "utf-8", "utf8", "latin-1", "latin1", "iso-8859", "windows-1252", "cp1252")
"""A row with one of these, in any case, may show misread letters because it is about them."""

_NOTE = r"(?:\d{1,3}(?:\s*[,–-]\s*\d{1,3})*|(?:n|nb|note|notes|fn|Note|T|Jp|lower-alpha|a)\s?\d{1,2}|N\s\d{1,2}|[a-z])"
_DEMAND = (
    r"(?:citation|better source|page|clarification|when|who|which|where|by whom|according to whom|full citation"
    r"|original research|dubious|failed"
    r"|verification|non-primary source|timeframe|disputed|update|vague|unreliable source|quantify|specify|attribution)"
    r"(?:\s(?:needed|verification|–\s?discuss|- discuss|\?))*\??"
)
_CITATION = re.compile(rf"(?<=[\w.,;:!?)\"”’%])(?:\[(?:{_NOTE}|{_DEMAND})\])+(?![\[(:\w=]|\s*=)")
"""A mark right behind a word or a stop. Behind it stands a blank or the end, as in prose; not what goes on as code."""
_GLUED = re.compile(rf"(?<=[.!?])\[(?:{_NOTE}|{_DEMAND})\](?=\p{{Lu}})".replace(r"\p{Lu}", "[A-ZÀ-ÖØ-Þ]"))
_INDEXED = re.compile(r"\w\[(?:\d+|[a-z])\]")
_CODE = re.compile(
    r"```|`|[{};=]|\b(?:def|return|function|array|list|import|print|matrix|index|regex|const|var|int)\b|\$\$|\\\w"
)
_FENCE = re.compile(r"(?m)^[^\S\n]*(?:`{3,}|~{3,})([^\n`]*)$")
_PROSE_LINE = re.compile(r"^(?!\s*(?:#|//|--|\*|/\*|\"\"\"|'))[A-Z][\w',]*(?: [\w',()`-]+){4,}[.:!?]\s*$")


def _without_mojibake(text: str) -> str:
    return ftfy.fix_encoding(text) if any(sign in text for sign in _MOJIBAKE) else text


def _without_citations(text: str) -> str:
    """Remove citation marks from prose. A text with any sign of code or maths, or that indexes, stays as it is."""
    if _CODE.search(text):
        demands = re.compile(rf"(?<=[\w.,;:!?)\"”’])\[{_DEMAND}\]")
        return demands.sub("", text) if "needed]" in text else text
    marks = _CITATION.findall(text)
    plain = [mark for mark in marks if not re.search(r"[.,;:!?)\"”’%]\[", mark)]
    if plain and len(_INDEXED.findall(text)) > 0 and not re.search(r"[.,;!?)\"”’]\[(?:\d|citation|note|nb)", text):
        return text  # only words with marks, no sentence: x[1] may be an index
    return _GLUED.sub(" ", _CITATION.sub("", text))


def _open_fence(text: str) -> re.Match[str] | None:
    fences = list(_FENCE.finditer(text))
    return fences[-1] if len(fences) % 2 else None


def _certain(text: str) -> bool:
    """Say whether what stands behind the open fence is all code: it has text, and no line that reads as prose."""
    opened = _open_fence(text)
    if opened is None or (len(_FENCE.findall(text)) > 1 and not opened[1].strip()):
        return False
    if text.count("```") != sum(1 for fence in _FENCE.finditer(text) if "```" in fence[0]):
        return False
    code = text[opened.end() :]
    return bool(code.strip()) and not any(_PROSE_LINE.match(line) for line in code.split("\n"))


def _with_closed_fence(text: str) -> str:
    opened = _open_fence(text)
    if opened is None or not _certain(text):
        return text
    sign = opened[0].strip()[0]
    return f"{text.rstrip()}\n{sign * 3}"


def _odd_fences(text: pl.Expr) -> pl.Expr:
    return (text.str.count_matches("```", literal=True) % 2 == 1) | (
        text.str.count_matches(r"(?m)^[^\S\n]*(?:`{3,}|~{3,})[^\n`]*$") % 2 == 1
    )


_answer = pl.col("answer")

RULES: list[Rule] = [
    fix(
        "mojibake",
        ["system", "user", "context", "answer"],
        lambda text: any_of(text, *_MOJIBAKE),
        _without_mojibake,
        unless=pl.any_horizontal(
            [any_of(pl.col(column), *_ABOUT_ENCODING, fold=True) for column in ("user", "context", "answer")]
        ),
        origin="ftfy",
        hit=Example(answer="The cafÃ© is closed, itâ€™s late."),
        near=Example(answer="The café is closed. ÂNGELA is Portuguese."),
    ),
    fix(
        "open_fence",
        ["answer"],
        lambda text: any_of(text, "```", "~~~"),
        _with_closed_fence,
        hit=Example("Print a word.", "Like this:\n\n```python\nprint('rain')"),
        near=Example("Print a word.", "Like this:\n\n```python\nprint('rain')\n```"),
    ),
    review(
        "broken_fence",
        _odd_fences(where(any_of(_answer, "```"), _answer)),
        tail_shown("answer"),
        hit=Example("Print a word.", "Like this:\n\n```python\nprint('rain')\n\nThis prints a word on the screen."),
        near=Example(
            "Print a word.", "Like this:\n\n```python\nprint('rain')\n```\n\nThis prints a word on the screen."
        ),
    ),
]

CITATION_MARKS: Rule = fix(
    "citation_marks",
    ["context", "answer"],
    lambda text: where(any_of(text, "]"), text).str.contains(r"[^\s\[]\[[^\]\n]{1,40}\]"),
    _without_citations,
    origin="Dolly; Argilla's clean-up of it, which also changed code",
    hit=Example("Where is it?", context="The bay lies in the north.[3] It is wide.[citation needed]"),
    near=Example("What does it print?", context="The first of them is a[1] = 3."),
)
