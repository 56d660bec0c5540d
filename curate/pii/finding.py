"""The finding: one piece of personal data, or one secret, at its place in a text.

A detector reads a text and yields findings of its kind. None may match, or look for a word before its match, across
`<` or `>`: a placeholder stands between these, so that a text that was redacted has no findings any more.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Detector = Callable[[str], "Iterator[Finding]"]

_WORDS_BEFORE = 48
"""Characters before a value in which a word such as "phone" or "order" may say what the value is."""

_ID_WORDS = re.compile(
    r"(?i)\b(?:order|invoice|isbn|issn|imei|serial|ticket|tracking|parcel|shipment|reference|ref|doi|sku|upc|ean|gtin"
    r"|part|item|product|model|batch|case|patent|id|uid|uuid|timestamp|transaction|version|build|seed|hash)s?"
    r"(?:[\s_-]*(?:number|num|no|nr|code|id|key))?[^\w<>\n]*(?:(?:is|was|of)[^\w<>\n]+)?$"
)


@dataclass(frozen=True)
class Finding:
    """`start` and `end` in characters; `value` is what was found, in the one spelling that equal values share.

    `form` names it for a person ("GitHub token"). `quote` stands around the placeholder where the finding is a number
    in JSON, so that the text stays JSON.
    """

    kind: str
    start: int
    end: int
    value: str
    form: str
    quote: str = ""


def words_before(text: str, start: int) -> str:
    """Give what stands before a place, at most `_WORDS_BEFORE` characters and nothing beyond `<` or `>`."""
    return re.split("[<>]", text[max(0, start - _WORDS_BEFORE) : start])[-1]


def is_named_id(text: str, start: int) -> bool:
    """Say whether the words before a place call what follows an order number, an ISBN, a ticket or the like."""
    return _ID_WORDS.search(words_before(text, start)) is not None


def digits_of(text: str) -> str:
    """Give the ASCII digits of a text."""
    return re.sub("[^0-9]", "", text)
