"""What a run forgets: the loss of a general set before and after.

The set is drawn by a hash of seed and id, so that it is the same in every part of a resumed run. general.json has what
was found; without its second half the run has not ended. The loss of each record before stays there, so that the end,
of a resumed run too, can say how sure the change is.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from heapq import nsmallest
from typing import Any

import numpy as np
import polars as pl

from schemas.dataset import find, ids_of
from schemas.errors import CheckFailedError
from schemas.record import Record
from train.evaluation.losses import Losses, LossSummary, evaluation
from train.run.folder import RunFolder
from train.text.template import Template, encode
from train.text.tokens import Tokens
from train.verdict.finding import mean_of

MOST = 2000
"""Records of the set at most: their mean loss is then known to about a hundredth of a nat, in less time than an
evaluation of a large validation split takes."""

FILE = "general.json"


@dataclass(frozen=True, slots=True, eq=False)
class General:
    """The set, and the reference that it was named by."""

    reference: str
    examples: Tokens

    @property
    def digest(self) -> str:
        """Identify the set: 32 hex digits of its ids and tokens."""
        made = blake2b(digest_size=16)
        for example in self.examples:
            made.update(example.id.encode() + b"\0" + example.input_ids.tobytes())
        return made.hexdigest()


@dataclass(frozen=True, slots=True)
class Forgetting:
    """The loss of the general set before and after; `after` is None before the run has ended.

    `se`: standard error of the change, with records as what was drawn; None where losses are not finite.
    """

    reference: str
    before: LossSummary
    after: LossSummary | None = None
    se: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Give what general.json holds."""
        return {
            "reference": self.reference,
            "records": self.before.records,
            "before": _plain(self.before),
            "after": _plain(self.after) if self.after else None,
            "se": self.se,
        }


def draw_general(
    records: Sequence[Record], reference: str, template: Template, *, max_tokens: int, seed: int
) -> General:
    """Draw the set and encode it. Raises CheckFailedError where no record of it can be read."""
    ids = nsmallest(MOST, ids_of(records), key=lambda name: _draw(seed, name))
    drawn = find(records, ids)
    found = encode([drawn[name] for name in ids], template, max_tokens=max_tokens)
    if not found.examples:
        raise CheckFailedError(
            f"--general {reference}",
            f"none of its {len(records)} rows can be scored",
            f"rows of at most {max_tokens} tokens with an answer",
            "name another dataset",
        )
    return General(reference, Tokens.of(found.examples))


def measure(folder: RunFolder, general: General, score: Callable[[Tokens], Losses], *, first: bool) -> Forgetting:
    """Measure the set and write general.json: before the run, or after it. What was measured before is kept."""
    held = folder.read_json(FILE) if not first or (folder.path / FILE).is_file() else None
    before = LossSummary(*(held["before"][name] for name in ("records", "targets", "loss"))) if held else None
    if first and before:
        return Forgetting(general.reference, before)
    losses = score(general.examples)
    found = evaluation(0, losses).overall
    if before is None or held is None:
        told, sums = Forgetting(general.reference, found), losses.nll_sums.tolist()
    else:
        sums = held["nll_before"]
        told = Forgetting(general.reference, before, found, _error_of_change(losses, sums))
    folder.write_json(FILE, {**told.to_json(), "nll_before": sums})
    return told


def _error_of_change(after: Losses, before: Sequence[float]) -> float | None:
    with np.errstate(invalid="ignore"):  # losses may be infinite
        change = (after.nll_sums - np.asarray(before, np.float64)) / after.targets
        _, se = mean_of(pl.Series(change), pl.Series(after.targets))
    return se if math.isfinite(se) else None


def _plain(found: LossSummary) -> dict[str, Any]:
    return {
        "loss": found.loss, "perplexity": found.perplexity, "records": found.records, "targets": found.targets
    }  # fmt: skip


def _draw(seed: int, name: str) -> bytes:
    return blake2b(f"{seed}\0general\0{name}".encode(), digest_size=8).digest()
