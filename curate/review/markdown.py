"""Markdown that reviewers read: texts of rows as text, whatever they hold, and what an edit changed.

A row's text is data. It is written with character references, so that none of it can become a heading, a link, an
image, a formula or HTML: a reference is never read as markup (CommonMark 0.31, section 2.5).
"""

import re

from curate.change import word_diff

MOST_CHARACTERS = 20_000
"""Characters of one text that are shown: what the chat field shows of a message, too."""

MOST_DIFFERENCE_WORDS = 4_000
"""Words and blanks of a text up to which its edits are shown one by one: comparing takes the square of it."""

MOST_BLANKS = 200
"""Blanks that are shown one by one where a change is nothing but blanks."""

AROUND = 60
"""Characters of unchanged text that are shown on each side of a change."""

_MARKUP = re.compile(r"[!-/:-@\[-`{-~]")
_LETTERS = frozenset(".,;'\"?()%")
"""Punctuation that Markdown takes for markup in few places or in none, so that the source stays readable."""

_DOTS = re.compile(r"(?m)^([ \t]*\d+)([.)])|(?i:(www)(\.))")
"""Where it does: in the number of a list, and in what readers take for a link."""

_UNSEEN = {"\n": "⏎", "\t": "⇥", "\r": "␍", " ": "␣"}
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
"""Controls, halves of surrogate pairs, and marks that turn the direction of the text around them."""


def clean(text: str) -> str:
    """Replace what cannot be stored or shown: NUL and other controls, lone surrogates, marks of direction."""
    return _CONTROLS.sub("\ufffd", text)


def cut(text: str, most: int, remedy: str = "") -> str:
    """Shorten a text to `most` characters, with a mark that says how much is missing and where to read it."""
    shown, kept = text, len(text)
    while len(shown) > most and kept:
        kept = max(0, kept - (len(shown) - most))
        shown = f"{text[:kept]}\n\n[… cut here: {len(text) - kept:,} more characters{'; ' + remedy if remedy else ''}]"
    return shown


def escaped(text: str) -> str:
    """Write a text so that Markdown shows it as it stands, line breaks and indents too."""
    shown = _MARKUP.sub(lambda m: m[0] if m[0] in _LETTERS else f"&#{ord(m[0])};", clean(text))
    shown = _DOTS.sub(lambda m: f"{m[1] or m[3]}&#{ord(m[2] or m[4])};", shown)
    shown = re.sub(r"(?m)^[ \t]+", lambda m: "&nbsp;" * len(m[0].expandtabs(4)), shown)
    return re.sub(r"\r\n?|\n", "<br>", shown)


def line(text: str, most: int = 300) -> str:
    """Write a short text on one line, as it stands."""
    return escaped(cut(" ".join(text.split()), most).replace("\n", " "))


def block(text: str) -> str:
    """Write a text as a paragraph of its own."""
    return escaped(cut(text, MOST_CHARACTERS)) if text.strip() else "*(empty)*"


def difference(before: str, after: str) -> str:
    """Write what changed between two texts: what went is struck out, what came is bold, the rest is shortened."""
    if len(before.split()) + len(after.split()) > MOST_DIFFERENCE_WORDS:
        return f"before:\n\n{block(before)}\n\nafter:\n\n{block(after)}"
    pieces = word_diff(before, after)
    written: list[str] = []
    for i, (kind, text) in enumerate(pieces):
        match kind:
            case "removed":
                written.append(f"<del>{_visible(text)}</del>")
            case "added":
                written.append(f"<ins><strong>{_visible(text)}</strong></ins>")
            case _:
                written.append(escaped(_shortened(text, first=i == 0, last=i == len(pieces) - 1)))
    return "".join(written)


def _visible(text: str) -> str:
    """Show blanks where a change is nothing but blanks."""
    if text.strip():
        return escaped(cut(text, MOST_CHARACTERS))
    shown = "".join(_UNSEEN.get(c, f"U+{ord(c):04X}") for c in text[:MOST_BLANKS])
    return shown if len(text) <= MOST_BLANKS else f"{shown} … {len(text) - MOST_BLANKS:,} more"


def _shortened(text: str, *, first: bool, last: bool) -> str:
    if len(text) <= AROUND * 3:
        return text
    head, tail = "" if first else text[:AROUND], "" if last else text[-AROUND:]
    return f"{head} … {tail}"
