"""Tokens of a row: counted by a tokenizer where one is named, else estimated from its characters.

What is counted is the text of the turns and the context; the few tokens that a chat template puts around each turn are
not, as they differ from template to template.
"""

import hashlib
from pathlib import Path
from typing import Any

import polars as pl

from curate.key import answer_text
from schemas.errors import ConfigError, ModelError
from schemas.record import prompt_text

CHARACTERS_PER_TOKEN = 4
"""What English text has in the usual vocabularies of 32k to 128k tokens, roundly."""

BATCH_ROWS = 4_096
"""Rows that go to a tokenizer at a time."""


class Counter:
    """Counts the tokens of rows. `digest` names the tokenizer exactly; null for the estimate."""

    def __init__(self, name: str | None = None) -> None:
        self._tokenizer: Any = open_tokenizer(name) if name else None
        self.digest = hashlib.sha256(self._tokenizer.to_str().encode()).hexdigest() if name else None

    def count(self, rows: pl.DataFrame) -> pl.Series:
        """Give the tokens of each row, at least 1. Reads: messages, context."""
        text = pl.concat_str([prompt_text(), answer_text()], separator="\n", ignore_nulls=True).fill_null("")
        if self._tokenizer is None:
            estimate = (text.str.len_chars() / CHARACTERS_PER_TOKEN).ceil()
            return rows.select(tokens=estimate.clip(1).cast(pl.Int64)).to_series()
        counts: list[int] = []
        texts = rows.select(text).to_series()
        for start in range(0, len(texts), BATCH_ROWS):
            encoded = self._tokenizer.encode_batch(texts.slice(start, BATCH_ROWS).to_list(), add_special_tokens=False)
            counts.extend(max(1, len(one.ids)) for one in encoded)
        return pl.Series("tokens", counts, dtype=pl.Int64)


def open_tokenizer(name: str) -> Any:
    """Open a tokenizer.json, the one of a folder, or that of a hub id.

    Raises ConfigError without the library and for a path that is not there, ModelError for what is no tokenizer.
    """
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415 # an extra, and only where tokens are counted
    except ImportError as error:
        remedy = "pip install 'sft-toolkit[train]', or leave --tokenizer out: tokens are then estimated"
        raise ConfigError("select, tokenizer", "the library tokenizers is not installed", remedy=remedy) from error
    path = Path(name)
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file() and (path.exists() or path.suffix == ".json" or name.startswith((".", "/", "~"))):
        raise ConfigError(f"select, tokenizer {name}", "no such file", "a tokenizer.json, its folder, or a hub id")
    kind: Any = Tokenizer
    try:
        found = kind.from_file(str(file)) if file.is_file() else kind.from_pretrained(name)
    except Exception as error:  # the library raises plain Exception, and whatever the hub's client raises
        raise ModelError(f"select, tokenizer {name}", " ".join(str(error).split())[:200], "a tokenizer.json") from error
    found.no_truncation()
    found.no_padding()
    return found
