"""What dedup does, in plain Python and without its tables: the oracle that compiled code is held against."""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

MASK = (1 << 64) - 1


SCRIPTS = (
    *("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "HENTAIGANA", "COMBINING KATAKANA-HIRAGANA"),
    *("YI ", "THAI ", "LAO ", "TIBETAN ", "MYANMAR ", "KHMER ", "TAI ", "NEW TAI LUE "),
)


def alone(char: str) -> bool:
    """Whether a letter stands in a script that is written without spaces."""
    is_digit = unicodedata.category(char)[0] == "N" and char != "\u3007"
    return not is_digit and unicodedata.name(char, "").startswith(SCRIPTS)


def tokens(text: str) -> Iterator[str]:
    """Cut a text: runs of letters, digits and marks; characters of scripts without spaces; runs of one symbol."""
    word = ""
    for char in f"{text} ":
        category = unicodedata.category(char)
        if (category == "Cf" and char != "\u200b") or ord(char) >> 12 == 0xE0:  # not to be seen
            continue
        is_letter = category[0] in "LMN"
        if word and not _goes_on(word, char, is_letter=is_letter):
            yield word
            word = ""
        if category[0] == "Z" or category == "Cc" or char == "\u200b":
            continue
        word += folded(char) if is_letter else char


def _goes_on(word: str, char: str, *, is_letter: bool) -> bool:
    last_is_letter = unicodedata.category(word[-1])[0] in "LMN"
    if is_letter:
        return last_is_letter and not alone(char) and not alone(word[-1])
    return not last_is_letter and word[-1] == char


def folded(char: str) -> str:
    lower = char.casefold()
    return lower if len(lower) == 1 else char


def mix(h: int) -> int:
    h ^= h >> 33
    h = h * 0xFF51AFD7ED558CCD & MASK
    h ^= h >> 33
    h = h * 0xC4CEB9FE1A85EC53 & MASK
    return h ^ (h >> 33)


def word_hash(token: str) -> int:
    """FNV-1a over code points, then MurmurHash3's finaliser; a run of a symbol is hashed with its length."""
    if unicodedata.category(token[0])[0] in "LMN":
        h = 14695981039346656037
        for char in token:
            h = (h ^ ord(char)) * 1099511628211 & MASK
        return mix(h)
    return mix(((14695981039346656037 ^ ord(token[0])) * 1099511628211 + len(token)) & MASK)


def gram_hash(words: Sequence[int]) -> int:
    g = 0
    for h in words:
        g = (g ^ h) * 0x9E3779B97F4A7C15 & MASK
        g ^= g >> 32
    return g


def grams(words: Sequence[str], n: int) -> set[tuple[str, ...]]:
    """The set of n-grams; n = min(n, words)."""
    n = min(n, len(words))
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)} if n else set()


def jaccard(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    return len(one & other) / len(one | other) if one | other else 1.0


def alike_pairs(texts: Sequence[str], n: int, threshold: float) -> dict[tuple[int, int], float]:
    """All pairs (i < j) whose similarity reaches the threshold, by an inverted index; texts without words have none."""
    sets = [grams(list(tokens(text)), n) for text in texts]
    holders: dict[tuple[str, ...], list[int]] = {}
    found: dict[tuple[int, int], float] = {}
    for j, own in enumerate(sets):
        shared: Counter[int] = Counter()
        for gram in own:
            shared.update(holders.get(gram, ()))
            holders.setdefault(gram, []).append(j)
        for i, count in shared.items():
            level = count / (len(sets[i]) + len(own) - count)
            if level >= threshold:
                found[i, j] = level
    return found
