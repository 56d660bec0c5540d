"""The loss mask of rendered records, proven: which tokens are an assistant turn and the stop token after it.

    <|im_start|>user\\n  Who?  <|im_end|>\\n<|im_start|>assistant\\n  Ada.  <|im_end|>  \\n
                                                                   └─ supervised ─┘

Tokens are marked by position, never by id (PAD may be EOS). The proof decodes the marked tokens of every turn and
compares them with its text and stop token; what fails is refused by name.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from train.text.chat import Template
from train.text.refusal import Refusal
from train.text.rendering import Rendered, Turn, names
from train.text.words import Tokenised, Words


@dataclass(frozen=True, slots=True, eq=False)
class Masked:
    """Records as tokens, end to end, each sound or refused; the tokens of refused ones are left out."""

    refusals: list[Refusal | None]  # one per record
    lengths: npt.NDArray[np.int64]  # (R,) tokens of each record, refused or not
    input_ids: npt.NDArray[np.int32]  # (N,) of the sound ones
    supervised: npt.NDArray[np.bool_]  # (N,)
    targets: npt.NDArray[np.int32]  # (R,) how many tokens are targets; 0 for refused ones


@dataclass(frozen=True, slots=True)
class _Span:
    """The tokens [first, stop] of one turn, and the text that they must read. `stop` is None where there is none."""

    record: int
    turn: Turn
    first: int
    stop: int | None
    said: str
    clean: bool
    """Whether only space stands before the turn in its first token."""


def masked(rendered: Sequence[Rendered], template: Template, words: Words) -> Masked:
    """Tokenise records, mark their targets, and prove each turn."""
    tokens = words([r.text for r in rendered])
    spans = _spans(rendered, tokens, template)
    told = _decoded(spans, tokens, template)
    supervised = np.zeros(len(tokens.ids), np.bool_)
    refusals: list[Refusal | None] = [None] * len(rendered)
    lengths = np.diff(tokens.bounds)
    for span, read in zip(spans, told, strict=True):
        r = span.record
        proven = span.stop is not None and span.clean and _same(read, span.said)
        if proven and span.stop is not None:
            supervised[span.first : span.stop + 1] = True
        elif span.turn.message.content.strip() and refusals[r] is None:
            refusals[r] = _unproven(rendered[r], span, read, int(lengths[r]), template)
        # Else nothing proves which tokens are the call of a silent turn: they are read, and no targets.
    targets = _targets(supervised, tokens.bounds)
    for r in np.flatnonzero(targets == 0).tolist():
        record = rendered[r].record
        detail = "only tool calls that cannot be proven"
        refusals[r] = refusals[r] or Refusal(record.id, record.source, "no_targets", detail, int(lengths[r]))
    sound = np.fromiter((refusal is None for refusal in refusals), np.bool_, len(refusals))
    kept = np.repeat(sound, lengths)
    return Masked(refusals, lengths, tokens.ids[kept], supervised[kept], np.where(sound, targets, 0).astype(np.int32))


def _decoded(spans: Sequence[_Span], tokens: Tokenised, template: Template) -> list[str]:
    """Decode the tokens of each span. Where each of them is known to read as the text at its place, that text is it."""
    inexact = np.concatenate([np.zeros(1, np.int64), np.cumsum(~tokens.exact)])
    exact = [s.clean and s.stop is not None and inexact[s.first] == inexact[s.stop + 1] for s in spans]
    asked = [
        tokens.ids[s.first : s.stop + 1].tolist() if s.stop is not None and not known else []
        for s, known in zip(spans, exact, strict=True)
    ]
    told = template.backend.decode_batch(asked, skip_special_tokens=False) if any(asked) else [""] * len(asked)
    return [s.said if known else read for s, known, read in zip(spans, exact, told, strict=True)]


def _targets(supervised: npt.NDArray[np.bool_], bounds: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Count the targets of each record; its first token is nobody's."""
    sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(supervised)])
    filled = np.diff(bounds) > 0
    first = np.zeros(len(filled), np.int64)
    first[filled] = supervised[bounds[:-1][filled]]
    return sums[bounds[1:]] - sums[bounds[:-1]] - first


