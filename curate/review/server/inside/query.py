"""What people type into the search box: parsed, matched against a record's visible texts, narrowed down by SQL.

The language is that of Argilla's own search (Elasticsearch's simple_query_string, default operator AND):

    cat dog        both words                      "big cat"      these words, side by side, in one text
    cat | dog      one of them                     -cat           not this word
    cat*           words that begin so             (a | b) c      groups; AND and OR bind alike, from left to right
    +cat           the same as cat                 \\" \\| \\- \\*    the character itself

A word is a run of letters, digits and marks, whatever its case (Unicode's case folding), and matches as a whole: `cat`
does not find `category`. Any other visible character is a word of its own, and so is each character of a script without
spaces; hence `100%`, `C++`, `snake_case`, an emoji and a piece of Chinese are found as they stand. White space between
words and invisible characters do not matter. `+`, `-`, `"` and `(` mean something only where a word could begin, `*`
only where one ends; `~` never does. A query without a word looks for nothing in particular, and so finds every record.

Python decides what matches; `like` gives SQL patterns that no matching record can escape, so that few records reach it.
"""

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Literal

MAX_CHARACTERS = 10_000  # a long answer pasted whole is shorter; what is longer is no search
MAX_BENDS = 100  # groups, and changes between AND and OR: far above what people write, far below Python's stack
MAX_CHOICES = 100  # different parts of an OR, and different exclusions: each is looked for in each record
_MAX_MASK = 64  # characters of a word that the SQL pattern looks at: enough to tell words apart, and LIKE has a limit

_ALONE = "".join(
    (
        "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff",  # Thai, Lao, Burmese, Khmer
        "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3041-\u30ff\u31f0-\u31ff",  # radicals, kana
        "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff",  # Han, half-width kana
    )
)
_LAST_CASED, _LAST_MARK, _LAST_INVISIBLE = 0x1E944, 0x1E94B, 0x1D17A  # those of plane 14 are named below


def _of_category(names: tuple[str, ...], last: int) -> str:
    return "".join(re.escape(chr(c)) for c in range(last + 1) if unicodedata.category(chr(c)) in names)


_SELECTORS = "\ufe00-\ufe0f\U000e0100-\U000e01ef"  # variation selectors: the same sign, drawn otherwise
_MARK = re.sub(f"[{_ALONE}{_SELECTORS}]", "", _of_category(("Mn", "Mc", "Me"), _LAST_MARK))
_LETTER = rf"(?:[^\W_{_ALONE}]|[{_MARK}])"
_SPACE = rf"[\s{_of_category(('Cc', 'Cf'), _LAST_INVISIBLE)}{_SELECTORS}\U000e0001-\U000e007f]"
_TOKEN = re.compile(rf"{_LETTER}+|(?!{_SPACE}).", re.DOTALL)
_WORD = re.compile(rf"{_LETTER}+")


def fold(text: str) -> str:
    """Return `text` as it is compared: Unicode's case folding, so that STRASSE, strasse and straße are one."""
    return text.casefold()


# --------------------------------------------------------------------------------------------------- the tree


Search = Callable[[str], object]


@dataclass(frozen=True)
class Words:
    """Words side by side. The last one may be the beginning of a word."""

    tokens: tuple[str, ...]
    prefix: bool = False

    def matches(self, texts: Iterable[str]) -> bool:
        """Return whether one of the folded texts holds the words."""
        search, search_ascii = self._searches
        for text in texts:  # noqa: SIM110 # a generator inside any() costs more than the search does
            if search_ascii(text) if text.isascii() else search(text):
                return True
        return False

    @cached_property
    def _searches(self) -> tuple[Search, Search]:
        """What finds the words in any folded text, and in one of ASCII alone, where that is three times as fast."""
        search = _pattern(self.tokens, self.prefix, _LETTER, _SPACE).search
        return search, _pattern(self.tokens, self.prefix, "[a-z0-9]", r"[\0-\x20\x7f]").search


@dataclass(frozen=True)
class Not:
    """What must not be there."""

    part: "Node"

    def matches(self, texts: Iterable[str]) -> bool:
        """Return whether the part does not match."""
        return not self.part.matches(texts)


@dataclass(frozen=True)
class Joined:
    """Parts of which all, or any, must match."""

    parts: tuple["Node", ...]
    every: bool

    def matches(self, texts: Iterable[str]) -> bool:
        """Return whether all parts match, or any of them. Each may do so in another text."""
        results = (part.matches(texts) for part in self.parts)
        return all(results) if self.every else any(results)


Node = Words | Not | Joined


