"""Placeholders: answers and contexts that only stand for one, and material that is not there.

The control characters of AlpacaDataCleaned's list are the business of normalize, which runs before.
"""

import re

import polars as pl

from curate.rules.rule import Example, Rule, any_of, around, count, finds, fix, reject, review, same_words, shown, where
from schemas.config import RulesConfig

_GIVEN = r"(?:\s*(?:is|was))?(?:\s*(?:required|needed|necessary|provided|given|available|specified))?"
_NO_INPUT = rf"no\s*[-_]?\s*(?:additional\s+|further\s+)?(?:inputs?|context){_GIVEN}"
_NOTHING = r"n\s*/\s*a|n\.a|not\s*applicable"

_PLACEHOLDER_RESPONSE = (
    r"(?i)^\W*(?:"
    rf"no[\s_-]*(?:output|response){_GIVEN}"
    rf"|{_NOTHING}|to\s*be\s*(?:done|determined)"
    r")\W*$"
    # bare "None", "null", "Todo" and "Na" are right answers somewhere (a count, code, Spanish, chemistry): not these
    r"|^\W*(?-i:TODO|TBD|TBA)\W*$"
    r"|^[<\[({]\s*(?:none|null|empty|blank|todo|placeholder|(?:your\s*|the\s*|insert\s*)*(?:answer|response|output)"
    r"(?:\s*(?:goes\s*)?here)?)\s*[>\])}]\.?$"
    r"|^(?:\.{2,}|…+|-{2,}|_{2,}|\?{2,})$"
    r"|^\[(?:image|picture|photo|music(?:al)?|audio|video|drawing|chart|graph|diagram|flow\s*chart)\b[^\]\n]{0,40}\]$"
)
"""Whole answers that stand for an answer. All 8 `nooutput` of Alpaca's 9k sample, and two `N/A`."""

_SPELLED = r"(?i)\bstands?\s+for\b|abbreviat|acronym|\bmean(?:s|ing)?\b|\bexpand\b"
_OFFERED = rf"{_SPELLED}|\bn/a\b|not\s+applicable|\bno[\s_-]+(?:output|response)\b|\bto\s?do\b|\btb[ad]\b|\bto\s+be\s+d"
"""Words of a prompt, or of a system prompt, that offers the placeholder: "or say N/A"."""
_MAY_BE_RIGHT = (
    rf"{_OFFERED}|\bprints?\b|\boperators?\b|\bcomments?\b|\bsymbols?\b|\bpunctuation|\bellips|\bdash(?:es)?\b"
    r"|\bpython\b|\bprogrammers?\b"
)
"""And words of one to which it is the right answer: how do comments begin in SQL? `--`"""

_NO_CONTEXT = (
    rf"(?i)^[\W_]*(?:{_NO_INPUT}|{_NOTHING}|[<(]\s*(?:none|null|nil|empty|blank)\s*[>)]"
    r"|[\[{]\s*(?:empty|blank)\s*[\]}])[\W_]*\d?$"  # [null] and [None] are lists of JSON and Python
)
_DOUBTFUL_CONTEXT = r"(?i)^[\W_]*(?:none|null|nil|empty|blank)[\W_]*$"
"""The bare word is the material itself somewhere (a value to classify, a word to translate), so a person decides."""
_LONGEST = 60
"""Bytes: no placeholder of a context is longer."""

_LABEL = r"(?:(?:\w+\s+)?(?:link|url|article|website|source)\s*:\s*)?"
_URL = r"(?:(?:https?|ftp):[/\\]{2}|www\.)\S+"
_URL_ONLY = rf"(?i)^{_LABEL}[<(\[]?{_URL}(?:\s+{_URL})*$"

