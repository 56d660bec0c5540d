"""Language: which one a text is written in, and null where that is not certain. Precision stands above recall.

A script that one language writes nearly alone decides by itself (Hangul, Greek, Thai …; kana against Han). Languages
that share a script are told apart by the words and letters of `curate.profiles`: each different word of a text that k
languages have counts 1/k² for each of them, so that words which tell nothing weigh nothing. The best language is said
only where it has enough words of its own, makes up enough of the text, and leaves the next one far behind; so numbers,
names, program code, single words and texts in two languages are null.

Only the first `LONGEST` characters are read, fenced code left out.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.profiles import LETTERS, SCRIPTS, UNDECIDED, WORDS

CHUNK_ROWS = 16_384
"""Texts that are looked at together; their words take about 50 MB."""

LONGEST = 1000
"""Characters that are read: some 160 words of English, far more than the decision needs."""

LEAST_WORDS = 2
"""Different words of a language that must stand in a text."""
LEAST_SCORE = 1.0
"""Score from which on a language is said: one word of its own, or many that it shares with few."""
LEAST_SHARE = 0.12
"""Part of a text's words that must be in the profile. Prose has 0.25 (Finnish, Turkish) to 0.5 (English)."""
WHOLE = 1_000_000
"""What counts as 1 in sums of scores: whole numbers add up to the same in any order."""
MARGIN = 2.0
"""How many times the score of the next language the best one must have."""
MOST_SYMBOLS = 0.35
"""Brackets, `=`, `;`, `<`, `_` … per word, from which on a text counts as code; prose has under 0.1."""

SCRIPT_SHARE = 0.6
"""Part of the letters that must be of a script for it to decide."""
MIXED_SHARE = 0.25
"""Part of the letters from which on a second script makes a text mixed, which is null."""
LEAST_LETTERS = 6
"""Letters of a script that must be there."""
LETTERS_PER_IDEOGRAPH = 3
"""Letters that a Han character stands for when scripts are weighed: a word of two characters has six Latin letters."""
KANA_SHARE = 0.1
"""Kana among kana and Han from which on a text is Japanese; without any, it may be Chinese."""

_CHINESE = "[的是了这這个個们們吗嗎吧你说說没沒么麼为為]"  # words that Japanese does not write, or hardly
_YIDDISH = "[װױײ]"
_PUNCTUATION = '.,;:!?¡¿"()[]{}<>«»“”„‘…*_#-–—·•،؛؟।|/\\`、。'
_SYMBOLS = r"[{}()\[\];=<>_\\$&]"


class Lexicon(NamedTuple):
    """The profiles as tables: `words` and `letters` to `sign`, a number; `tells`: sign, language (its place in
    `languages`), weight.
    """

    languages: tuple[str, ...]
    words: pl.DataFrame
    letters: pl.DataFrame
    tells: pl.DataFrame


@cache
def lexicon() -> Lexicon:
    """Make the tables of the profiles, once."""
    languages = tuple(sorted(WORDS))
    words = {(part, lang) for lang, text in WORDS.items() for word in text.split() for part in word.split("'")}
    letters = {(letter, lang) for lang, text in LETTERS.items() for letter in text}
    told = {pair for pair in words if pair[0] and (len(pair[0]) > 1 or not pair[0].isascii())}  # "A." heads a list
    pairs = sorted((text, languages.index(lang)) for text, lang in told | letters)
    tells = pl.DataFrame(pairs, schema={"text": pl.String, "language": pl.UInt32}, orient="row")
    tells = tells.with_columns(
        sign=pl.col("text").rank("dense").cast(pl.UInt32),
        weight=(WHOLE / pl.len().over("text") ** 2).round().cast(pl.Int64),
    )
    signs = tells.select("text", "sign").unique(maintain_order=True)
    return Lexicon(
        languages,
        signs.rename({"text": "word"}),
        signs.filter(pl.col("text").is_in({letter for letter, _ in letters})).rename({"text": "letter"}),
        tells.select("sign", "language", "weight"),
    )


def detect(texts: pl.Series) -> pl.Series:
    """Give the ISO 639-1 code of the language of each text; null where it is not certain, and for null.

    Afrikaans, and Croatian, Bosnian and Serbian in Latin letters, are null (`curate.profiles.UNDECIDED`); Norwegian is
    `no`, Chinese `zh` and Malay `ms`, whatever their variety.
    """
    chunks = [_detect(texts.slice(at, CHUNK_ROWS)) for at in range(0, len(texts), CHUNK_ROWS)]
    return pl.concat(chunks) if chunks else pl.Series("language", [], dtype=pl.String)


def _detect(texts: pl.Series) -> pl.Series:
    plain = pl.col("text").str.replace_all(r"(?s)```.*?(?:```|$)", " ").str.head(LONGEST).str.to_lowercase()
    rows = pl.DataFrame({"text": texts.cast(pl.String)}).select(plain).with_row_index("row")
    by_script = _by_script(rows)
    others = rows.join(by_script, on="row", how="anti") if by_script.height else rows
    decided = pl.concat([_by_words(others), by_script])
    return rows.select("row").join(decided, on="row", how="left", maintain_order="left").get_column("language")


