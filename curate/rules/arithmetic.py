"""Arithmetic: equations between numbers in an answer, checked exactly where they can be read with certainty.

Read are `12 * 3 = 36`, chains (`(24 * 3) + 8 = 72 + 8 = 80`), fractions, powers, money, per cent, `15% of 80 is 12` and
`12 plus 3 equals 15`. A result may be rounded or cut to the digits that are printed. Not read is whatever might mean
something else: variables, units of measure after the result, remainders and moduli, other bases, mixed numbers, dates,
ranges, "about", code, and equations that the prompt states already.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import polars as pl

from curate.rules.rule import Example, Rule, any_of, review, where

_NUMBER = (
    r"(?:[$€£][^\S\n]?)?(?<![\w.])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[^\S\n]?%)?(?![A-WYZa-wyz_²³⁴½¼¾°!]|[.,]\d|\d)"
)
_TIMES = r"(?:(?<=[\d\s)%])[xX](?=[^\S\n]*[\d($€£])|[*×·])"
_SIGN = rf"[^\S\n]*(?:[-+/÷^−–]|\*\*|{_TIMES})[^\S\n]*"
_TERM = rf"(?:\([^\S\n]*)*[-−]?{_NUMBER}(?:[^\S\n]*\))*"
_SIDE = rf"{_TERM}(?:{_SIGN}{_TERM})*"
_CHAIN = re.compile(rf"{_SIDE}(?:\s*(?<![=<>!≤≥:])=(?![=>])[^\S\n]*{_SIDE})+")
_PERCENT_OF = re.compile(
    rf"({_NUMBER}) of ({_NUMBER}) (?:is|=|equals|is equal to) (?:\()?({_NUMBER})(?![^\S\n]*(?:[-+*/×÷%=(]|percent"
    rf"|of\b))"
)
_WORDS = {
    r"\bplus\b": "+",
    r"\bminus\b": "-",
    r"\b(?:times|multiplied by)\b": "*",
    r"\bdivided by\b": "/",
    r"\b(?:equals|is equal to)\b": "=",
    r"[^\S\n]percent\b": "%",
    r"\\times\b": "*",
    r"\\div\b": "/",
    r"\\\$": "$",
}
_TOKEN = re.compile(r"(\d[\d,]*(?:\.\d+)?)[^\S\n]?(%?)|(\*\*|[-+*/^()])")
_FOLD = str.maketrans({"×": "*", "·": "*", "x": "*", "X": "*", "÷": "/", "−": "-", "–": "-", "$": "", "€": "", "£": ""})

_BEFORE = re.compile(
    r"(?:[\w.,/:\\√∛#&~|{^_'\"²³-]|[-+*/×÷^%−–·<>≈√∛|][^\S\n]*|\b[b-zB-HJ-Z][^\S\n]+|\d[^\S\n]+|\d\)[^\S\n]*"
    r"|\bmod\s*|\b(?:about|approximately|approx\.?|roughly|around|nearly|almost|than|sqrt|log|sin|cos)[^\S\n]+)\Z"
)
_AFTER = re.compile(
    r"[^\S\n]*(?:[-+*/×÷^(=≈:!°²³]|[xX]\b|\d|[a-zA-Z]\b(?!\s+[a-z])|\.{3}|…)|,\d|\.\d|[A-Za-z_]"
    r"|[^\S\n]*\(?(?:mod\b|r(?:emainder)?\b|with\b|million|billion|thousand|trillion|hundred|dozen|k\b|km|kilo|cm"
    r"|mm|m\b|met(?:er|re)|cent"
    r"|milli|mile|feet|foot|ft|inch|in\b|yard|min|hour|hr|sec|s\b|day|week|month|year|am\b|pm\b|o'clock|kg|gram|g\b"
    r"|mg|lb|pound|ounce|oz|ton"
    r"|lit(?:er|re)|ml|l\b|gallon|quart|pint|cup|degree|celsius|fahrenheit|kelvin|radian|cents?\b|dollar|euro|joule"
    r"|watt|newton|volt|mole"
    r"|squared|cubed|base|in\s+binary|out\s+of)"
)
_RANGE = re.compile(r"\d[-–]\d")
_DATE = re.compile(r"\d+/\d+/\d{2,4}|\d{4}-\d\d?-\d\d?")
_OTHER_SYSTEMS = re.compile(
    r"(?i)\b(?:binary|hexadecimal|octal|base[- ]?(?:\d|two|eight|ten)|modul[oa]r?|mod|clock\s+arithmetic|o['’]clock"
    r"|roman|boolean|xor|bitwise|puzzle|riddle|cipher)\b"
)
_FENCE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_CONSTANTS = {
    "3.14",
    "3.1416",
    "3.14159",
    "3.142",
    "1.41",
    "1.414",
    "1.73",
    "1.732",
    "2.71",
    "2.718",
    "9.8",
    "9.81",
    "0.33",
    "0.67",
    "0.66",
}
_MOST_DIGITS, _MOST_POWER = 40, 64
"""Longer numbers and higher powers are left alone: they are no simple arithmetic, and would take long."""


class Wrong(NamedTuple):
    """An equation that does not hold: as it stands, and what its right side should be."""

    text: str
    value: str


class _NotReadError(Exception):
    """An expression that cannot be read with certainty."""


def wrong_equations(answer: str, prompt: str = "") -> Iterator[Wrong]:
    """Give the equations of an answer that are read with certainty and do not hold."""
    if _OTHER_SYSTEMS.search(answer) or _OTHER_SYSTEMS.search(prompt):
        return
    text = _FENCE.sub(" ; ", answer)
    for words, sign in _WORDS.items():
        text = re.sub(words, lambda _, sign=sign: sign, text)
    for match in _CHAIN.finditer(text):
        if _stands_alone(text, match) and match[0] not in prompt and (wrong := _check(match[0])):
            yield wrong
    for match in _PERCENT_OF.finditer(text):
        if "%" in match[1] and match[0] not in prompt and not _AFTER.match(text, match.end()):
            share, whole = _value(match[1]), _value(match[2])
            if not _fits(share * whole, match[3], divided=True):
                yield Wrong(" ".join(match[0].split()), _shown(share * whole))


def _stands_alone(text: str, match: re.Match[str]) -> bool:
    """Say whether nothing beside an equation could belong to it."""
    before = text[max(0, match.start() - 30) : match.start()]
    line = before.rpartition("\n")[2]
    return not _BEFORE.search(line) and not _AFTER.match(text, match.end())


def _check(chain: str) -> Wrong | None:
    """Check a chain of equal sides, each against the one before it."""
    sides = [side.strip() for side in re.split(r"=", chain)]
    if all(re.fullmatch(_NUMBER, side) for side in sides) or "0x" in chain or _DATE.search(chain):
        return None
    if _RANGE.search(chain) or any(number in _CONSTANTS for number in re.findall(r"\d+\.\d+", chain)):
        return None
    try:
        values = [_value(side) for side in sides]
        for i in range(1, len(sides)):
            given, side = values[i - 1], sides[i]
            if re.fullmatch(rf"-?{_NUMBER}", side):
                divided = bool(re.search(r"[/÷^%]|\*\*|\.\d", sides[i - 1]))
                if _fits(given, side, divided=divided) or any(
                    _fits(value, side, divided=True) for value in _other_readings(sides[i - 1])
                ):
                    continue
            elif given == values[i] or _close(given, values[i], sides[i - 1], side) or _runs_on(values[i - 1], side):
                continue
            return Wrong(" ".join(f"{sides[i - 1]} = {side}".split()), _shown(given))
    except (_NotReadError, ZeroDivisionError, RecursionError):  # not read with certainty: not judged
        pass
    return None


def _fits(value: Fraction, printed: str, *, divided: bool) -> bool:
    """Say whether a value may be printed so: exactly, or rounded or cut to these digits where it is not whole."""
    number = printed.translate(_FOLD).replace(",", "").strip()
    for factor in (1, 100) if "%" in number else (1,):
        shown = Fraction(number.replace("%", "").replace(" ", "")) / (100 if "%" in number and factor == 1 else 1)
        places = len(number.replace("%", "").strip().partition(".")[2])
        unit = Fraction(1, 10**places) / (100 if "%" in number and factor == 1 else 1)
        if value == shown:
            return True
        if (value / unit).denominator == 1 and not divided:
            continue  # these digits can say it exactly
        over = abs(shown) - abs(value)
        if abs(value - shown) <= unit / 2 or -unit < over < 0 or (places == 0 and abs(over) < unit):
            return True
    return False


def _close(a: Fraction, b: Fraction, left: str, right: str) -> bool:
    """Say whether two sides differ by no more than the rounding of a number between them might explain."""
    if not re.search(r"[/÷^.%]", left + right):
        return False
    return abs(a - b) <= Fraction(1, 50) * max(abs(a), abs(b))


def _runs_on(value: Fraction, side: str) -> bool:
    """Say whether a side goes on from the value before it (`5 + 3 = 8 * 2`): sloppy, but not a wrong sum."""
    head = re.match(r"\s*[$€£]?\s?(\d[\d,]*(?:\.\d+)?)", side)
    return bool(head) and Fraction(head[1].replace(",", "")) == value  # pyright: ignore[reportOptionalSubscript] # bool(head)


def _other_readings(side: str) -> Iterator[Fraction]:
    """Give what a side is without a label before it ("Step 1 - 5 + 3"), or with a per cent added as is usual."""
    label = re.match(r"\s*\d{1,2}[^\S\n]*[-–][^\S\n]*(?=\d)", side)
    if label and re.search(r"\d\s*[-+*/×÷xX]", side[label.end() :]):
        yield _value(side[label.end() :])
    if added := re.fullmatch(r"\s*(\S+)\s*([-+])\s*([\d.]+)\s?%\s*", side):
        base, rate = _value(added[1]), _value(added[3]) / 100
        yield base * (1 + rate if added[2] == "+" else 1 - rate)


def _shown(value: Fraction) -> str:
    if value.denominator == 1:
        return f"{value.numerator:,}"
    return f"{float(value):,.6g}" if value.denominator > 1000 or float(value) == round(float(value), 4) else str(value)


def _value(side: str) -> Fraction:
    """Compute one side exactly. Raises _NotReadError for what is no expression."""
    text = side.translate(_FOLD)
    tokens: list[str] = []
    at = 0
    for match in _TOKEN.finditer(text):
        if text[at : match.start()].strip():
            raise _NotReadError
        tokens.append(f"{match[1].replace(',', '')}{match[2]}" if match[1] else match[3].replace("**", "^"))
        at = match.end()
    if text[at:].strip() or not tokens:
        raise _NotReadError
    value, rest = _sum(tokens, 0)
    if rest != len(tokens):
        raise _NotReadError
    return value


def _sum(tokens: list[str], at: int) -> tuple[Fraction, int]:
    value, at = _product(tokens, at)
    while at < len(tokens) and tokens[at] in "+-":
        right, end = _product(tokens, at + 1)
        value, at = (value + right if tokens[at] == "+" else value - right), end
    return value, at


def _product(tokens: list[str], at: int) -> tuple[Fraction, int]:
    value, at = _power(tokens, at)
    while at < len(tokens) and tokens[at] in "*/":
        right, end = _power(tokens, at + 1)
        value, at = (value * right if tokens[at] == "*" else value / right), end
    return value, at


def _power(tokens: list[str], at: int) -> tuple[Fraction, int]:
    if at < len(tokens) and tokens[at] == "-":
        value, at = _power(tokens, at + 1)
        return -value, at
    value, at = _number(tokens, at)
    if at < len(tokens) and tokens[at] == "^":
        power, at = _power(tokens, at + 1)
        if power.denominator != 1 or abs(power) > _MOST_POWER:
            raise _NotReadError
        value = value ** int(power)
    return value, at


def _number(tokens: list[str], at: int) -> tuple[Fraction, int]:
    if at >= len(tokens) or tokens[at] in "+-*/^)":
        raise _NotReadError
    if tokens[at] == "(":
        value, at = _sum(tokens, at + 1)
        if at >= len(tokens) or tokens[at] != ")":
            raise _NotReadError
        return value, at + 1
    digits = tokens[at]
    if len(digits) > _MOST_DIGITS:
        raise _NotReadError
    return Fraction(digits.rstrip("%")) / (100 if digits.endswith("%") else 1), at + 1


_SUSPECT = (
    r"(?:[\d)%]\s*(?:=|(?:equals|is\s+equal\s+to)\b)\s*[(\-−$€£]*\s?\d)"
    r"|\d\s?(?:%|percent)\s+of\s+[$€£]?\d[\d,.]*\s+(?:is|=|equals)"
)
"""A digit on both sides of an equals sign, or a per cent of a number."""
_answer = pl.col("answer")
_candidate = where(any_of(_answer, "=", "equal", "% of", "percent of"), _answer)


def _evidence(rows: pl.Series) -> pl.Series:
    texts: list[str | None] = []
    for row in rows:
        wrong = None if row["answer"] is None else next(wrong_equations(row["answer"], row["composed"] or ""), None)
        texts.append(f'"{wrong.text}", and it is {wrong.value}' if wrong else None)
    return pl.Series(rows.name, texts, dtype=pl.String)


def _checked(answer: pl.Expr) -> pl.Expr:
    given = pl.struct(answer.alias("answer"), "composed")
    return given.map_batches(_evidence, return_dtype=pl.String)


RULES: list[Rule] = [
    review(
        "wrong_arithmetic",
        _checked(where(_candidate.str.contains(_SUSPECT), _answer)).is_not_null(),
        _checked(_answer),
        origin="AlpacaDataCleaned: wrong answers",
        python=True,
        hit=Example("How many eggs are in three boxes of twelve?", "There are 12 * 3 = 35 eggs."),
        near=Example("How many eggs are in three boxes of twelve?", "There are 12 * 3 = 36 eggs, and 10 / 3 = 3.33."),
    )
]