_MEDIUM = (
    r"(?:image|picture|photo|photograph|painting|drawing|screenshot|video|audio|recording|file|document|attachment"
    r"|diagram|graph|chart|figure|map|sketch)s?"
)
_MEDIA = (
    rf"(?i)[\[<(](?:link\s+to\s+|attached\s+|insert(?:ed)?\s+|see\s+|an?\s+|the\s+)*{_MEDIUM}"
    r"(?:\s+(?:attached|here|link|of\b[^\]>)\n]{0,120}|\d+))?\s*[\])>]"
    r"|!\[[^\]\n]{0,80}\]\(\s*\S+\s*\)|<img\s"
    rf"|\battached\s+(?:\w+\s+){{0,2}}?{_MEDIUM}\b|\b{_MEDIUM}\s+(?:is\s+|are\s+)?attached\b"
    rf"|\b(?:see|in|look\s+at)\s+the\s+(?:attachment|{_MEDIUM}\s+(?:above|below|attached))\b"
)
_ASKS = (
    r"(?i)\b(?:describe|caption|edit|identify|classify|analy[sz]e|name|label|transcribe|summari[sz]e|watch|listen)\b"
    r"[^.?!\n]{0,40}\b(?:this|the\s+(?:following|given|provided|accompanying))\s+(?:\w+\s+)?"
    r"(?:image|picture|photo|photograph|screenshot|video|audio|recording|painting|drawing|artwork)\b"
)
_MEDIA_WORDS = ("image", "picture", "photo", "paint", "drawing", "screenshot", "video", "audio", "recording", "attach")
_SIGNED = (
    *_MEDIA_WORDS, "file", "doc", "diag", "graph", "chart", "fig", "map", "sketch", "link", "insert", "see",
    "a ", "an ", "the ",
)  # fmt: skip
_MEDIA_SIGNS = (*(sign + word for sign in "[<(" for word in _SIGNED), "](", "<img", "attach", "above", "below")

_MISSING = (
    r"(?i)(?:\b(?:the\s+(?:following|given|provided|below)|these|this\s+(?:given|following))\s+(?:\w+\s+){0,2}?"
    r"(?:text|sentences?|paragraphs?|passages?|articles?|lists?|code|snippet|data|datasets?|table|poem|story|stories"
    r"|e-?mail|letter|documents?|dialogue|conversation|words|phrases?|numbers|items|statements?|reviews?|equations?"
    r"|chart|excerpt|quote|tweet|paper|speech)\b"
    r"|\bthe\s+(?:text|sentences?|paragraphs?|passages?|articles?|list|code|data|table|poem|story|e-?mail|words|numbers)"
    r"\s+(?:below|provided|given|above)\b)"
)
_AT_END = _MISSING + r"[^.?!:]*[.?!:]?\s*$"
_MADE_UP = r"(?i)\b(?:generate|create|make|invent|use|using|come\s+up|contain|topic|write\s+an?)\b"

_EMPTY_CODE = (
    r"(?i)^\s*```[\w+#-]*\s*(?:(?://|#|--|/\*)?[^\S\n]*(?:\.\.\.|(?:your|the|insert|add"
    r"|write)?\s*code\s*(?:goes\s*)?here\.?"
    r"|todo)\s*(?:\*/)?)?\s*```\s*$"
    r"|^\s*(?:[<\[({]\s*(?:your\s+|the\s+"
    r"|insert\s+)*(?:source\s*)?code(?:\s+snippet)?(?:\s*(?:goes\s*)?here)?\s*[>\])}]"
    r"|(?://|#)\s*(?:your|insert|add|write)\s+(?:your\s+)?code\s+(?:goes\s+)?here\.?)\s*$"
)


def _without_placeholder(text: str) -> str:
    return "" if len(text.encode()) <= _LONGEST and re.search(_NO_CONTEXT, text) else text