def _pattern(tokens: tuple[str, ...], prefix: bool, letter: str, space: str) -> re.Pattern[str]:
    """Return the words as a regular expression. It starts with its literal, which `re` finds fast."""
    first, last = tokens[0], tokens[-1]
    pieces = [re.escape(first)]
    if _WORD.fullmatch(first):
        pieces.append(f"(?<!{letter}{re.escape(first)})")
    for before, token in pairwise(tokens):
        apart = _WORD.fullmatch(before) and _WORD.fullmatch(token)
        pieces += [space, "+" if apart else "*", re.escape(token)]
    if _WORD.fullmatch(last) and not prefix:
        pieces.append(f"(?!{letter})")
    return re.compile("".join(pieces))


# --------------------------------------------------------------------------------------------------- reading


class QueryError(ValueError):
    """The query is too long or too tangled to be one that a person wrote."""


@lru_cache(maxsize=256)
def parse(query: str) -> Node | None:
    """Return the tree of `query`, or None where it holds no word.

    Raises: QueryError for more than MAX_CHARACTERS characters, MAX_BENDS groups and changes of operator, or MAX_CHOICES
    alternatives and exclusions.
    """
    if len(query) > MAX_CHARACTERS:
        found = f"The search text has {len(query):,} characters"
        raise QueryError(f"{found}; at most {MAX_CHARACTERS:,} can be searched for.")
    return _Tree(list(_lexemes(query))).group()


Lexeme = Words | Literal["(", ")", "|", "-", ""]
"""What a query consists of. The empty one is a term without a word: it takes a minus before it away."""


def _lexemes(query: str) -> Iterator[Lexeme]:
    at, groups = 0, 0
    while at < len(query):
        char = query[at]
        if char == '"' and (phrase := _PHRASE.match(query, at)):
            at = phrase.end()
            yield _words(re.sub(r'\\(["\\])', r"\1", phrase[1]))
            continue
        if char == "(" or (char == ")" and groups):
            groups += 1 if char == "(" else -1
            yield char
        elif char == "|":
            yield char
        elif char in "+-":
            if char == "-" and query[at + 1 : at + 2].strip():
                yield char
        elif not char.isspace():
            term, at, prefix = _term(query, at, grouped=groups > 0)
            yield _words(term, prefix=prefix)
            continue
        at += 1


_PHRASE = re.compile(r'"((?:\\.|[^"\\])*)"', re.DOTALL)
_OPERATORS = frozenset('"|-+()*\\')


def _term(query: str, at: int, *, grouped: bool) -> tuple[str, int, bool]:
    """Read from `at` to the end of a term: its text, where it ends, whether it ends in a star that means any ending."""
    text, star, inner = "", False, 0
    while at < len(query):
        char = query[at]
        if char == "\\" and query[at + 1 : at + 2] in _OPERATORS and at + 1 < len(query):
            text, star, at = text + query[at + 1], False, at + 2
            continue
        if char.isspace() or char == "|" or (char == ")" and grouped and not inner):
            break
        inner = max(0, inner + (char == "(") - (char == ")"))
        text, star, at = text + char, char == "*", at + 1
    prefix = star and re.match(rf"{_LETTER}|[{_ALONE}]", fold(text[-2:-1])[-1:]) is not None
    return (text[:-1] if prefix else text), at, prefix


def _words(text: str, *, prefix: bool = False) -> Words | Literal[""]:
    tokens = tuple(_TOKEN.findall(fold(text)))
    return Words(tokens, prefix) if tokens else ""


class _Tree:
    """The lexemes of a query, taken from left to right and made into a tree."""

    def __init__(self, lexemes: list[Lexeme]) -> None:
        self.lexemes = lexemes[::-1]
        self.bends = 0
        self.choices = 0

    def group(self) -> Node | None:
        """Read up to the end of the group. What follows without a change of operator stands side by side."""
        tree: Node | None = None
        joined: list[Node] = []
        every, together, negated = True, True, False
        while self.lexemes and (lexeme := self.lexemes.pop()) != ")":
            if lexeme == "|":
                together = tree is None
            elif lexeme == "-":
                negated = not negated
                continue
            elif part := self.part(lexeme):
                part = Not(part) if negated else part
                if len(joined) > 1 and every != together:
                    self.bend()
                    joined = [self.join(joined, every=every)]
                joined, every, together = [*joined, part], together, True
                tree = part
            negated = False
        return self.join(joined, every=every) if len(joined) > 1 else tree

    def join(self, parts: list[Node], *, every: bool) -> Node:
        """Join parts, each of them once. Counted are those that no missing word cuts short."""
        different = tuple(dict.fromkeys(parts))
        self.choices += sum(isinstance(part, Not) for part in different) if every else len(different)
        if self.choices > MAX_CHOICES:
            found = f"The search text has more than {MAX_CHOICES} alternatives and exclusions"
            raise QueryError(f"{found}; to look for a text as it stands, put it in double quotes.")
        return Joined(different, every) if len(different) > 1 else parts[0]

    def part(self, lexeme: Lexeme) -> Node | None:
        if lexeme != "(":
            return lexeme if isinstance(lexeme, Words) else None
        self.bend()
        return self.group()

    def bend(self) -> None:
        self.bends += 1
        if self.bends > MAX_BENDS:
            found = f"The search text has more than {MAX_BENDS} groups and changes between AND and OR"
            raise QueryError(f"{found}; to look for a text as it stands, put it in double quotes.")