def _spans(rendered: Sequence[Rendered], tokens: Tokenised, template: Template) -> list[_Span]:
    """Find the tokens of every assistant turn, by where they stand in the text."""
    asked = [(r, turn) for r, one in enumerate(rendered) for turn in one.turns if turn.message.role == "assistant"]
    base = tokens.bases[np.fromiter((r for r, _ in asked), np.int64, len(asked))]
    starts = base + np.fromiter((turn.start for _, turn in asked), np.int64, len(asked))
    ends = base + np.fromiter((turn.end for _, turn in asked), np.int64, len(asked))
    first = np.searchsorted(tokens.ends, starts, side="right").tolist()
    stops = np.flatnonzero(np.isin(tokens.ids, sorted(template.stop_ids)))
    next_stop = np.searchsorted(stops, np.searchsorted(tokens.starts, ends, side="left")).tolist()
    spans: list[_Span] = []
    for (r, turn), at, begin, k in zip(asked, base.tolist(), first, next_stop, strict=True):
        text = rendered[r].text
        find = _stop_after if turn.message.content.strip() else _call_stop
        stop = find(text, turn, tokens, stops[k:], at)
        end = 0 if stop is None else int(tokens.ends[stop]) - at
        # A first token that also holds the space before the turn is fine, one that holds other text is not.
        clean = stop is not None and begin <= stop and not text[int(tokens.starts[begin]) - at : turn.start].strip()
        spans.append(_Span(r, turn, begin, stop, text[turn.start : end], clean))
    return spans


def _stop_after(text: str, turn: Turn, tokens: Tokenised, stops: npt.NDArray[np.int64], base: int) -> int | None:
    """Find the special token that ends a turn. Only space, or the turn's tool calls, may stand between."""
    for stop in stops[:1].tolist():
        start = int(tokens.starts[stop]) - base
        if start < turn.next_start and (turn.message.tool_calls or not text[turn.end : start].strip()):
            return stop
    return None


def _call_stop(text: str, turn: Turn, tokens: Tokenised, stops: npt.NDArray[np.int64], base: int) -> int | None:
    """Find the special token that ends a turn without text: all its calls before it, only space after."""
    for stop in stops:
        start, end = int(tokens.starts[stop]) - base, int(tokens.ends[stop]) - base
        if start >= turn.next_start:
            return None
        if not text[end : turn.next_start].strip():
            said = text[turn.end : start]
            return int(stop) if all(name in said for name in names(turn.message.tool_calls)) else None
    return None


def _same(told: str, said: str) -> bool:
    """Compare as tokenizers keep text: some drop the space before a first word, some compose letters (NFC)."""
    if told == said:
        return True
    return unicodedata.normalize("NFC", told).lstrip() == unicodedata.normalize("NFC", said).lstrip()


def _unproven(one: Rendered, span: _Span, read: str, length: int, template: Template) -> Refusal:
    record, turn = one.record, span.turn
    if span.stop is None:
        detail = f"no stop token after the assistant turn that ends {one.text[max(0, turn.end - 20) : turn.end]!r}"
        return Refusal(record.id, record.source, "no_stop", detail, length)
    content = turn.message.content
    alone = template.backend.decode(template.backend.encode(content, add_special_tokens=False).ids)
    # The record's fault, wherever the answer stands: sentencepiece reads the letter ▁ as a blank.
    if not _same(alone, content):
        at = next((i for i, (a, b) in enumerate(zip(alone, content, strict=False)) if a != b), 0)
        detail = f"the tokenizer changes an answer: {content[at : at + 40]!r} reads {alone[at : at + 40]!r}"
        return Refusal(record.id, record.source, "rewritten", detail, length)
    detail = f"supervised tokens read {read[:80]!r} where the turn and its stop token are {span.said[:80]!r}"
    return Refusal(record.id, record.source, "unproven", detail, length)
