"""A record's text in a page: always as text, with what cannot be seen made visible, in its own direction.

Everything that is given here is escaped. Characters that steer the display (bidirectional controls, control characters,
tags) never reach the page: a small mark with their code point stands in their place.
"""

import re
from collections.abc import Sequence

from markupsafe import Markup, escape

HIDDEN_RANGES = (
    (0x00, 0x08),
    (0x0B, 0x1F),
    (0x7F, 0x9F),
    (0xAD, 0xAD),  # soft hyphen
    (0x34F, 0x34F),  # combining grapheme joiner
    (0x61C, 0x61C),  # Arabic letter mark
    (0x115F, 0x1160),  # Hangul fillers: letters that no one sees
    (0x17B4, 0x17B5),
    (0x180E, 0x180E),
    (0x200B, 0x200B),  # zero-width space; the joiners after it shape Persian, Indic scripts and emoji, and stay
    (0x200E, 0x200F),  # left-to-right and right-to-left marks
    (0x2028, 0x202E),  # line separators, embeddings and overrides
    (0x2060, 0x206F),  # word joiner, isolates
    (0x3164, 0x3164),
    (0xD800, 0xDFFF),  # halves of a surrogate pair, which UTF-8 cannot hold
    (0xFDD0, 0xFDEF),  # no characters, nor are those that end each plane: the last two here, which XML refuses
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF9, 0xFFFB),
    (0xFFFE, 0xFFFF),
    (0x1D173, 0x1D17A),  # musical format controls
    (0xE0000, 0xE0FFF),  # tags and more variation selectors, which can carry a text that no one sees
)
"""Code points that are shown as marks. Line feed and tab are text."""

HIDDEN = "[" + "".join(f"{re.escape(chr(a))}-{re.escape(chr(b))}" for a, b in HIDDEN_RANGES) + "]"
HIDDEN_JS = "[" + "".join(f"\\u{{{a:x}}}-\\u{{{b:x}}}" for a, b in HIDDEN_RANGES) + "]"
"""The same, for the page's script."""

_RUN = re.compile(f"({HIDDEN})\\1*")
_CHANGED_RUN = re.compile("([\u200c\u200d]|" + HIDDEN + ")\\1*")

SAME_SHOWN = 160
"""Characters of unchanged text shown on each side of a change; the rest of a longer stretch folds away."""
LONG_TEXT = 600
"""Characters of a text that are shown; the rest of a longer one folds away."""
FOLD_AT_LEAST = 80
"""Fewer characters than these are not worth a fold."""
MOST_CHARACTERS = 20_000
"""Characters of one piece that go into the page; a text with more of them is read with `sft why`."""
MOST_PIECES = 2_000
"""Pieces of one text that go into the page: more is a text that was replaced as a whole."""


def _named(run: re.Match[str]) -> str:
    times = len(run[0])
    return f"U+{ord(run[0][0]):04X}" + (f" ×{times}" if times > 1 else "")


def plain(text: str) -> str:
    """Give a text for a title, an attribute or a chart: hidden characters by name, nothing escaped."""
    return _RUN.sub(lambda run: f"[{_named(run)}]", text)


def _marked(text: str, runs: re.Pattern[str]) -> Markup:
    parts: list[Markup] = []
    end = 0
    for run in runs.finditer(text):
        parts += [escape(text[end : run.start()]), Markup('<span class="mark">{}</span>').format(_named(run))]
        end = run.end()
    return Markup("").join([*parts, escape(text[end:])])


def shown(text: str | None) -> Markup:
    """Give a text escaped, its hidden characters as marks."""
    return _marked(text or "", _RUN)


def folded(text: str | None) -> Markup:
    """Give a text as `shown`; what goes beyond `LONG_TEXT` characters is behind an expander."""
    full = text or ""
    if len(full) <= LONG_TEXT + FOLD_AT_LEAST:
        return shown(full)
    cut = _break_before(full, LONG_TEXT)
    return shown(full[:cut]) + _fold(full[cut:], "more characters")


def _fold(text: str, what: str) -> Markup:
    summary = Markup("<summary>… {} {} …</summary>").format(f"{len(text):,}", what)
    return Markup('<details class="fold">{}{}</details>').format(summary, _cut(text, _RUN))


def _cut(text: str, runs: re.Pattern[str]) -> Markup:
    if len(text) <= MOST_CHARACTERS:
        return _marked(text, runs)
    left = f"… {len(text) - MOST_CHARACTERS:,} more characters, not in this page"
    return _marked(text[:MOST_CHARACTERS], runs) + Markup(' <span class="mark">{}</span>').format(left)


def _break_before(text: str, at: int) -> int:
    """Give the end of the last word before `at`, or `at` in a text without blanks there."""
    blank = max(text.rfind(" ", at - 40, at), text.rfind("\n", at - 40, at))
    return blank + 1 if blank >= 0 else at


def _break_after(text: str, at: int) -> int:
    blanks = [found for found in (text.find(" ", at, at + 40), text.find("\n", at, at + 40)) if found >= 0]
    return min(blanks) if blanks else at


def pieces_shown(pieces: Sequence[tuple[str, str]]) -> Markup:
    """Give a word-level difference as `del` and `ins`, with long unchanged stretches folded."""
    parts = [
        _piece(kind, text, first=i == 0, last=i == len(pieces) - 1)
        for i, (kind, text) in enumerate(pieces[:MOST_PIECES])
    ]
    if len(pieces) > MOST_PIECES:
        left = f"… {len(pieces) - MOST_PIECES:,} more pieces, not in this page"
        parts.append(Markup(' <span class="mark">{}</span>').format(left))
    return Markup("").join(parts)


def _piece(kind: str, text: str, *, first: bool, last: bool) -> Markup:
    if kind == "removed":
        return Markup("<del>{}</del>").format(_changed(text))
    if kind == "added":
        return Markup("<ins>{}</ins>").format(_changed(text))
    start = 0 if first and not last else _break_before(text, SAME_SHOWN)
    end = len(text) if last and not first else _break_after(text, max(len(text) - SAME_SHOWN, 0))
    if end - start < FOLD_AT_LEAST:
        return _cut(text, _RUN)
    return shown(text[:start]) + _fold(text[start:end], "characters the same") + shown(text[end:])


def _changed(text: str) -> Markup:
    """Show what came or went so that it can be seen also where it is a blank, a line end or a joiner."""
    inside = _cut(text, _CHANGED_RUN)
    if text.isspace() and "<" not in inside:
        inside = inside.replace(" ", Markup('<span class="blank">·</span>'))
    inside = inside.replace("\t", Markup('<span class="blank">⇥</span>\t'))
    return inside.replace("\n", Markup('<span class="blank">↵</span>\n'))
