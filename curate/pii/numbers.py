"""Numbers that stand for a person or an account: payment cards, IBAN, US social security numbers."""

import re
from collections.abc import Iterator

from curate.pii.finding import Finding, digits_of, is_named_id, words_before

_CARD = re.compile(
    r"(?<![\w.+/-])(?<![0-9] )(?:[0-9]{13,19}|[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{3})?"
    r"|3[0-9]{3}([ -])[0-9]{6}\2[0-9]{4,5})(?![\w-]|[.,][0-9]|[ -][0-9]{4}\b)"
)
_NETWORKS = re.compile(  # first digits and lengths by network (ISO/IEC 7812; the networks' published ranges)
    r"4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})$"  # Visa
    r"|(?:5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}$"  # Mastercard
    r"|3[47][0-9]{13}$"  # American Express
    r"|3(?:0[0-5]|[689][0-9])[0-9]{11}$"  # Diners Club
    r"|(?:6011|64[4-9][0-9]|65[0-9]{2})[0-9]{12}(?:[0-9]{3})?$"  # Discover
    r"|35(?:2[89]|[3-8][0-9])[0-9]{12}(?:[0-9]{3})?$"  # JCB
    r"|62[0-9]{14}(?:[0-9]{3})?$"  # UnionPay
)
_TEST_CARDS = {  # printed in the manuals of payment services
    "2222420000001113",
    "2223000048400011",
    "2223003122003222",
    "3056930009020004",
    "30569309025904",
    "341111111111111",
    "3530111333300000",
    "3566002020360505",
    "3566111111111113",
    "36227206271667",
    "370000000000002",
    "371449635398431",
    "378282246310005",
    "378734493671000",
    "38520000023237",
    "4000000000000002",
    "4000000000000077",
    "4000002500003155",
    "4000002760003184",
    "4000056655665556",
    "4005519200000004",
    "4009348888881881",
    "4012888888881881",
    "4111111111111111",
    "4222222222222",
    "4242424242424242",
    "4462030000000000",
    "4917610000000000",
    "5105105105105100",
    "5200828282828210",
    "5425233430109903",
    "5454545454545454",
    "5555555555554444",
    "6011000000000004",
    "6011000990139424",
    "6011111111111117",
    "6011981111111113",
    "6200000000000005",
    "6205500000000000004",
    "6250947000000014",
}
_CARD_WORDS = re.compile(r"(?i)\b(?:card|visa|mastercard|amex|american express|discover|credit|debit|pan)\b")

_IBAN_LENGTHS = {  # the SWIFT registry of IBAN formats
    **dict.fromkeys(["NO"], 15),
    **dict.fromkeys(["BE"], 16),
    **dict.fromkeys(["DK", "FK", "FI", "FO", "GL", "NL", "SD"], 18),
    **dict.fromkeys(["MK", "SI"], 19),
    **dict.fromkeys(["AT", "BA", "EE", "KZ", "LT", "LU", "MN", "XK"], 20),
    **dict.fromkeys(["CH", "CR", "HR", "LI", "LV"], 21),
    **dict.fromkeys(["BG", "BH", "DE", "GB", "GE", "IE", "ME", "RS", "VA"], 22),
    **dict.fromkeys(["AE", "GI", "IL", "IQ", "OM", "SO", "TL"], 23),
    **dict.fromkeys(["AD", "CZ", "ES", "MD", "PK", "RO", "SA", "SE", "SK", "TN", "VG"], 24),
    **dict.fromkeys(["LY", "PT", "ST"], 25),
    **dict.fromkeys(["IS", "TR"], 26),
    **dict.fromkeys(["BI", "DJ", "FR", "GR", "IT", "MC", "MR", "SM"], 27),
    **dict.fromkeys(["AL", "AZ", "BY", "CY", "DO", "GT", "HN", "HU", "LB", "NI", "PL", "SV"], 28),
    **dict.fromkeys(["BR", "EG", "PS", "QA", "UA"], 29),
    **dict.fromkeys(["JO", "KW", "MU", "YE"], 30),
    **dict.fromkeys(["MT", "SC"], 31),
    **dict.fromkeys(["LC"], 32),
    **dict.fromkeys(["RU"], 33),
}
_IBAN = re.compile(r"(?<![\w-])([A-Z]{2})[0-9]{2}(?=[ -]?[A-Z0-9]{4})")

_SSN = re.compile(r"(?<![\w.-])(?!000|666|9)[0-9]{3}([- ]?)(?!00)[0-9]{2}\1(?!0000)[0-9]{4}(?![\w-]|[.,][0-9])")
_SSN_WORDS = re.compile(r"(?i)\b(?:ssn|ss#|social security)\b[^<>\n]{0,24}$")
_KNOWN_SSNS = {"078051120", "219099999", "123456789"}  # used in print: two in advertisements, one as an example


def cards(text: str) -> Iterator[Finding]:
    """Find payment card numbers: a network's first digits and length, the check digit of Luhn, no known test number."""
    for match in _CARD.finditer(text):
        number = digits_of(match.group())
        if not _NETWORKS.match(number) or number in _TEST_CARDS or not _luhn(number):
            continue
        if is_named_id(text, match.start()) and not _CARD_WORDS.search(words_before(text, match.start())):
            continue
        yield Finding("card", match.start(), match.end(), number, "card number")


def _luhn(number: str) -> bool:
    """Check the last digit (ISO/IEC 7812-1, annex B): from the right, every second digit counts twice."""
    digits = [int(d) for d in reversed(number)]
    return (sum(digits[::2]) + sum(sum(divmod(2 * d, 10)) for d in digits[1::2])) % 10 == 0


def ibans(text: str) -> Iterator[Finding]:
    """Find IBANs: the length of the country's, and the check digits of ISO 7064 (mod 97)."""
    for match in _IBAN.finditer(text):
        length = _IBAN_LENGTHS.get(match.group(1))
        whole = (
            re.compile(rf"(?:[A-Z0-9][ -]?){{{length - 1}}}[A-Z0-9](?!\w)").match(text, match.start())
            if length
            else None
        )
        if whole is None:
            continue
        value = re.sub("[ -]", "", whole.group())
        if int("".join(str(int(c, 36)) for c in value[4:] + value[:4])) % 97 == 1:
            yield Finding("iban", whole.start(), whole.end(), value, "IBAN")


def ssns(text: str) -> Iterator[Finding]:
    """Find US social security numbers: in the form 000-00-0000, or of nine digits after words that say so."""
    for match in _SSN.finditer(text):
        named = _SSN_WORDS.search(words_before(text, match.start())) is not None
        number = digits_of(match.group())
        if number in _KNOWN_SSNS or not (named or (match.group(1) == "-" and not is_named_id(text, match.start()))):
            continue
        yield Finding("ssn", match.start(), match.end(), number, "social security number")
