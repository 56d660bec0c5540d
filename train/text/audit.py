"""The supervision audit: what a trainer would learn from the rows of a version, before anybody trains.

Every record is rendered, tokenised and masked as a run would do it (`train.text.template`), without a bound on its
length, so that what a bound would cost can be told. Counted are, by source and by split: records that would be refused
and why, tokens and how many of them are targets, records above `max_tokens`, a second BOS, and the lengths.

A run leaves a record above `max_tokens` out. Other trainers cut it: then its last answer has no stop token (`cut`), or
nothing is left to learn (`masked`).
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from schemas.errors import ModelError
from schemas.record import Record
from schemas.train_config import TINY
from train.model.load import LOAD_ERRORS
from train.model.tiny import tiny_tokenizer
from train.text.template import Refusal, Template, encode
from train.text.tokens import Example

CHUNK = 2_048
"""Records that are tokenised at a time."""
UNBOUNDED = 1 << 31
"""Tokens; no record is longer."""
MOST_NAMED = 10_000
"""Refused records that are named; beyond, they are counted alone, so that memory stays bounded."""
BUCKETS = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
"""Upper ends of the bars of the histogram, in tokens; a last bar holds all that is longer."""

MEANINGS = {
    "no_targets": "Nothing to learn: no assistant turn, or one without text; every token would be masked.",
    "special_token": "A text spells out a special token of this tokenizer, which would end a turn or forge one.",
    "template_error": "The chat template fails on these roles or this order of turns.",
    "dropped": "The chat template leaves out a turn, such as the system prompt.",
    "rewritten": "The chat template or the tokenizer changes the text of a turn.",
    "no_stop": "The chat template does not end an assistant turn with a special token.",
    "unproven": "The tokens of the answer, decoded, are not the answer.",
    "overlong": "More tokens than a packed row holds.",
}
"""Why a record is refused, in one sentence each."""


@dataclass
class Tally:
    """What was counted of one source, or of one split. Tokens and targets are those of the records that are not
    refused; the lengths too, those above `max_tokens` included."""

    rows: int = 0
    refused: Counter[str] = field(default_factory=Counter[str])
    tokens: int = 0
    targets: int = 0
    cut: int = 0
    masked: int = 0
    double_bos: int = 0
    trimmed: int = 0
    lengths: "array[int]" = field(default_factory=lambda: array("i"))

    @property
    def usable(self) -> int:
        """How many records a run would train on."""
        return self.rows - self.refused.total()

    @property
    def trainable(self) -> float | None:
        """The share of the tokens that are targets; None without tokens."""
        return self.targets / self.tokens if self.tokens else None

    def percentile(self, share: float) -> int | None:
        """Give the length, in tokens, that so large a share of the records does not exceed."""
        if not self.lengths:
            return None
        return int(np.percentile(np.frombuffer(self.lengths, np.intc), 100 * share, method="inverted_cdf"))

    def histogram(self) -> list[tuple[str, int]]:
        """Count the records by length: (a bar's upper end in tokens, records)."""
        counts = np.bincount(
            np.searchsorted(BUCKETS, np.frombuffer(self.lengths, np.intc)), minlength=len(BUCKETS) + 1
        ).tolist()
        return list(zip([*(f"{end}" for end in BUCKETS), f"over {BUCKETS[-1]}"], counts, strict=True))

    def to_json(self) -> dict[str, Any]:
        """Give the numbers as plain values."""
        plain = {name: getattr(self, name) for name in ("rows", "usable", "tokens", "targets", "trainable")}
        told = {"refused": dict(sorted(self.refused.items())), "cut_before_stop": self.cut}
        counted = {"fully_masked": self.masked, "double_bos": self.double_bos, "trimmed": self.trimmed}
        shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
        lengths = {name: self.percentile(share) for name, share in shares.items()}
        return {**plain, **told, **counted, "lengths": {**lengths, "histogram": dict(self.histogram())}}


@dataclass
class Audit:
    """What a trainer would learn. `named`: the refused records, at most MOST_NAMED, with split, reason and detail."""

    tokenizer: str
    max_tokens: int
    notes: tuple[str, ...]
    total: Tally = field(default_factory=Tally)
    by_source: dict[str, Tally] = field(default_factory=dict[str, Tally])
    by_split: dict[str, Tally] = field(default_factory=dict[str, Tally])
    named: list[tuple[str, Refusal]] = field(default_factory=list[tuple[str, Refusal]])

    def to_json(self) -> dict[str, Any]:
        """Give all of it as plain values."""
        return {
            "tokenizer": self.tokenizer,
            "max_tokens": self.max_tokens,
            "notes": list(self.notes),
            **self.total.to_json(),
            "by_source": {name: tally.to_json() for name, tally in sorted(self.by_source.items())},
            "by_split": {name: tally.to_json() for name, tally in self.by_split.items()},
            "refused_rows": [{"split": split, **asdict(refusal)} for split, refusal in self.named],
        }


def audit(
    records: Iterable[tuple[str, Record]],
    template: Template,
    *,
    max_tokens: int,
    progress: Callable[[int], None] = lambda _: None,
) -> Audit:
    """Count what would be trained of records, each given with the name of its split; they are read chunk by chunk."""
    found = Audit(template.name, max_tokens, tuple(template.notes))
    stream = iter(records)
    while chunk := list(islice(stream, CHUNK)):
        for split, some in _by_split(chunk):
            _count(found, split, some, template)
        progress(len(chunk))
    return found


def load_tokenizer(name: str, records: Callable[[], Iterator[Record]]) -> PreTrainedTokenizerBase:
    """Load a tokenizer: a folder, a hub id, or `tiny`, which is made from the records as a run makes it.

    Raises ModelError for what cannot be loaded.
    """
    if name == TINY:
        return tiny_tokenizer(list(records()))
    path = Path(name).expanduser()
    if not path.is_dir() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise ModelError(f"--tokenizer {name}", "no such folder", "a tokenizer's folder, a hub id, or tiny")
    try:
        return AutoTokenizer.from_pretrained(str(path.resolve()) if path.is_dir() else name, trust_remote_code=False)
    except LOAD_ERRORS as error:
        said = str(error).strip().partition("\n")[0][:300]
        raise ModelError(
            f"--tokenizer {name}",
            f"cannot be loaded ({type(error).__name__}: {said})",
            "a folder with tokenizer.json, a hub id, or tiny",
            "check the name and the network, or download it and give the folder",
        ) from error


def _by_split(chunk: Sequence[tuple[str, Record]]) -> Iterator[tuple[str, list[Record]]]:
    for split in dict.fromkeys(split for split, _ in chunk):
        yield split, [record for of, record in chunk if of == split]


def _count(found: Audit, split: str, records: Sequence[Record], template: Template) -> None:
    encoded = encode(records, template, max_tokens=UNBOUNDED, strict=False)
    tallies_of: dict[str, tuple[Tally, ...]] = {}
    for record in records:
        if record.source not in tallies_of:
            source = found.by_source.setdefault(record.source, Tally())
            tallies_of[record.source] = (found.total, source, found.by_split.setdefault(split, Tally()))
        for tally in tallies_of[record.source]:
            tally.rows += 1
    for example in encoded.examples:
        refusal = _overlong(example, found.max_tokens)
        for tally in tallies_of[example.source]:
            _measure(tally, example, template, found.max_tokens, refused=refusal is not None)
        _name(found, split, refusal)
    for refusal in encoded.refusals:
        for tally in tallies_of[refusal.source]:
            tally.refused[refusal.reason] += 1
            tally.masked += refusal.reason == "no_targets"
        _name(found, split, refusal)
    found.total.trimmed += encoded.trimmed
    found.by_split[split].trimmed += encoded.trimmed


def _overlong(example: Example, max_tokens: int) -> Refusal | None:
    if len(example) <= max_tokens:
        return None
    detail = f"{len(example)} tokens, the context holds {max_tokens}"
    return Refusal(example.id, example.source, "overlong", detail, len(example))


def _measure(tally: Tally, example: Example, template: Template, max_tokens: int, *, refused: bool) -> None:
    tally.lengths.append(len(example))
    tally.double_bos += _begins_twice(example, template)
    if not refused:
        tally.tokens += len(example)
        tally.targets += example.targets
        return
    tally.refused["overlong"] += 1
    tally.cut += bool(example.supervised[max_tokens:].any())
    tally.masked += not example.supervised[1:max_tokens].any()


def _begins_twice(example: Example, template: Template) -> bool:
    bos = template.tokenizer.bos_token_id
    return bos is not None and example.input_ids[:2].tolist() == [bos, bos]


def _name(found: Audit, split: str, refusal: Refusal | None) -> None:
    if refusal and len(found.named) < MOST_NAMED:
        found.named.append((split, refusal))