def _by_script(rows: pl.DataFrame) -> pl.DataFrame:
    """Decide by script. Reads: row, text. Gives: row, language, for the rows whose words have nothing more to say."""
    text = pl.col("text")
    dense = rows.filter(text.str.len_bytes() > text.str.len_chars() * 1.1)  # a few accents are no other script
    counts = {language: text.str.count_matches(pattern).cast(pl.Float64) for language, pattern in SCRIPTS.items()}
    han, kana = pl.col("zh"), pl.col("ja")
    weights = {language: pl.col(language) for language in SCRIPTS if language not in ("ja", "zh")}
    weights["cjk"] = han * LETTERS_PER_IDEOGRAPH + kana
    letters = pl.col("letters") + han * (LETTERS_PER_IDEOGRAPH - 1)
    japanese = kana >= KANA_SHARE * (kana + han)
    chinese = (kana == 0) & text.str.contains(_CHINESE)
    asian = pl.when(japanese).then(pl.lit("ja")).when(chinese).then(pl.lit("zh"))
    decided = [
        pl.when((weight >= SCRIPT_SHARE * letters) & (weight >= LEAST_LETTERS)).then(
            asian if language == "cjk" else pl.lit(language)
        )
        for language, weight in weights.items()
    ]
    yiddish = (pl.col("he") > 0) & text.str.contains(_YIDDISH)
    counts["latin"] = text.str.count_matches(r"\p{Latin}").cast(pl.Float64)
    counted = dense.with_columns(letters=text.str.count_matches(r"[\p{L}\p{M}]").cast(pl.Float64), **counts)
    mixed = pl.col("latin").is_between(MIXED_SHARE * letters, (1 - MIXED_SHARE) * letters)
    return counted.filter(mixed | (pl.max_horizontal(weights.values()) > MIXED_SHARE * letters)).select(
        "row", language=pl.when(~yiddish).then(pl.coalesce(decided))
    )


def _by_words(rows: pl.DataFrame) -> pl.DataFrame:
    """Decide by words and letters. Reads: row, text. Gives: row, language, for the rows that are decided."""
    known = lexicon()
    divided = pl.col("text").str.replace_all(r"[\n\t'’]", " ").str.split(" ")
    words = (
        rows.select("row", word=divided)
        .explode("word", empty_as_null=False, keep_nulls=False)
        .with_columns(pl.col("word").str.strip_chars(_PUNCTUATION))
        .filter(pl.col("word") != "")
    )
    letters = (
        rows.filter(pl.col("text").str.len_bytes() != pl.col("text").str.len_chars())
        .select("row", letter=pl.col("text").str.extract_all(r"[^\x00-\x7f]"))
        .explode("letter", empty_as_null=False, keep_nulls=False)
        .unique()
        .join(known.letters, on="letter")
        .select("row", "sign", said=pl.lit(0, pl.UInt32))
    )
    found = words.join(known.words, on="word").group_by("row", "sign").agg(said=pl.len().cast(pl.UInt32))
    tells = pl.concat([found, letters]).join(known.tells, on="sign")
    size = (int(rows["row"].max() or 0) + 1 if rows.height else 0, len(known.languages))  # pyright: ignore[reportArgumentType] # an int

    def sums(weights: pl.Expr) -> NDArray[np.float64]:
        place = tells["row"].to_numpy().astype(np.int64) * size[1] + tells["language"].to_numpy()
        values = tells.select(weights.cast(pl.Float64)).to_series().to_numpy()
        return np.bincount(place, values, minlength=size[0] * size[1]).reshape(size).astype(np.float64)

    scores = sums(pl.col("weight"))
    best = scores.argmax(axis=1)
    at = np.arange(len(best)), best
    top = scores[at]
    scores[at] = 0.0
    judged = pl.DataFrame(
        {
            "row": np.arange(size[0], dtype=np.uint32),
            "language": pl.Series(known.languages).gather(best),
            "score": top / WHOLE,
            "next": scores.max(axis=1) / WHOLE,
            "different": sums(pl.col("said") > 0)[at],
            "said": sums(pl.col("said"))[at],
        }
    )
    sizes = words.group_by("row").agg(words=pl.len())
    symbols = rows.select("row", symbols=pl.col("text").str.count_matches(_SYMBOLS))
    certain = (
        (pl.col("different") >= LEAST_WORDS)
        & (pl.col("score") >= LEAST_SCORE)
        & (pl.col("said") >= LEAST_SHARE * pl.col("words"))
        & (pl.col("score") >= MARGIN * pl.col("next"))
        & (pl.col("symbols") < MOST_SYMBOLS * pl.col("words"))
        & ~pl.col("language").is_in(UNDECIDED)
    )
    judged = judged.join(sizes, on="row").join(symbols, on="row")
    return judged.filter(certain).select("row", "language")
