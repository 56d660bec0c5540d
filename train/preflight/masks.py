"""What must hold of the tokens of every record: a stop token ends each run of targets, and no text has two BOS.

Both are read off the columns a piece at a time, so that a million records take seconds and no more memory than one
piece.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.errors import CheckFailedError
from train.text.template import Template
from train.text.tokens import Tokens

PIECE_TOKENS = 1 << 22
"""Tokens that are looked at together: some 100 MB of intermediate columns."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Some examples end to end. Lengths: P examples, N tokens."""

    at: npt.NDArray[np.int64]  # (P,) which examples these are
    input_ids: npt.NDArray[np.int32]  # (N,)
    supervised: npt.NDArray[np.bool_]  # (N,)
    bounds: npt.NDArray[np.int64]  # (P + 1,) where each begins, and the end


def pieces(tokens: Tokens) -> Iterator[Piece]:
    """Go through a split in pieces of about PIECE_TOKENS tokens, as they lie in the chunks."""
    for number, chunk in enumerate(tokens.chunks):
        here = np.flatnonzero(tokens.chunk_of == number)
        here = here[np.argsort(tokens.starts[here], kind="stable")]
        bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(tokens.lengths[here])])
        first = 0
        while first < len(here):
            last = max(first + 1, int(np.searchsorted(bounds, bounds[first] + PIECE_TOKENS, side="right")) - 1)
            at = here[first:last]
            within = bounds[first : last + 1] - bounds[first]
            start = int(tokens.starts[at[0]])
            shift = tokens.starts[at] - start - within[:-1]
            if shift.any():  # examples between them were left out
                where = np.arange(within[-1]) + np.repeat(start + shift, np.diff(within))
                yield Piece(at, chunk.input_ids[where], chunk.supervised[where], within)
            else:
                end = start + int(within[-1])
                yield Piece(at, chunk.input_ids[start:end], chunk.supervised[start:end], within)
            first = last


def check_stops(tokens: Tokens, template: Template) -> None:
    """Check that every run of targets ends in a stop token: a model that never sees one does not learn to stop.

    Raises CheckFailedError, naming the first record and how many there are.
    """
    stops = np.asarray(sorted(template.stop_ids))
    wrong: list[int] = []
    for piece in pieces(tokens):
        goes_on = np.append(piece.supervised[1:], np.False_)
        goes_on[piece.bounds[1:][piece.bounds[1:] > 0] - 1] = False  # the next token is another record's
        ends = np.flatnonzero(piece.supervised & ~goes_on)
        of = np.searchsorted(piece.bounds, ends, side="right") - 1
        has_end = np.bincount(of, minlength=len(piece.at)) > 0
        no_stop = np.bincount(of[~np.isin(piece.input_ids[ends], stops)], minlength=len(piece.at)) > 0
        wrong.extend(piece.at[no_stop | ~has_end].tolist())
    if wrong:
        raise CheckFailedError(
            _named(tokens, min(wrong)),
            f"an assistant turn does not end in a stop token ({len(wrong):,} of {len(tokens):,} records)",
            "one each",
        )


def check_bos(tokens: Tokens, template: Template) -> str | None:
    """Check that no text begins with two BOS; give a note where the tokenizer would put one and the template does not.

    Raises CheckFailedError, naming the first record and how many there are.
    """
    bos = template.tokenizer.bos_token_id
    if bos is None or not len(tokens):
        return None
    first = tokens.tokens_at(0)
    twice = np.flatnonzero((first == bos) & (tokens.tokens_at(1) == bos))
    if len(twice):
        raise CheckFailedError(
            _named(tokens, int(twice[0])),
            f"the text begins with two {template.tokenizer.bos_token!r} ({len(twice):,} records)",
            "one",
            "remove it from the chat template",
        )
    if template.adds_bos and first[0] != bos:
        return f"the tokenizer puts {template.tokenizer.bos_token!r} before plain text, the chat template does not"
    return None


def turns(tokens: Tokens, at: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Count the runs of targets, which are assistant turns, of the examples `at`: (len(at),)."""
    found = [np.diff(tokens[int(i)].supervised.astype(np.int8), prepend=0) == 1 for i in at]
    return np.asarray([int(begins.sum()) for begins in found], np.int64)


def _named(tokens: Tokens, at: int) -> str:
    return f"record {tokens.ids[at].as_py()} of {tokens.sources[tokens.source_of[at]]}"
