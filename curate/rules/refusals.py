"""Refusals, and answers in which the assistant speaks of itself: whose model it is, what it cannot know."""

import polars as pl

from curate.rules.rule import Example, Rule, any_of, around, finds, reject, review, shown, where

_SORRY = (
    r"(?:(?:i['’]?m|i am|we are|we['’]re)\s+(?:very\s+|so\s+|really\s+|truly\s+)?sorry|sorry|apologies"
    r"|i\s+apologi[sz]e|unfortunately)"
)
_ACTS = (
    r"(?:assist|help|provide|generate|create|produce|fulfill?|complete|comply|answer|access|browse|view|see|open"
    r"|display|process|perform|engage|discuss|give|offer|write|draw|play|render|translate|set\s+up|do\s+(?:that|this))"
)
_CANNOT = r"(?:cannot|can\s*not|can['’]?t|am\s+(?:not\s+able|unable)\s+to|['’]m\s+(?:not\s+able|unable)\s+to|won['’]t)"
_REFUSAL = (
    r"(?i)^[\"'“]?(?:"
    rf"(?:{_SORRY}[,.]?\s+(?:but\s+)?)?(?:as|being)\s+an?\s+(?:(?:large|virtual)\s+)?(?:ai"
    rf"|artificial\s+intelligence|language\s+model|chatbot)\b"
    rf"|(?:{_SORRY}[,.]?\s+(?:but\s+)?)?i\s*{_CANNOT}\s+{_ACTS}\b"
    rf"|{_SORRY},?\s+(?:but\s+)?(?:the|this|that|your)\s+(?:task|request|instruction|input|question)\b"
    r"|no\s+output\s+(?:because|as|since)\b"
    r"|this\s+(?:task|request|instruction)\s+(?:does\s+not|doesn['’]t|cannot|can['’]t|is\s+not)\s+(?:meet|be|possible)\b"
    r")"
)
"""How a refusal begins. Only the first words are read: apologies, dialogues and poems say "sorry" and "I can't" too."""
_BEGINNINGS = (
    "sorry", "apolog", "unfortunately", "as a", "being a", "cannot", "can", "unable", "not able",
    "won", "no o", "this ",
)  # fmt: skip

_MODELS = r"(?:chat-?gpt|gpt-?[345](?:\.5)?|vicuna|qwen|deepseek|open\s?assistant)"
_SHARED = r"(?:claude|bard|gemini|copilot|llama|grok|mistral)"
"""Names that people, poets, star signs, animals and winds have too: they count where the prompt does not say them."""
_MAKERS = (
    r"(?:open\s?ai|anthropic|google(?:\s+deepmind)?|deepmind|meta(?:\s+ai)?|microsoft|alibaba(?:\s+cloud)?|deepseek"
    r"|xai|mistral(?:\s+ai)?|lmsys)"
)
_KIND = r"(?:(?:large\s+)?language\s+model|ai|artificial\s+intelligence|(?:ai\s+|virtual\s+)?assistant|chat-?bot|model)"
_MADE = (
    rf"(?:just\s+|only\s+)?an?\s+(?:\w+[\s-]){{0,3}}?{_KIND}(?:\s+\w+){{0,2}}?,?\s+(?:that\s+was\s+|which\s+was\s+)?"
    rf"(?:created|developed|trained|made|built|designed)\s+by\s+{_MAKERS}\b"
)
_IDENTITY = (
    rf"(?i)(?:^|[.!?,\n]\s*)(?:(?:hi|hello)[,!.]?\s+)?(?:i\s+am|i['’]m|my\s+name\s+is|as)\s+{_MODELS}\b(?:\s*[,.!]"
    rf"|\s+and\b|\s+an?\b|$)"
    rf"|\b(?:i\s+am|i['’]m)\s+{_MADE}|(?:^|[.!?,\n]\s*)as\s+{_MADE},?\s+(?:i|my)\b"
    rf"|\bi\s+was\s+(?:created|developed|trained|made|built|designed)\s+by\s+{_MAKERS}\b"
)
_SHARED_IDENTITY = (
    rf"(?i)(?:^|[.!?,\n]\s*)(?:(?:hi|hello)[,!.]?\s+)?(?:i\s+am|i['’]m|my\s+name\s+is)\s+{_SHARED}\b"
    rf"(?:\s*[,.!]|\s+and\b|\s+an?\b|$)"
)
_NAMES = (
    "gpt", "claude", "bard", "gemini", "copilot", "llama", "vicuna", "qwen", "deepseek", "grok", "mistral", "assistant",
    "openai", "open ai", "anthropic", "google", "deepmind", "meta", "microsoft", "alibaba", "xai", "lmsys",
)  # fmt: skip

