"""Gates: rules that a diff must not fulfil, such as `removed(dolly) > 2%`, in a small language of their own.

    rule     any of    test or test or …          and binds closer than or; ( ) as usual
    test     measure   > >= < <= = !=   limit
    measure  WORD, or WORD(NAME, NAME, …): sources, stages, reasons …    curate/diff/gauge.py says what each word counts
    limit    a number, a percentage, or one of patch, minor, major

A rule is read before the versions are opened, so that a slip is told at once; whether its names are known is checked
against the diff.
"""

import operator
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from curate.diff.account import Account
from curate.diff.gauge import BUMPS, GAUGES, Argument, Reading, close_to, read_gauge
from curate.review.markdown import clean
from schemas.errors import ConfigError

LONGEST = 1_000
"""Characters of a rule; what is longer is no rule that a person can check."""

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "!=": operator.ne,
}
_SAME = {"==": "=", "≥": ">=", "≤": "<=", "≠": "!="}

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>[+-]?(?:\d{1,3}(?:[,_]\d{3})+|\d+)(?:\.\d+)?(?:\s*%)?)(?![\w.:/-]|,\d)
      | "(?P<quoted>[^"]*)"
      | (?P<word>\w[\w.:/-]*)
      | (?P<sign>>=|<=|==|!=|[<>=≥≤≠])
      | (?P<mark>[(),])
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Comparison:
    """A comparison of a measure with a limit. `text`: as it was written."""

    text: str
    measure: str
    arguments: tuple[Argument, ...]
    sign: str
    limit: float
    percent: bool


@dataclass(frozen=True)
class AnyOf:
    """Holds where one part does."""

    parts: tuple["Rule", ...]


@dataclass(frozen=True)
class AllOf:
    """Holds where every part does."""

    parts: tuple["Rule", ...]


Rule = Comparison | AnyOf | AllOf


@dataclass(frozen=True)
class Judged:
    """A test and what was found. `value` as people write it, with its sign and unit."""

    test: Comparison
    reading: Reading
    value: str
    holds: bool


@dataclass(frozen=True)
class Outcome:
    """What became of a gate: broken, or kept; each of its tests; and the rows that broke it, each once."""

    gate: "Gate"
    broken: bool
    tests: tuple[Judged, ...]
    rows: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Give the outcome as plain values."""
        tests = [
            {"test": j.test.text, "value": j.reading.plain, "shown": j.value, "holds": j.holds} for j in self.tests
        ]
        return {
            "name": self.gate.name,
            "rule": self.gate.text,
            "broken": self.broken,
            "tests": tests,
            "rows": [dict(row) for row in self.rows],
        }


@dataclass(frozen=True)
class Gate:
    """A rule, as it was written and as it was read; `name` is the limit's name where it has one."""

    text: str
    rule: Rule
    name: str | None = None

    def judge(self, account: Account) -> Outcome:
        """Apply the rule. Raises ConfigError where it names a source, stage or reason that there is not."""
        judged: list[Judged] = []
        broken = self._holds(self.rule, account, judged)
        rows: dict[tuple[str, str], Mapping[str, Any]] = {}
        for one in judged:
            if broken and one.holds:
                rows |= {(row["id"], row["word"]): row for row in one.reading.rows()}
        return Outcome(self, broken, tuple(judged), tuple(rows.values()))

    def _holds(self, rule: Rule, account: Account, judged: list[Judged]) -> bool:
        if isinstance(rule, Comparison):
            reading = read_gauge(
                account, rule.measure, rule.arguments, percent=rule.percent, sign=rule.sign, where=self.text
            )
            holds = _COMPARE[rule.sign](reading.value, rule.limit)
            judged.append(Judged(rule, reading, reading.shown(percent=rule.percent), holds))
            return holds
        parts = [self._holds(part, account, judged) for part in rule.parts]  # all of them, to tell every value
        return all(parts) if isinstance(rule, AllOf) else any(parts)


def parse_gate(text: str, name: str | None = None) -> Gate:
    """Read a rule. Raises ConfigError that points at what cannot be read."""
    if len(text) > LONGEST:
        raise ConfigError(f"rule {text[:40]!r}…", f"{len(text):,} characters", f"at most {LONGEST:,}")
    return Gate(clean(" ".join(text.split())), _Reader(text).rule(), name and clean(name))


