"""The past of a row: in which versions it came, was edited, rejected, restored, or moved to another split.

The versions are those that led to the one at hand, parent by parent. A version whose objects say about the row's shard
what the version before says is not read, so a long past costs no more than what happened in it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from curate.graph import ancestry
from curate.naming import Named
from schemas.dataset import Dataset, Shard
from schemas.errors import SftError

_READ = ("kept", "reject_reason", "split", "content_hash", "weight")


@dataclass(frozen=True)
class Step:
    """A version in which something became of a row: `what`, in words, and how the row stood then.

    `state`: kept, reject_reason, split, content_hash, weight; None where the version does not have the row.
    """

    seq: int
    created: str
    message: str
    what: tuple[str, ...]
    state: Mapping[str, Any] | None


def past_of(dataset: Dataset, row: Named) -> tuple[Step, ...]:
    """Tell a row's past up to a version, from the first on. A version that cannot be read is told as that."""
    steps: list[Step] = []
    last: Mapping[str, Any] | None = None
    known: dict[tuple[str, ...], Mapping[str, Any] | None] = {}
    for m in reversed(ancestry(dataset.root, dataset.manifest)):
        try:
            state = _state(Dataset(m, dataset.root), row, known)
        except (SftError, OSError, pl.exceptions.PolarsError) as error:
            steps.append(Step(m.seq, m.created, m.message, (f"cannot be read: {error}",), None))
            continue
        what = tuple(_became(last, state))
        if last is None and state and not steps and m.parents:
            what = ("as it stood; no version before it can be read", *what[1:])
        if what:
            steps.append(Step(m.seq, m.created, m.message, what, state))
        last = state
    return tuple(steps)


def _state(
    dataset: Dataset, row: Named, known: dict[tuple[str, ...], Mapping[str, Any] | None]
) -> Mapping[str, Any] | None:
    """Give how a row stands in a version; what was found for the same objects is taken from `known`."""
    own = [f for f in dataset.manifest.files if f.source == row.source and f.role in ("text", "overlay", "annotation")]
    key = tuple(sorted(f"{f.shard} {f.stage} {f.role} {f.sha256}" for f in own))
    if key not in known:
        known[key] = None
        for shard in (s for s in dataset.shards if s.source == row.source):
            if (index := _index(shard, row)) is not None:
                known[key] = shard.view(_READ).slice(index, 1).collect().row(0, named=True)
                break
    return known[key]


def _index(shard: Shard, row: Named) -> int | None:
    """Give the row's place in a shard; at once where the shard is the very one in which the row stands now."""
    if shard.text == row.shard.text:
        return row.index
    found = shard.view(["id"]).with_row_index("index").filter(id=row.id).collect()
    return int(found["index"][0]) if found.height else None


def _became(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Iterator[str]:
    """Say what became of a row from one version to the next; nothing where nothing did."""
    if after is None:
        if before is not None:
            yield "taken out: the version does not have it"
        return
    reason = after["reject_reason"]
    fate = f"rejected as {reason}" if reason else "kept"
    if before is None:
        yield f"came, {fate}"
    else:
        if before["content_hash"] != after["content_hash"]:
            yield "edited"
        if before["kept"] != after["kept"]:
            yield fate if reason else f"restored: it had been rejected as {before['reject_reason']}"
        elif before["reject_reason"] != reason:
            yield f"{fate}, no longer as {before['reject_reason']}"
    was = before["split"] if before else None
    if after["split"] != was:
        now = after["split"] or "none"
        yield f"moved from {was} to {now}" if was else f"dealt to {now}"
    if (before["weight"] if before else None) != after["weight"]:
        yield f"weight {1 if after['weight'] is None else round(after['weight'], 3):g}"
