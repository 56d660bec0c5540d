"""How near an answer is to its reference, and whether it repeats itself: one answer at a time.

exact_match   1 where both texts are equal once case, the width of blanks, composed letters (NFC) and sentence marks at
              the end are put aside. Signs within stay: "-5" is not "5", and so do marks that are all there is.
token_f1      SQuAD's F1 (arXiv 1606.05250): words of both texts as bags, after case, punctuation and the articles a,
              an, the are dropped. Punctuation of every script counts as such, and each character of a script without
              spaces is a word of its own (as MLQA does, arXiv 1910.07475); ASCII texts get SQuAD's own numbers.
rouge_l       ROUGE-L F1 as the rouge-score package has it, without stemming. Its own words are those of a-z and 0-9,
              which leaves nothing of other scripts; ours are of every script, and the same for ASCII.
bleu, chrf    sacrebleu: BLEU of all answers together, chrF as the mean over answers.
repetition    the share of an answer's four-word sequences that it has said before (seq-rep-4, arXiv 1908.04319).
loop          whether an answer ends in a phrase that it says four times or more, eight words at least.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

NGRAM = 4
"""Words of a sequence that counts as repeated: the n of seq-rep-4."""
LOOP_TIMES, LOOP_WORDS = 4, 8
"""A phrase said so often in a row, over so many words, is no figure of speech any more."""
LOOP_LONGEST = 100
"""Words of the longest phrase that is looked for."""

_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),  # Han
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
"""Scripts that write no spaces between words."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
SENTENCE_ENDS = " .!?…。！？"  # those of Chinese and Japanese too


class _Words(dict[int, str]):
    """What each character becomes, found when it is first seen. `gap` stands in place of punctuation."""

    def __init__(self, gap: str, *, symbols: bool) -> None:
        super().__init__()
        self.gap, self.symbols = gap, symbols

    def __missing__(self, point: int) -> str:
        letter = chr(point)
        kind = unicodedata.category(letter)[0]
        if kind == "P" or letter in string.punctuation or (self.symbols and kind in "SCZ"):
            found = self.gap
        elif any(first <= point <= last for first, last in _UNSPACED):
            found = f" {letter} "
        else:
            found = letter
        self[point] = found
        return found


_SPACED, _DROPPED = _Words(" ", symbols=True), _Words("", symbols=False)


def words(text: str) -> list[str]:
    """Give the words of a text, in lower case and without punctuation: for ASCII those of rouge-score."""
    return _folded(text).translate(_SPACED).split()


def normal(text: str) -> str:
    """Give what exact match compares."""
    line = " ".join(_folded(text).split())
    return line.rstrip(SENTENCE_ENDS) or line


def exact_match(answer: str, reference: str) -> float:
    """1.0 where both say the same, else 0.0; see the module's docstring."""
    return float(normal(answer) == normal(reference))


def token_f1(answer: str, reference: str) -> float:
    """SQuAD's F1, 0 to 1: symmetric, 1 for the same words in any order. Without words on one side, 1 if on both."""
    a, b = (_ARTICLES.sub(" ", _folded(text).translate(_DROPPED)).split() for text in (answer, reference))
    if not a or not b:
        return float(a == b)
    shared = (Counter(a) & Counter(b)).total()
    return 2 * shared / (len(a) + len(b))


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L F1, 0 to 1: the longest common sequence of words against the words of both. Without words, 0."""
    a, b = words(answer), words(reference)
    return 2 * _longest_common(a, b) / (len(a) + len(b)) if a and b else 0.0


def _longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    """Give the length of the longest common sequence, a row of its table at a time as the bits of one number.

    Bits are 0 where the row rises (Hyyrö 2004): 10,000 words of each side take a tenth of a second, not minutes.
    """
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    every = flat = (1 << len(a)) - 1
    for word in b:
        met = flat & places.get(word, 0)
        flat = (flat + met | flat - met) & every
    return len(a) - flat.bit_count()


def chrf(answer: str, reference: str) -> float:
    """Give chrF of one answer, 0 to 100."""
    return float(_chrf().sentence_score(answer, [reference]).score)


def bleu_counts(answer: str, reference: str) -> list[float]:
    """Give what BLEU of many answers sums up: matched and all n-grams for n of 1 to 4, and both lengths; (10,)."""
    found: Any = _bleu().sentence_score(answer, [reference])
    return [*map(float, found.counts), *map(float, found.totals), float(found.sys_len), float(found.ref_len)]


def bleu(sums: Sequence[float]) -> float:
    """Give corpus BLEU, 0 to 100, of the summed counts of its answers; (10,)."""
    correct, total = ([int(n) for n in sums[at : at + 4]] for at in (0, 4))
    score: Any = type(_bleu()).compute_bleu(correct, total, int(sums[8]), int(sums[9]), smooth_method="exp")
    return float(score.score)


def signatures() -> dict[str, str]:
    """Say by which settings of sacrebleu BLEU and chrF were computed."""
    corpora = [(name, metric) for name, metric in (("bleu", _bleu_of_many()), ("chrf", _chrf()))]
    for _, metric in corpora:
        metric.corpus_score(["a"], [["a"]])  # the signature holds the number of references, known after a score
    return {name: str(metric.get_signature()) for name, metric in corpora}


def repetition(answer: str) -> float:
    """Give the share of four-word sequences that came before in the answer, 0 to 1."""
    said = words(answer)
    total = len(said) - NGRAM + 1
    if total < 1:
        return 0.0
    return 1 - len({tuple(said[i : i + NGRAM]) for i in range(total)}) / total


def loops(answer: str) -> bool:
    """Tell whether an answer ends in a phrase said over and over; the last time may be cut off."""
    said = words(answer)
    for unit in range(1, min(len(said) // LOOP_TIMES, LOOP_LONGEST) + 1):
        run = 0
        while run + unit < len(said) and said[-1 - run] == said[-1 - run - unit]:
            run += 1
        span = run + unit
        if span >= LOOP_WORDS and span >= LOOP_TIMES * unit:
            return True
    return False


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


@cache
def _bleu() -> Any:
    from sacrebleu.metrics.bleu import BLEU  # noqa: PLC0415 # half a second to import

    return BLEU(effective_order=True)  # silences its advice for single sentences; the counts are the same


@cache
def _bleu_of_many() -> Any:
    from sacrebleu.metrics.bleu import BLEU  # noqa: PLC0415 # as above

    return BLEU()


@cache
def _chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF  # noqa: PLC0415 # as above

    return CHRF()
