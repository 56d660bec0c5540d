"""Languages: an answer in another language than its prompt, where no other language was asked for."""

import polars as pl

from curate.language import detect
from curate.rules.rule import Example, Rule, any_of, review, shown, where

_NAMES = (
    "translat", "language", "english", "french", "spanish", "german", "italian", "portuguese", "dutch", "russian",
    "polish", "swedish",
    "norwegian", "danish", "finnish", "greek", "turkish", "arabic", "hebrew", "hindi", "bengali", "urdu", "persian",
    "farsi", "chinese",
    "mandarin", "japanese", "korean", "vietnamese", "thai", "indonesian", "latin", "ukrainian", "czech",
    "hungarian", "romanian",
    "bulgarian", "catalan", "swahili", "tagalog", "filipino", "tamil", "malay", "deutsch", "englisch",
    "französisch", "spanisch", "übersetz", "sprache",
    "español", "inglés", "traduc", "traduz", "français", "anglais", "tradui", "langue", "idioma", "lingua",
    "inglese", "перев", "язык",
    "翻译", "翻譯", "翻訳", "英语", "英文", "中文", "日本語", "英語", "번역", "영어",
)  # fmt: skip
"""A prompt with one of these words may ask for another language."""

_asked, _answer = pl.col("user"), pl.col("answer")
_long = (_answer.str.len_bytes() > 40) & (_asked.str.len_bytes() > 12)
_both_english = any_of(_answer, " the ", " and ", " are ", "The ", " with ", " that ", " you ", "This ") & any_of(
    _asked, " the ", " a ", " an ", "What ", "How ", " of ", " for ", " and ", " to ", "Who ", "Which ", "Why ",
    " that ",    "Generate ", "Create ", "Write ", "Describe ", "Explain ", "Identify ", "Name ", " this ", " these ",
    "Suggest ", "List ",
)  # fmt: skip
"""Most rows of most datasets: the words say at once that nothing is wrong with them."""
_open = _long & ~_both_english
_prompt_language = where(_open, _asked).map_batches(detect, return_dtype=pl.String)
_answer_language = where(_open, _answer).map_batches(detect, return_dtype=pl.String)
_names_one = pl.concat_str(["system", "composed"], separator="\n", ignore_nulls=True).str.contains_any(
    list(_NAMES), ascii_case_insensitive=True
)

RULES: list[Rule] = [
    review(
        "other_language",
        (_prompt_language != _answer_language) & ~_names_one,
        pl.lit("asked in ")
        + _prompt_language
        + pl.lit(", answered in ")
        + _answer_language
        + pl.lit(": ")
        + shown("answer"),
        python=True,
        hit=Example(
            "What should I take with me when I walk along the coast in the winter?",
            "Nehmen Sie eine warme Jacke und feste Schuhe mit, denn der Wind ist kalt und der Weg ist nass.",
        ),
        near=Example(
            "What should I take with me? Please answer in German.",
            "Nehmen Sie eine warme Jacke und feste Schuhe mit, denn der Wind ist kalt und der Weg ist nass.",
        ),
    )
]