def rules(config: RulesConfig) -> list[Rule]:
    """Give the rules about placeholders."""
    context = pl.col("context")
    short_context = context.str.len_bytes() <= _LONGEST
    stripped = pl.element().str.strip_chars()
    return [
        fix(
            "placeholder_context",
            ["context"],
            lambda text: where(text.str.len_bytes() <= _LONGEST, text).str.contains(_NO_CONTEXT),
            _without_placeholder,
            unless=finds(pl.col("user"), _SPELLED) & ~any_of(context, "input", "context", fold=True),
            origin="AlpacaDataCleaned: inconsistent no-input",
            hit=Example(context="<noinput>"),
            near=Example(context="No input was lost in the flood."),
        ),
        reject(
            "placeholder_response",
            pl.col("answers")
            .list.eval(where(stripped.str.len_bytes() <= _LONGEST, stripped).str.contains(_PLACEHOLDER_RESPONSE))
            .list.any()
            & ~finds(pl.col("composed"), _MAY_BE_RIGHT)
            & ~finds(pl.col("system").fill_null(""), _OFFERED),
            shown("answer"),
            origin="AlpacaDataCleaned: N/A outputs, nooutput",
            hit=Example(answer="<nooutput>"),
            near=Example(answer="None"),
        ),
        reject(
            "response_equals_prompt",
            # a system prompt may ask for what was said, mended where that is needed
            (same_words("answer", "user") | same_words("answer", "composed"))
            & ~pl.col("system").fill_null("").str.contains(r"\S"),
            shown("answer"),
            hit=Example(prompt="Rewrite this sentence.", answer="Rewrite  this sentence."),
            near=Example(prompt="Rewrite this sentence.", answer="Rewrite this sentence!"),
        ),
        reject(
            "empty_code",
            where(
                any_of(pl.col("answer"), "```", "code", fold=True) & (pl.col("answer_count") <= 12), pl.col("answer")
            ).str.contains(_EMPTY_CODE),
            shown("answer"),
            origin="AlpacaDataCleaned: empty code",
            hit=Example("Write a loop in Python.", "```python\n# your code here\n```"),
            near=Example("Write a loop in Python.", "```python\npass\n```"),
        ),
        review(
            "short_response",
            pl.col("answer_count") < config.short_words,
            count("answer_count", "words"),
            hit=Example(answer="Two words"),
            near=Example(answer="Just three words"),
        ),
        review(
            "placeholder_context",
            where(short_context, context).str.contains(_DOUBTFUL_CONTEXT),
            shown("context"),
            origin="AlpacaDataCleaned: inconsistent no-input",
            hit=Example(context="none"),
            near=Example(context="none of these"),
        ),
        review(
            "url_only_context",
            where(any_of(context, "://", ":\\\\", "www.", fold=True), context)
            .str.strip_chars()
            .str.contains(_URL_ONLY),
            shown("context"),
            origin="AlpacaDataCleaned: hallucinated URL inputs",
            hit=Example("Summarise the page.", context="https://example.com/news?id=3"),
            near=Example("Summarise the page.", context="See https://example.com"),
        ),
        review(
            "missing_media",
            _asks_for_media(),
            around("composed", _MEDIA).fill_null(shown("user")),
            origin="AlpacaDataCleaned: image requests",
            hit=Example("Describe the scene.", context="[Image of a harbour]"),
            near=Example("Describe the scene.", context="A harbour at dawn, with two boats."),
        ),
        review(
            "response_equals_context",
            same_words("answer", "context"),
            shown("answer"),
            hit=Example("Correct the grammar.", "He spoke loudly.", context="He spoke  loudly."),
            near=Example("Correct the grammar.", "He spoke loudly!", context="He spoke loudly."),
        ),
        review(
            "nonsense_prompt",
            _nonsense(),
            shown("composed"),
            origin="AlpacaDataCleaned: nonsensical instructions",
            hit=Example("asdf ghjkl"),
            near=Example("Why rhythms?"),
        ),
    ]


def _asks_for_media() -> pl.Expr:
    """Say whether a prompt points at a picture or a file that is not there; a word for one is not enough."""
    text, user = pl.col("composed"), pl.col("user")
    asked = finds(where(any_of(text, *_MEDIA_SIGNS, fold=True), text), _MEDIA)
    bare = pl.col("blank_context") & any_of(user, *_MEDIA_WORDS, fold=True) & ~user.str.contains("[:\n]\\s*\\S")
    return asked.fill_null(value=False) | finds(where(bare, user), _ASKS).fill_null(value=False)


def _nonsense() -> pl.Expr:
    """Say whether a prompt is a few words of which none can be said aloud: no letters, or mashed keys."""
    text = pl.col("composed")
    few = where(text.str.len_bytes().is_between(1, 40), text)
    mashed = few.str.contains(
        r"(?i)^[\s.,;!?]*(?:(?:asdf|qwer|zxcv|hjkl|sdfg|dfgh|fghj|uiop)[a-z]*|[b-df-hj-np-tv-xz]{6,})"
        r"(?:[\s.,;!?]+(?:[asdfghjkl;]{3,}|[qwertyuiop]{6,}|[b-df-hj-np-tv-xz]{4,}))*[\s.,;!?]*$"
    ) & ~few.str.contains(r"(?i)rhythm|crypt")
    bare = few.str.contains(r"^[^\p{L}\p{N}\p{So}]{3,}$")
    return mashed | bare


MISSING_INPUT: Rule = review(
    "missing_input",
    where(
        pl.col("blank_context")
        & any_of(pl.col("user"), "following", "given", "provided", "below", "these", fold=True)
        & (pl.col("user").str.len_bytes() < 200)
        & ~pl.col("user").str.contains("[:\n][\\s]*\\S|[\"“”'‘`\\d]"),
        pl.col("user"),
    ).str.contains(_AT_END)
    & ~finds(pl.col("user"), _MADE_UP),
    around("user", _MISSING),
    origin="AlpacaDataCleaned: inconsistent no-input",
    hit=Example("Summarise the following article."),
    near=Example("Summarise the following article: Rain fell on Fennel Bay all week."),
)
"""The material that the instruction names is nowhere. Alpaca's own instructions are short, so that this shows."""
