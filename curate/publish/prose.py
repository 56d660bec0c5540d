"""Prose: somebody's words in Markdown, readable as source and never read as markup.

Characters that Markdown may take for markup are written with a backslash before them, which CommonMark 0.31 (section
2.4) shows as the character alone.
"""

import re

from curate.review.markdown import clean

_MARKUP = re.compile(r"[\\`*\[\]<>|#&~$]|(?<!\w)_|_(?!\w)")
_START = re.compile(r"^(\d+(?=[.)](?:\s|$))|(?=[-+=]))(.)")
"""What makes a list or a heading of a line: - + = and, after a number, . and )."""


def inline(text: str) -> str:
    """Write a text on one line, as it stands but for its blanks."""
    shown = _MARKUP.sub(lambda m: f"\\{m[0]}", " ".join(clean(text).split()))
    return _START.sub(lambda m: f"{m[1]}\\{m[2]}", shown)


def paragraphs(text: str) -> str:
    """Write a text as paragraphs: blank lines part them, other line ends are blanks."""
    return "\n\n".join(inline(part) for part in re.split(r"\n\s*\n", text.strip()))


def code(text: str) -> str:
    """Write a text as code in a line, whatever backticks it has."""
    shown = " ".join(clean(text).split())
    fence = "`" * (_longest(shown) + 1)
    blank = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{blank}{shown}{blank}{fence}"


def fenced(text: str) -> str:
    """Write a text as a block of code that it cannot end."""
    fence = "`" * max(3, _longest(text) + 1)
    return f"{fence}\n{clean(text).strip()}\n{fence}"


def _longest(text: str) -> int:
    return max((len(run) for run in re.findall(r"`+", text)), default=0)
