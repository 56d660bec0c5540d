"""Letters: what each character is to a word, and its folded form.

A word is a run of letters, digits and marks. Every other visible character is a word of its own (a run of the same one
counts as one), so that `a + b` is not `a - b`: nothing that can be seen is left out of a comparison. In scripts that
are written without spaces every character is a word, which makes word n-grams into character n-grams there.
"""

import unicodedata
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SPACE, LETTER, SYMBOL, ALONE, IGNORED, _DIGIT = range(6)

_LIMIT = 0x33480
"""All scripts lie below (up to the end of CJK extension J, Unicode 17); what lies above counts as a symbol."""

_ALONE = (
    (0x0E01, 0x0E4E),  # Thai
    (0x0E81, 0x0EDF),  # Lao
    (0x0F00, 0x0FC6),  # Tibetan
    (0x1000, 0x109D),  # Myanmar
    (0x1780, 0x17DD),  # Khmer
    (0x1950, 0x19C9),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AA7),  # Tai Tham
    (0x3005, 0x3007),  # ideographic iteration mark and zero
    (0x302A, 0x302D),  # their tone marks
    (0x3041, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),  # Katakana extensions
    (0x3400, 0x4DBF),  # CJK extension A
    (0x4E00, 0x9FFF),  # CJK
    (0xA000, 0xA48C),  # Yi
    (0xA9E0, 0xA9FE),  # Myanmar extension B
    (0xAA60, 0xAADF),  # Myanmar extension A, Tai Viet
    (0xF900, 0xFAFF),  # CJK compatibility
    (0xFF66, 0xFF9F),  # half-width Katakana
    (0x1AFF0, 0x1B16F),  # Kana extensions
    (0x20000, _LIMIT - 1),  # CJK extensions
)
"""Scripts without spaces between words: Unicode's line breaking classes ID and SA (UAX #14). Their digits form numbers
as everywhere."""


class Letters(NamedTuple):
    """`kinds` (uint8) and `folds` (uint32) by code point, below `_LIMIT`."""

    kinds: NDArray[np.uint8]
    folds: NDArray[np.uint32]


@cache
def letters() -> Letters:
    """Make the tables from Python's own Unicode data; about 0.1 s, once for each process."""
    kinds = np.full(_LIMIT, SYMBOL, np.uint8)
    folds = np.arange(_LIMIT, dtype=np.uint32)
    for point in (*range(0x3400), *range(0xA000, 0xAC00), *range(0xD7A4, 0xD800), *range(0xE000, 0x20000)):
        char = chr(point)
        kinds[point] = _kind(char)
        folded = char.casefold()
        if folded != char and len(folded) == 1:  # a letter that folds to two (ß, ŉ) stays as it is
            folds[point] = ord(folded)
    kinds[0xAC00:0xD7A4] = LETTER  # Hangul syllables: words are written apart
    for first, last in _ALONE:
        block = kinds[first : last + 1]
        block[block == LETTER] = ALONE
    kinds[0x3400:0x4DC0] = kinds[0x4E00:0xA000] = kinds[0x20000:] = ALONE
    kinds[kinds == _DIGIT] = LETTER
    return Letters(kinds, folds)


def _kind(char: str) -> int:
    """Give the kind by general category. A code point that is not assigned yet counts as a letter, as most will be."""
    if char == "\u200b":  # zero width space: a format character that parts words
        return SPACE
    category = unicodedata.category(char)
    if category in ("Cf", "Cs"):
        return IGNORED
    if category[0] == "Z" or category == "Cc":
        return SPACE
    if category[0] == "N" and char != "\u3007":  # the ideographic zero is written like a character
        return _DIGIT
    return LETTER if category[0] in "LMN" or category == "Cn" else SYMBOL
