"""Ways to reach somebody: e-mail addresses, phone numbers, IP addresses."""

import ipaddress
import re
from collections.abc import Iterator
from functools import lru_cache

import phonenumbers

from curate.pii.finding import Finding, digits_of, is_named_id, words_before

# An escape of code (`\n`, `\u00e9`) may stand ahead of an address, and is no part of it.
# The parts of an address have bounds (RFC 5321: 64 and 63 characters), which also bounds the work on any text.
_EMAIL = re.compile(
    r"(?:(?<![\w.+%/-])(?!(?<=\\)(?:[nrtbfv]|u[0-9A-Fa-f]{4}))|(?<=\\[nrtbfv])|(?<=\\u[0-9A-Fa-f]{4}))"
    r"[^\W_][\w.+%'-]{0,63}@((?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}([^\W\d_]{2,24}))(?![\w@(-]|\.\w)"
)
_RESERVED_HOST = re.compile(
    r"(?i)(?:^|\.)(?:example\.(?:com|net|org|edu)|example|test|invalid|localhost|local)$"
)  # RFC 2606, 6761, 6762
_FILE_ENDINGS = {"png", "jpg", "jpeg", "gif", "svg", "webp", "css", "html", "json", "txt", "pdf"}  # logo@2x.png
_REMOTE = re.compile(r"(?i)^(?:git|hg|svn)@")  # git@host:project is a repository's address
_USER_IN_URL = re.compile(r"://[^\s/@]*$")  # https://user:password@host

PHONE_SEPARATORS = "\u00a0\u2010-\u2015 ()./-"
_PHONE = re.compile(
    rf"(?<![\w.,/#$€£¥%*^&@~-])(?:\+[ \u00a0]?)?\(?\+?[0-9](?:[{PHONE_SEPARATORS}]{{0,3}}[0-9]){{6,24}}+"
    r"(?!(?!x[0-9]{1,5}\b)[\w%]|[.,:=-][0-9])"  # an extension may follow: x12
)
_ABROAD = re.compile("00[ 1-9]")
_CHUNK = re.compile(r"[^ \u00a0]+")
_PHONE_WORDS = re.compile(
    r"(?i)(?:\b(?:tele|smart|cell|mobile|home|work|office)?[\s_-]?(?:phone|mobile|cell|fax)s?|\b(?:tel|tlf|call|text|sms|whatsapp|contact"
    r"|reach|dial|ring|hotline|helpline|handy|telefono?|téléphone|teléfono|móvil)(?:s|ing|ed)?)[^\w<>\n]*"
    r"(?:(?:me|us|him|her|them|at|on|is|the|to|or|my|our|his|your|number|no|nr|num|(?-i:[A-Z][a-z]+))\b"
    r"[^\w<>\n]*){0,4}$"
)
_FICTION = re.compile(  # kept for examples and drama: 555-0100 to 0199 (NANPA); the British ranges of Ofcom
    r"^\+1[0-9]{3}55501[0-9]{2}$"
    r"|^\+44(?:2079460[0-9]{3}|2890180[0-9]{3}|2920180[0-9]{3}|1632960[0-9]{3}|1[0-9]{2}4960[0-9]{3}|7700900[0-9]{3}"
    r"|8081570[0-9]{3}|9098790[0-9]{3}|3069990[0-9]{3})$"
)

_IPV4 = re.compile(r"(?<![\w.@~^-])(?<![=~!]=)(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![\w-]|\.[0-9])")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{1,4}:){2,7}(?::?[0-9A-Fa-f]{1,4}){0,7}(?![\w:])")
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")  # RFC 4291; what is used outside a network
_DOCUMENTATION = ipaddress.ip_network("3fff::/20")  # RFC 9637, newer than Python's own list
_VERSION_WORDS = re.compile(
    r"(?i)\b(?:v|ver|versions?|release[ds]?|build|firmware|driver|update[ds]?|upgrade[ds]?|section|chapter|clause|oid|asn)"
    r"[^\w<>\n]*(?:(?:is|to|from|number|no)\b[^\w<>\n]*){0,2}$"
)
_IP_WORDS = re.compile(
    r"(?i)\b(?:ip|ipv4|ip[\s_-]?addr(?:ess(?:es)?)?|hosts?|servers?|ping|dns|resolvers?|nameservers?|gateway|router|client"
    r"|remote|traceroute|ssh|connect(?:ed|ing)?)[^\w<>\n]*(?:(?:is|at|to|address|of)\b[^\w<>\n]*){0,3}$"
)
_LARGEST_VERSION_PART = 19
"""Four numbers up to this one are a version unless a word says that they are an address: few hosts have such a one."""


