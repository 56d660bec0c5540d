"""Secrets: keys and tokens by the forms that their issuers publish, and values that are assigned to a secret's name."""

import base64
import binascii
import json
import math
import re
from collections import Counter
from collections.abc import Iterator

from curate.pii.finding import Finding

_TAIL = r"(?![A-Za-z0-9_-])"
_HEAD = r"(?<![A-Za-z0-9_-])"

_PATTERNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "AWS access key": (r"(?:AKIA|ASIA)[A-Z0-9]{16}", ("AKIA", "ASIA")),
    "GitHub token": (
        r"gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}",
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    ),
    "GitLab token": (r"gl(?:pat|dt|rt|ft|soat)-[A-Za-z0-9_-]{20,64}", ("glpat-", "gldt-", "glrt-", "glft-", "glsoat-")),
    "Slack token": (r"xox[abeoprs]-[A-Za-z0-9-]{10,250}|xapp-[0-9]-[A-Za-z0-9-]{20,250}", ("xox", "xapp-")),
    "Slack webhook": (
        r"hooks\.slack\.com/services/T[A-Za-z0-9]{7,12}/B[A-Za-z0-9]{7,12}/[A-Za-z0-9]{20,30}",
        ("hooks.slack.com",),
    ),
    "Stripe key": (r"[sr]k_live_[A-Za-z0-9]{16,250}", ("sk_live_", "rk_live_")),
    "OpenAI or Anthropic key": (r"sk-[A-Za-z0-9_-]{20,250}", ("sk-",)),
    "Google key": (
        r"AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,250}|GOCSPX-[A-Za-z0-9_-]{28}",
        ("AIza", "ya29.", "GOCSPX-"),
    ),
    "Hugging Face token": (r"hf_[A-Za-z0-9]{30,64}", ("hf_",)),
    "npm token": (r"npm_[A-Za-z0-9]{36}", ("npm_",)),
    "PyPI token": (r"pypi-AgE[A-Za-z0-9_-]{50,250}", ("pypi-AgE",)),
    "SendGrid key": (r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}", ("SG.",)),
    "DigitalOcean token": (r"do[opr]_v1_[a-f0-9]{64}", ("dop_v1_", "doo_v1_", "dor_v1_")),
    "Shopify token": (r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}", ("shpat_", "shpca_", "shppa_", "shpss_")),
    "Databricks token": (r"dapi[a-f0-9]{32}", ("dapi",)),
    "JSON web token": (r"eyJ[A-Za-z0-9_-]{8,2000}\.eyJ[A-Za-z0-9_-]{8,8000}\.[A-Za-z0-9_-]{16,1000}", ("eyJ",)),
}
_FORMS = [(form, re.compile(f"{_HEAD}(?:{pattern}){_TAIL}"), signs) for form, (pattern, signs) in _PATTERNS.items()]

_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----[A-Za-z0-9+/=\s:,.()-]{64,}?"
    r"(?:-----END [A-Z0-9 ]{3,40}-----|\Z|(?=<))"
)

_WORDS = ("password", "passwd", "passphrase", "pwd", "secret", "token")
_PAIRS = (("api", "key"), ("access", "key"), ("private", "key"), ("account", "key"))
NAMES = (*_WORDS, "bearer", *(joint.join(pair) for pair in _PAIRS for joint in ("", "_", "-", " ")))
"""Words, in any case, of which every name of a secret holds one: what the search for rows looks for."""

SIGNS = (*(sign for _, _, signs in _FORMS for sign in signs), "PRIVATE KEY")
"""Letters of which every secret of a published form holds some."""

