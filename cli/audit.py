"""`sft curate audit`: what would be trained, told by `train.text.audit` about the rows of a version."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cli.extras import needs_torch, quiet_transformers
from cli.render import next_commands, number, out, print_json, progress, say, table

if TYPE_CHECKING:
    from schemas.dataset import Dataset
    from schemas.record import Record
    from train.text.audit import Audit, Tally

SPLITLESS = "(no split)"
BAR = 40
"""Characters of the longest bar."""
SLICE = 4_096
"""Rows that are turned into records at a time."""


def audit(ref: str, tokenizer: str, max_tokens: int, root: Path, *, rows: int, json: bool) -> None:
    """Audit the kept rows of a version and print what was found; `rows` refused records are named."""
    needs_torch("sft curate audit")
    quiet_transformers()
    from schemas.dataset import open_dataset
    from train.text.audit import audit as audited
    from train.text.audit import load_tokenizer
    from train.text.template import Template

    dataset = open_dataset(ref, root)
    template = Template(load_tokenizer(tokenizer, lambda: _train_records(dataset)), tokenizer)
    with progress(quiet=json) as started:
        done = started("audit", dataset.rows)
        found = audited(records_of(dataset), template, max_tokens=max_tokens, progress=done)
    if json:
        print_json({"name": dataset.manifest.name, "seq": dataset.manifest.seq, **found.to_json()})
        return
    for note in found.notes:
        say(note)
    show(found, dataset, rows)
    next_commands(
        f"sft curate audit {ref} --tokenizer {tokenizer} --rows 20",
        f"sft train --manifest {ref} --model {tokenizer} --max-tokens {max_tokens} --dry-run",
        store=root,
    )


def records_of(dataset: "Dataset") -> Iterator[tuple[str, "Record"]]:
    """Give the kept rows as a trainer reads them, each with its split, some thousand at a time."""
    import polars as pl

    from schemas.record import record_of

    columns = ["id", "source", "messages", "context", "tools", "weight", "kept", "split"]
    for shard in dataset.shards:
        kept = shard.view(columns).filter(pl.col("kept")).collect()
        for part in kept.iter_slices(SLICE):
            for row in part.iter_rows(named=True):
                yield row["split"] or SPLITLESS, record_of(row)


def _train_records(dataset: "Dataset") -> Iterator["Record"]:
    """Give what `tiny` is made of: the train split, or all kept rows where there is none."""
    split = any("split" in shard.annotations for shard in dataset.shards)
    return iter(dataset.records("train")) if split else (record for _, record in records_of(dataset))


def show(found: "Audit", dataset: "Dataset", rows: int) -> None:
    """Print the audit as tables."""
    m = dataset.manifest
    total = found.total
    share = f"{total.trainable:.1%}" if total.trainable is not None else "none"
    out(
        f"{m.name}@{m.seq} by the tokenizer {found.tokenizer}, {number(found.max_tokens)} tokens a row: "
        f"{number(total.usable)} of {number(total.rows)} kept rows can be trained on, "
        f"{share} of the tokens are targets",
        style="bold",
    )
    sources = [*sorted(found.by_source.items()), *([("all", total)] if len(found.by_source) > 1 else [])]
    columns = ["source", "#rows", "#usable", "#tokens", "#trainable", "#too long", "#cut before stop", "#fully masked"]
    table("What would be trained", [*columns, "#two BOS"], [_line(name, tally) for name, tally in sources])
    lengths = ["source", "#p50", "#p90", "#p99", "#max"]
    table("Tokens in a row", lengths, [_lengths(name, tally) for name, tally in sources])
    _histogram(total)
    order = {"train": 0, "val": 1, "test": 2}
    splits = sorted(found.by_split.items(), key=lambda item: order.get(item[0], len(order)))
    table(
        "By split",
        ["split", "#rows", "#usable", "#tokens", "#trainable"],
        [_line(name, tally)[:5] for name, tally in splits],
    )
    _refused(found, rows)
    if total.trimmed:
        out(f"{number(total.trimmed)} rows lose blanks around a turn to the chat template")


def _line(name: str, tally: "Tally") -> list[str]:
    trainable = "" if tally.trainable is None else f"{tally.trainable:.1%}"
    counts = [tally.refused["overlong"], tally.cut, tally.masked, tally.double_bos]
    start = [name, number(tally.rows), number(tally.usable), number(tally.tokens), trainable]
    return [*start, *(number(n) if n else "" for n in counts)]


def _lengths(name: str, tally: "Tally") -> list[str]:
    found = [tally.percentile(share) for share in (0.5, 0.9, 0.99, 1.0)]
    return [name, *("" if n is None else number(n) for n in found)]


def _histogram(tally: "Tally") -> None:
    bars = tally.histogram()
    most = max(n for _, n in bars)
    if not most:
        return
    last = max(i for i, (_, n) in enumerate(bars) if n)
    first = min(i for i, (_, n) in enumerate(bars) if n)
    rows = [(f"≤ {end}" if end.isdigit() else end, number(n), _bar(n, most)) for end, n in bars[first : last + 1]]
    table("Rows by length", ["#tokens", "#rows", ""], rows)


def _bar(count: int, most: int) -> str:
    return "█" * max(round(BAR * count / most), 1 if count else 0)


def _refused(found: "Audit", rows: int) -> None:
    """Print why records are refused, by source, and name the first ones of them."""
    from train.text.audit import MEANINGS

    counts = [
        (reason, source, number(n), MEANINGS.get(reason, ""))
        for reason in sorted(found.total.refused, key=lambda r: -found.total.refused[r])
        for source, tally in sorted(found.by_source.items())
        if (n := tally.refused[reason])
    ]
    if counts:
        table("Rows that no run can use", ["reason", "source", "#rows", "meaning"], counts)
    if rows and found.named:
        named = [(r.id, r.source, split, r.reason, r.detail) for split, r in found.named[:rows]]
        table("The first of them", ["id", "source", "split", "reason", "detail"], named)