def emails(text: str) -> Iterator[Finding]:
    """Find e-mail addresses, without the domains that are reserved for examples."""
    if "@" not in text:
        return
    for match in _EMAIL.finditer(text):
        local = match.group()[: match.start(1) - match.start()]
        reserved = _RESERVED_HOST.search(match.group(1)) or match.group(2).lower() in _FILE_ENDINGS
        in_url = _USER_IN_URL.search(words_before(text, match.start()))
        if not (reserved or in_url or _REMOTE.match(local) or ".." in local or local[-2:] == ".@"):
            yield Finding("email", match.start(), match.end(), match.group().lower(), "e-mail")


def phones(text: str, region: str) -> Iterator[Finding]:
    """Find phone numbers that the numbering plan of their country has.

    International numbers (`+`) count as they stand. Others are read as those of `region`, and count where a word such
    as "phone" or "call" stands before them, or where they are grouped as numbers of that plan are written.
    """
    for match in _PHONE.finditer(text):
        if is_named_id(text, match.start()):
            continue
        named = _PHONE_WORDS.search(words_before(text, match.start())) is not None
        if found := _phone_in(match.group(), region, named=named):
            start, end, value = found
            yield Finding("phone", match.start() + start, match.start() + end, value, "phone")


def _phone_in(run: str, region: str, *, named: bool) -> tuple[int, int, str] | None:
    """Find the number in a run of digits and separators; blanks may part it from numbers beside it."""
    chunks = [m.span() for m in _CHUNK.finditer(run)]
    for size in range(len(chunks), 0, -1):
        for first in range(len(chunks) - size + 1):
            start, end = chunks[first][0], chunks[first + size - 1][1]
            piece = run[start:end]
            if piece.startswith("(") and ")" not in piece:
                start += 1
            end = start + len(run[start:end].rstrip("().-/"))
            value = _phone_value(run[start:end], region, named=named and first == 0)
            if value:
                return start, end, value
    return None


@lru_cache(maxsize=4096)
def _phone_value(written: str, region: str, *, named: bool) -> str | None:
    """Give the number as +COUNTRY…, where it is one: 7 to 15 digits, valid in its plan, not kept for fiction."""
    international = written.lstrip("(").startswith("+")
    if not 7 <= len(digits_of(written)) <= 15:
        return None
    if named and _ABROAD.match(written):  # 00 is how most of the world writes the +
        written = f"+{written[2:]}"
    try:
        number = phonenumbers.parse(written, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number) or not (international or named or _is_grouped(written, number)):
        return None
    value = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    return None if _FICTION.match(value) else value


def _is_grouped(written: str, number: phonenumbers.PhoneNumber) -> bool:
    """Say whether the digits are grouped as the numbering plan writes them, by more than blanks or a leading zero."""
    national = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL)
    expected, groups = re.findall("[0-9]+", national), re.findall("[0-9]+", written)
    if len(expected) == len(groups) - 1 and groups[0] in ("1", str(number.country_code)):
        groups = groups[1:]
    punctuated = re.search(r"[^0-9 \u00a0/]", written) is not None
    return len(groups) > 1 and groups == expected and (punctuated or written.startswith("0"))


def ips(text: str) -> Iterator[Finding]:
    """Find public IP addresses: not private, loopback or documentation ranges, and no version numbers."""
    for match in _IPV4.finditer(text):
        if _is_public(match.group()) and not _is_version(text, match):
            yield Finding("ip", match.start(), match.end(), match.group(), "IP address")
    for match in _IPV6.finditer(text) if ":" in text else ():
        if _is_public(match.group()):
            value = ipaddress.ip_address(match.group()).compressed
            yield Finding("ip", match.start(), match.end(), value, "IP address")


def _is_public(written: str) -> bool:
    try:
        address = ipaddress.ip_address(written)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        return address in _GLOBAL_UNICAST and address not in _DOCUMENTATION and address.is_global
    return address.is_global and not address.is_multicast


def _is_version(text: str, match: re.Match[str]) -> bool:
    before = words_before(text, match.start())
    if _VERSION_WORDS.search(before):
        return True
    small = all(int(part) <= _LARGEST_VERSION_PART for part in match.group().split("."))
    return small and not _IP_WORDS.search(before)