# ------------------------------------------------------------------------------------------- what people can see


def visible(fields: str, kinds: Mapping[str, str]) -> Iterator[str]:
    """Give the folded texts of a record that reviewers can see, one after another.

    `fields`: JSON as the server stores it. `kinds`: name and type of the fields to search. Of a chat the
    contents are, of a custom field all values; names of fields, roles and images are not.
    """
    document, _ = _decode(fields)
    for name, value in document.items():
        kind = kinds.get(name)
        if kind == "text" and isinstance(value, str):
            yield fold(value)
        elif kind == "chat" and isinstance(value, list):
            for message in value:
                if isinstance(message, dict) and isinstance(content := message.get("content"), str):
                    yield fold(content)
        elif kind == "custom":
            yield from map(fold, _leaves(value))


_decode = json.JSONDecoder().raw_decode


def _leaves(value: object) -> Iterator[str]:
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list):
            pending += value
        elif value is not None and not isinstance(value, bool):
            yield str(value)


def record_matches(query: str, kinds: str, fields: str) -> bool:
    """Return whether a record matches. The function that SQL calls.

    `kinds`: JSON, {name: type}; `fields`: JSON as the server stores it.
    """
    return _matcher(query, kinds)(fields)


@lru_cache(maxsize=64)
def _matcher(query: str, kinds: str) -> Callable[[str], bool]:
    tree, searched = parse(query), json.loads(kinds)
    if tree is None:
        return lambda _: True
    if isinstance(tree, Words):
        return lambda fields: tree.matches(visible(fields, searched))
    return lambda fields: tree.matches(list(visible(fields, searched)))


# ------------------------------------------------------------------------------------------------- the narrow way


@dataclass(frozen=True)
class Like:
    """What the stored JSON of a matching record is like: `pattern` (LIKE … ESCAPE '!'), or it holds one of `others`."""

    pattern: str
    others: tuple[str, ...]


ESCAPE = "!"


@lru_cache(maxsize=1024)
def like(word: str, *, open_ended: bool = False) -> Like:
    """Return what any JSON text must look like that holds the folded `word` in any spelling.

    The server stores non-ASCII characters as \\u escapes, so SQLite's LIKE, which knows the case of ASCII letters
    only, is given each of them with the digits that all its spellings share. Characters whose folding is of another
    length in JSON (ß is ss, the Kelvin sign is k) are named in `others`.
    """
    others = [spelling for folding, spelling in _ODD if _touches(folding, word, open_ended=open_ended)]
    return Like("%" + "".join(map(_mask, word[:_MAX_MASK])) + "%", tuple(f"%{_json(o)}%" for o in others))


def _touches(folding: str, word: str, *, open_ended: bool) -> bool:
    return folding in word or (open_ended and any(word.endswith(folding[:n]) for n in range(1, len(folding))))


def _json(char: str) -> str:
    return json.dumps(char)[1:-1]


@lru_cache(maxsize=4096)
def _mask(char: str) -> str:
    spellings = [_json(s) for s in (char, *_SPELLINGS.get(char, ()))]
    shared = "".join(digits[0] if len(set(digits)) == 1 else "_" for digits in zip(*spellings, strict=True))
    return shared if len(spellings) > 1 else re.sub(rf"([%_{ESCAPE}])", rf"{ESCAPE}\1", shared)


def _foldings() -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """Return who folds to a character with as many characters in JSON, and the others: folding and character."""
    plain: dict[str, list[str]] = defaultdict(list)
    odd: list[tuple[str, str]] = []
    for char in map(chr, range(0x80, _LAST_CASED + 1)):
        folding = char.casefold()
        if folding == char:
            continue
        if len(folding) == 1 and len(_json(folding)) == len(_json(char)):
            plain[folding].append(char)
        else:
            odd.append((folding, char))
    return dict(plain), odd


_SPELLINGS, _ODD = _foldings()
