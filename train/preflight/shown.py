"""A few records as the model reads them: every token's text, with the targets told apart.

Texts are as they are, but for what a terminal would act on: control characters and marks that turn the direction of
text are spelt out (\\x1b, \\u202e), so that what is seen is what is trained on.
"""

import unicodedata
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from train.preflight.masks import turns
from train.text.tokens import Example, Tokens

SHOWN_TOKENS = 240
"""Tokens of a record that are shown; of a longer one the first and the last half of that."""

SHOWN_RECORDS = 6
"""Records that are shown, at most."""

LOOKED_AT = 1000
"""Records among which one with several turns is looked for."""

Kind = Literal["read", "target", "special", "target special", "left out"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens in a row that are of one kind. `left out` says how many are not shown."""

    kind: Kind
    text: str

    @property
    def is_target(self) -> bool:
        """Whether these are what the model learns to write."""
        return self.kind.startswith("target")


@dataclass(frozen=True, slots=True)
class Shown:
    """One record as a person sees it."""

    id: str
    source: str
    why: str
    tokens: int
    targets: int
    pieces: tuple[Piece, ...]

    def marked(self) -> str:
        """Give the text with ⟦ and ⟧ around the targets, for where there are no colours."""
        text, inside = "", False
        for piece in self.pieces:
            if piece.kind != "left out" and piece.is_target != inside:
                text += "⟧" if inside else "⟦"
                inside = piece.is_target
            text += piece.text
        return (text + ("⟧" if inside else "")).rstrip()

    def title(self) -> str:
        """Say which record this is."""
        return f"{self.why}: {self.id} of {self.source}, {self.tokens:,} tokens, {self.targets:,} of them targets"


def show(tokens: Tokens, tokenizer: PreTrainedTokenizerBase, *, most: int = SHOWN_RECORDS) -> tuple[Shown, ...]:
    """Show the first record, the longest, one of several turns, and the first of each source, each once."""
    if not len(tokens):
        return ()
    chosen: dict[int, str] = {0: "the first record", int(tokens.lengths.argmax()): "the longest record"}
    count = turns(tokens, np.arange(min(len(tokens), LOOKED_AT)))
    if count.max() > 1:
        chosen.setdefault(int(count.argmax()), f"a record of {count.max()} assistant turns")
    for source, name in enumerate(tokens.sources):
        of = np.flatnonzero(tokens.source_of == source)
        if len(of):
            chosen.setdefault(int(of[0]), f"the first of {name}")
    return tuple(_shown(tokens[i], why, tokenizer) for i, why in list(chosen.items())[:most])


def safe(text: str) -> str:
    """Spell out what a terminal would act on; line ends and tabs stay, and so do letters of any script."""
    return "".join(_spelt(letter) for letter in text)


def _spelt(letter: str) -> str:
    if letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"):
        return letter
    if letter == "\u200d":  # joins emoji into one, and letters of some scripts
        return letter
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _shown(example: Example, why: str, tokenizer: PreTrainedTokenizerBase) -> Shown:
    total = len(example)
    half = SHOWN_TOKENS // 2
    if total <= SHOWN_TOKENS:
        pieces = _pieces(example, 0, total, tokenizer)
    else:
        out = total - 2 * half
        targets = int(example.supervised[half : total - half].sum())
        gap = Piece("left out", f" … {out:,} tokens, {targets:,} of them targets … ")
        pieces = [
            *_pieces(example, 0, half, tokenizer),
            gap,
            *_pieces(example, total - half, total, tokenizer),
        ]
    return Shown(example.id, example.source, why, total, example.targets, tuple(pieces))


def _pieces(example: Example, start: int, end: int, tokenizer: PreTrainedTokenizerBase) -> list[Piece]:
    """Cut tokens [start, end) where their kind changes; what is of one kind is decoded together, whole letters."""
    special = np.isin(example.input_ids[start:end], sorted(_special(tokenizer)))
    kind = example.supervised[start:end].astype(np.int8) * 2 + special
    edges = [0, *(np.flatnonzero(np.diff(kind)) + 1).tolist(), len(kind)]
    names: tuple[Kind, ...] = ("read", "special", "target", "target special")
    found: list[Piece] = []
    for a, b in pairwise(edges):
        ids = example.input_ids[start + a : start + b].tolist()
        text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        found.append(Piece(names[int(kind[a])], safe(str(text))))
    return found


def _special(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | {int(i) for i in tokenizer.all_special_ids}
