"""The search: a fast look at all rows for those that may hold something, and a close look at these."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import phonenumbers
import polars as pl

from curate.pii.contact import PHONE_SEPARATORS, emails, ips, phones
from curate.pii.finding import Detector, Finding
from curate.pii.numbers import cards, ibans, ssns
from curate.pii.passage import passages
from curate.pii.redact import FIELDS, Entity, texts
from curate.pii.secrets import NAMES, SIGNS, secrets
from schemas.config import PiiConfig
from schemas.errors import ConfigError

KINDS = ("secret", "card", "iban", "ssn", "email", "phone", "ip")
"""What is looked for, the gravest first: it counts where two kinds claim the same letters, and for the verdict."""

_MANY_DIGITS = f"[0-9](?:[{PHONE_SEPARATORS}]{{0,3}}[0-9]){{6}}"
_LOOKS_LIKE = {  # what every finding of a kind holds; both polars and Python read these
    "card": _MANY_DIGITS,
    "iban": "[A-Z]{2}[0-9]{2}[ -]?[A-Z0-9]{4}",
    "ssn": _MANY_DIGITS,
    "email": "@",
    "phone": _MANY_DIGITS,
    "ip": r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|[23][0-9A-Fa-f]{3}:[0-9A-Fa-f]{0,4}:",
}
_QUICK = {kind: re.compile(pattern) for kind, pattern in _LOOKS_LIKE.items()}
_JSON_ESCAPE = r"^\s*[\[{](?s:.*)\\u"  # a letter of JSON may be written as a number, and then hides from what follows


def _may_hold(text: pl.Expr, kinds: Collection[str]) -> pl.Expr:
    """Say whether a text may hold something of these kinds: never false where a detector finds one."""
    patterns = dict.fromkeys(_LOOKS_LIKE[kind] for kind in kinds if kind in _LOOKS_LIKE)
    tests = [text.str.contains(pattern) for pattern in (*patterns, _JSON_ESCAPE)]
    if "secret" in kinds:
        tests += [
            text.str.contains_any(list(SIGNS)),
            text.str.contains_any(list(NAMES), ascii_case_insensitive=True),
            text.str.contains(r"://[^\s/:@]+:[^\s/@]+@"),
        ]
    return pl.any_horizontal(tests).fill_null(value=False)


@dataclass(frozen=True)
class Search:
    """What is looked for. Make it with `Search.of`."""

    detectors: Mapping[str, Detector]
    literals: frozenset[str]
    patterns: tuple[re.Pattern[str], ...]

    @classmethod
    def of(cls, config: PiiConfig) -> "Search":
        """Make the search of a configuration; raise ConfigError for an unknown region or a broken expression."""
        if config.phone_region not in (*phonenumbers.SUPPORTED_REGIONS, "ZZ"):
            raise ConfigError(
                "pii, phone_region",
                f"{config.phone_region} is no region with phone numbers",
                "two letters such as US, GB or DE; ZZ for international numbers alone",
            )
        known: dict[str, Detector] = {
            "secret": secrets,
            "card": cards,
            "iban": ibans,
            "ssn": ssns,
            "email": emails,
            "phone": partial(phones, region=config.phone_region),
            "ip": ips,
        }
        patterns: list[re.Pattern[str]] = []
        for value in config.allow:
            if len(value) > 2 and value[0] == value[-1] == "/":
                try:
                    patterns.append(re.compile(value[1:-1], re.IGNORECASE))
                except re.error as error:
                    raise ConfigError(
                        "pii, allow", f"{value} is no regular expression ({error})", "such as /.*@company\\.com/"
                    ) from error
        detectors = {kind: known[kind] for kind in KINDS if kind in config.kinds}
        return cls(detectors, frozenset(v.lower() for v in config.allow), tuple(patterns))

    def candidates(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Choose the rows that may hold something.

        Reads: row, messages, context. Adds: nothing; gives the same columns of fewer rows.
        """
        turns = rows.select("row", "messages").explode("messages", empty_as_null=False, keep_nulls=False)
        fields = [pl.col("messages").struct.field(name) for name in FIELDS]
        chosen = turns.filter(pl.any_horizontal(_may_hold(field, self.detectors) for field in fields)).get_column("row")
        return rows.filter(pl.col("row").is_in(chosen.implode()) | _may_hold(pl.col("context"), self.detectors))

    def entities(self, messages: Sequence[Mapping[str, Any]], context: str | None) -> list[Entity]:
        """Find everything in a row, in the order of its texts."""
        return [
            Entity(finding, turn, field)
            for turn, field, text in texts(messages, context)
            for finding in self.findings(text)
        ]

    def findings(self, text: str) -> list[Finding]:
        """Find everything in a text, in order; no two findings share a letter."""
        found = [p.placed(f) for p in passages(text) for f in self._in_passage(p.text)]
        distinct = {(f.start, f.end): f for f in reversed(found)}  # a JSON number with two findings is one
        return sorted(distinct.values(), key=lambda f: f.start)

    def _in_passage(self, text: str) -> list[Finding]:
        """Look until nothing is left: what stood beside a finding may be one itself, once that is redacted."""
        detectors = [d for kind, d in self.detectors.items() if kind not in _QUICK or _QUICK[kind].search(text)]
        found: list[Finding] = []
        rest, taken = text, bytearray(len(text))
        while True:
            before = len(found)
            for detector in detectors:
                known = len(found)
                for finding in detector(rest):
                    start, end = finding.start, finding.end
                    if taken.find(1, start, end) < 0 and not self._allows(text[start:end], finding):
                        found.append(finding)
                        taken[start:end] = b"\x01" * (end - start)
                rest = _covered(rest, found[known:])
            if len(found) == before:
                return found

    def _allows(self, written: str, finding: Finding) -> bool:
        spellings = {written.lower(), finding.value.lower()}
        return not spellings.isdisjoint(self.literals) or any(p.fullmatch(s) for p in self.patterns for s in spellings)


def _covered(text: str, findings: Sequence[Finding]) -> str:
    """Put `<<<>` of the same length in place of findings."""
    pieces: list[str] = []
    at = 0
    for found in sorted(findings, key=lambda f: f.start):
        pieces += [text[at : found.start], "<" * (found.end - found.start - 1), ">"]
        at = found.end
    return "".join([*pieces, text[at:]]) if pieces else text