def read_gates(file: Path) -> tuple[Gate, ...]:
    """Read named rules: the table `gates` of a TOML file, name = rule. Raises ConfigError."""
    where = f"gates {file}"
    expected = '[gates] and lines such as "few rows of dolly go" = "removed(dolly) > 2%"'
    try:
        held: Any = tomllib.loads(file.read_text(encoding="utf-8")).get("gates")
    except OSError as error:
        raise ConfigError(where, error.strerror or str(error), "a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(where, f"not TOML ({error})", expected) from error
    if not isinstance(held, dict) or not held:
        raise ConfigError(where, "no table [gates] with rules", expected)
    return tuple(_named(where, str(name), rule) for name, rule in held.items())


def _named(where: str, name: str, rule: object) -> Gate:
    if not isinstance(rule, str):
        raise ConfigError(f"{where}, {name!r}", f"{rule!r} is not a text", 'a rule such as "removed(dolly) > 2%"')
    return parse_gate(rule, name)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


class _Reader:
    """Reads one rule from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._split(text))
        self._next = 0
        self._depth = 0

    def _split(self, text: str) -> Iterator[_Token]:
        at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if found is None:
                at += len(text[at:]) - len(text[at:].lstrip())
                self._refuse(_Token("", text[at], at), "nothing that a rule is made of")
            kind = str(found.lastgroup)
            yield _Token(kind, found[kind], found.start(kind) - (kind == "quoted"))
            at = found.end()

    def rule(self) -> Rule:
        found = self._any()
        if self._here:
            self._refuse(self._here, "the rule could end before it", "'and', 'or', or the end of the rule")
        return found

    def _any(self) -> Rule:
        parts = [self._all()]
        while self._take("word", "or"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def _all(self) -> Rule:
        parts = [self._one()]
        while self._take("word", "and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _one(self) -> Rule:
        if not self._take("mark", "("):
            return self._test()
        self._depth += 1
        if self._depth > 20:
            self._refuse(self._tokens[self._next - 1], "brackets in more than 20 brackets")
        found = self._any()
        if not self._take("mark", ")"):
            self._refuse(self._here, "the bracket is not closed", "')'")
        self._depth -= 1
        return found

    def _test(self) -> Comparison:
        first = self._here
        if first is None or first.kind != "word" or first.text not in GAUGES:
            near = close_to(first.text, GAUGES) if first else ""
            self._refuse(first, "no word that counts something", f"one of {', '.join(GAUGES)}", near)
        self._next += 1
        arguments = self._arguments() if self._take("mark", "(") else ()
        sign = self._here
        if sign is None or sign.kind != "sign":
            self._refuse(sign, f"no comparison after {first.text}", f"one of {' '.join(_COMPARE)}")
        self._next += 1
        limit, percent, token = self._limit(first.text)
        text = " ".join(self._text[first.at : token.at + len(token.text)].split())
        return Comparison(text, first.text, arguments, _SAME.get(sign.text, sign.text), limit, percent)

    def _arguments(self) -> tuple[Argument, ...]:
        found: list[Argument] = []
        while True:
            token = self._here
            if token is None or token.kind not in ("word", "number", "quoted"):
                self._refuse(token, "no name", "names with commas between them, such as (alpaca, rules)")
            self._next += 1
            found.append(Argument(token.text, token.at + 1))
            if self._take("mark", ")"):
                return tuple(found)
            if not self._take("mark", ","):
                self._refuse(self._here, "the names do not end", "',' or ')'")

    def _limit(self, measure: str) -> tuple[float, bool, _Token]:
        token = self._here
        if measure == "bump":
            if token is None or token.text not in BUMPS:
                self._refuse(token, "no part of a version number", f"one of {', '.join(BUMPS)}")
            self._next += 1
            return float(BUMPS.index(token.text)), False, token
        if token is None or token.kind != "number":
            self._refuse(token, "no number", "a limit such as 100, 1,000 or 2.5%")
        self._next += 1
        percent = token.text.endswith("%")
        value = float(re.sub(r"[\s%,_]", "", token.text))
        units = GAUGES[measure].units
        if percent and "%" not in units:
            self._refuse(token, f"{measure} has no percentage", "a number")
        if not percent and "n" not in units:
            self._refuse(token, f"{measure} is a percentage", f"{token.text}%")
        if not percent and value < 0:
            self._refuse(token, f"{measure} is never below 0", "a number, or a percentage for a change such as -5%")
        return value, percent, token

    @property
    def _here(self) -> _Token | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _take(self, kind: str, text: str) -> bool:
        token = self._here
        found = token is not None and token.kind == kind and token.text.lower() == text
        self._next += found
        return found

    def _refuse(self, token: _Token | None, why: str, expected: str = "", remedy: str = "") -> NoReturn:
        place = f"at character {token.at + 1}, {token.text!r}" if token else "at its end"
        raise ConfigError(f"rule {self._text!r}", f"{place}: {why}", expected, remedy)