_CUTOFF = (
    r"(?i)\bmy\s+(?:last|latest|most\s+recent)\s+(?:knowledge\s+|training\s+)?(?:update|cut-?\s?off|training)\b"
    r"|\bmy\s+(?:knowledge|training(?:\s+data)?|information|data)\s+(?:base\s+)?(?:cut-?\s?off|(?:was"
    r"|is)\s+(?:last\s+updated|current|cut\s+off|limited\s+to)"
    r"|(?:only\s+)?(?:goes|extends|ends|ended|stops|runs)\b|has\s+a\s+cut-?\s?off)"
    r"|\b(?:as\s+of|after|since|beyond)\s+my\s+(?:knowledge|training)\b"
    r"|\bi\s+(?:do\s+not|don['’]t|cannot|can['’]t)\s+(?:have\s+)?(?:access(?:\s+to)?\s+"
    r"|browse\s+)?(?:real[- ]?time|up-to-date|live)\s+"
    r"(?:information|data|news|updates|internet|prices|weather)\b"
)
_CUTOFF_WORDS = (
    "my last", "my latest", "my most recent", "my knowledge", "my training", "my information", "my data",
    "have real", "have access",
    "have up", "have live", "access real", "access live", "access up", "browse",
)  # fmt: skip
_SELF = (
    r"(?i)\b(?:as|being|i\s+am|i['’]m)\s+(?:just\s+|only\s+)?an?\s+"
    r"(?:ai|large\s+language\s+model|language\s+model|artificial\s+intelligence)\b"
)

_answer, _prompt = pl.col("answer"), pl.col("composed")
_refuses = finds(where(any_of(_answer.str.head(48), *_BEGINNINGS, fold=True), _answer).str.strip_chars(), _REFUSAL)
_named = where(any_of(_answer, *_NAMES, fold=True), _answer)

RULES: list[Rule] = [
    reject(
        "provider_identity",
        (finds(_named, _IDENTITY) | (finds(_named, _SHARED_IDENTITY) & ~finds(_prompt, rf"(?i)\b{_SHARED}\b")))
        & ~any_of(
            _prompt, "dialog", "conversation", "story", "script", "role", "pretend", "write", "act as", fold=True
        ),
        around("answer", f"{_IDENTITY}|{_SHARED_IDENTITY}"),
        origin="open-instruct: provider self-identification",
        hit=Example("Who are you?", "I am an AI language model developed by OpenAI, here to help."),
        near=Example("Who are you?", "I'm an engineer, and my team uses a model developed by OpenAI."),
    ),
    review(
        "refusal",
        _refuses,
        shown("answer"),
        origin='Cherry_LLM, without its "I\'m an"',
        hit=Example("Paint me a cat.", "I'm sorry, but I can't draw pictures."),
        near=Example("Who builds bridges?", "I'm an engineer from Leeds, and I do."),
    ),
    review(
        "ai_self_reference",
        finds(where(any_of(_answer, " AI", "anguage model", "rtificial intelligence"), _answer), _SELF)
        & ~any_of(_prompt, "AI", "assistant", "chatbot", "robot", "language model", "artificial")
        & ~_refuses.fill_null(value=False),
        around("answer", _SELF),
        origin="open-instruct",
        hit=Example("Which tea is best?", "Green tea is light. As an AI language model, I drink none."),
        near=Example("Which tea is best?", "Green tea is light. An AI language model said so."),
    ),
    review(
        "knowledge_cutoff",
        finds(where(any_of(_answer, *_CUTOFF_WORDS, fold=True), _answer), _CUTOFF),
        around("answer", _CUTOFF),
        origin="open-instruct: knowledge-cutoff mentions",
        hit=Example("Who won?", "As of my last knowledge update in 2021, nobody had won."),
        near=Example("Who won?", "As of the last update of the table, nobody had won."),
    ),
]
