"""What must hold of the tokens of every record: a stop token ends each run of targets, and no text has two BOS.

Both are read off the columns a piece at a time, so that a million records take seconds and no more memory than one
piece.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from schemas.errors import CheckFailedError
from train.text.template import Template
from train.text.tokens import Tokens

PIECE_TOKENS = 1 << 22
"""Tokens that are looked at together: some 100 MB of intermediate columns."""


def pieces(tokens: Tokens) -> Iterator[tuple[int, int]]:
    """Cut a split into runs of whole examples, [first, last), of about PIECE_TOKENS tokens."""
    first = 0
    while first < len(tokens):
        reach = int(tokens.bounds[first]) + PIECE_TOKENS
        last = max(first + 1, int(np.searchsorted(tokens.bounds, reach, side="right")) - 1)
        yield first, min(last, len(tokens))
        first = last


def check_stops(tokens: Tokens, template: Template) -> None:
    """Check that every run of targets ends in a stop token: a model that never sees one does not learn to stop.

    Raises CheckFailedError, naming the first record and how many there are.
    """
    stops = np.asarray(sorted(template.stop_ids))
    wrong: list[int] = []
    for first, last in pieces(tokens):
        start, end = int(tokens.bounds[first]), int(tokens.bounds[last])
        ids, supervised = tokens.input_ids[start:end], tokens.supervised[start:end]
        bounds = tokens.bounds[first : last + 1] - start
        goes_on = np.append(supervised[1:], np.False_)
        goes_on[bounds[1:][bounds[1:] > 0] - 1] = False  # the next token is another record's
        ends = np.flatnonzero(supervised & ~goes_on)
        of = np.searchsorted(bounds, ends, side="right") - 1
        has_end = np.bincount(of, minlength=last - first) > 0
        no_stop = np.bincount(of[~np.isin(ids[ends], stops)], minlength=last - first) > 0
        wrong.extend((np.flatnonzero(no_stop | ~has_end) + first).tolist())
    if wrong:
        raise CheckFailedError(
            _named(tokens, wrong[0]),
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
    starts = tokens.bounds[:-1][tokens.lengths > 1]
    twice = (tokens.input_ids[starts] == bos) & (tokens.input_ids[starts + 1] == bos)
    if twice.any():
        at = int(np.flatnonzero(tokens.lengths > 1)[np.flatnonzero(twice)[0]])
        raise CheckFailedError(
            _named(tokens, at),
            f"the text begins with two {template.tokenizer.bos_token!r} ({int(twice.sum()):,} records)",
            "one",
            "remove it from the chat template",
        )
    if template.adds_bos and tokens.input_ids[0] != bos:
        return f"the tokenizer puts {template.tokenizer.bos_token!r} before plain text, the chat template does not"
    return None


def turns(tokens: Tokens, at: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Count the runs of targets, which are assistant turns, of the examples `at`: (len(at),)."""
    found = [np.diff(tokens[int(i)].supervised.astype(np.int8), prepend=0) == 1 for i in at]
    return np.asarray([int(begins.sum()) for begins in found], np.int64)


def _named(tokens: Tokens, at: int) -> str:
    return f"record {tokens.ids[at].as_py()} of {tokens.sources[tokens.source_of[at]]}"