_NAMED = "|".join([*_WORDS, *("[_ -]?".join(pair) for pair in _PAIRS)])
_ASSIGNED = re.compile(
    rf"(?i)(?:(?<![A-Za-z])|(?<=[a-z])(?-i:(?=[A-Z])))({_NAMED})(?:[_-]?(?:key|id|value))?[\"'`]?\]?"
    r"(?:[ \t]*(?:=>|:=|=|:)[ \t]*|[ \t]+is[ \t:]+|[ \t]+(?=[\"'`]))"
    r"(?:([\"'`])([^\s\"'`<>]{8,250})\2|([^\s\"'`<>,;(){}\[\]]{8,250})(?=[\s,;\"'`)}]|\Z))"
    r"|\bbearer[ \t]+([A-Za-z0-9_.~+/=-]{20,2000})"  # RFC 6750
)
MIN_KEY = 16
"""Characters of the shortest key or token; what is shorter is a word with a number, as a tokenizer gives them."""
_IN_URL = re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@<>\"']{1,64}:([^\s/@<>\"']{6,128})@(?=[\w\[])")

_PLACEHOLDER = re.compile(
    r"(?i)your|example|sample|dummy|placeholder|change.?(?:me|it|this)|replace|insert|redacted|_here|todo|user|admin"
    r"|passw(?:or)?d|passphrase|secret|token|api.?key|qwerty|12345|abcd|x{4,}|\*{3,}|\.{3,}"
    r"|\$\{|%\(|\{\{|process\.env|environ|getenv|config\.|self\.|this\."  # what code looks up
)
_IDENTIFIER = re.compile(r"(?:(?:[A-Z]?[a-z]{2,}+|[A-Z]{2,}+)(?:_|\.|::|->|-|/)?+)++[0-9]?[.:!?]?$")  # a name in code
MIN_BITS = 2.75
"""Shannon entropy, in bits per character, from which on a value looks drawn rather than typed: that of eight characters
of which two are equal, the weakest that a rule of "at least 8 characters, letters and digits" lets through."""


def secrets(text: str) -> Iterator[Finding]:
    """Find keys and tokens of published forms, private keys, and random values assigned to a secret's name."""
    for form, pattern, signs in _FORMS:
        if any(sign in text for sign in signs):
            for match in pattern.finditer(text):
                if _is_genuine(form, match.group()):
                    yield Finding("secret", match.start(), match.end(), match.group(), form)
    if "PRIVATE KEY" in text:
        for match in _PRIVATE_KEY.finditer(text):
            yield Finding("secret", match.start(), match.end(), match.group().strip(), "private key")
    if "://" in text and "@" in text:
        for match in _IN_URL.finditer(text):
            if is_random(match.group(1)):
                yield Finding("secret", match.start(1), match.end(1), match.group(1), "password in a URL")
    lower = text.lower()
    for match in _ASSIGNED.finditer(text) if any(name in lower for name in NAMES) else ():
        group = next(i for i in (3, 4, 5) if match.group(i) is not None)
        value = match.group(group) if group == 3 else match.group(group).rstrip(".:")
        is_key = (match.group(1) or "").lower().endswith(("key", "token"))
        if is_random(value) and not (is_key and len(value) < MIN_KEY):
            yield Finding("secret", match.start(group), match.start(group) + len(value), value, "assigned secret")


def _is_genuine(form: str, value: str) -> bool:
    """Tell a key from its picture in a manual and from a name that begins as keys do."""
    if form == "JSON web token":
        return _is_jwt_header(value.partition(".")[0])
    if re.search(r"(?i)example|x{6,}|0{10,}|your|1234567890|abcdefgh", value):
        return False
    if form == "AWS access key" or form.startswith("OpenAI"):
        return re.search("[0-9]", value) is not None and re.search("[A-Z]", value) is not None
    return entropy(value) >= MIN_BITS


def _is_jwt_header(part: str) -> bool:
    try:
        header = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return False
    return isinstance(header, dict) and "alg" in header


def is_random(value: str) -> bool:
    """Say whether a value looks drawn: letters and digits, no placeholder, no name in code, `MIN_BITS` or more."""
    if _PLACEHOLDER.search(value) or _IDENTIFIER.match(value):
        return False
    mixed = re.search("[A-Za-z]", value) and re.search("[0-9]", value)
    return bool(mixed) and entropy(value) >= MIN_BITS


def entropy(value: str) -> float:
    """Give the Shannon entropy of the characters, in bits per character."""
    size = len(value)
    return -sum(n / size * math.log2(n / size) for n in Counter(value).values())
