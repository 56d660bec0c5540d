"""Split: train, val and test without a leak, and without a row that ever moves.

Rows that say nearly the same must not stand on both sides. A *group* is what hangs together by a duplicate cluster, a
conflict, or the same prompt. A salted hash of the group's smallest id deals it to a split. The ledger, an object of its
own, holds every row that was ever dealt:

- a row in the ledger keeps its split;
- new rows of a group with rows in the ledger follow them, test before val before train: evaluation keeps its rows;
- where a group has evaluation rows, its training rows in the ledger stay training rows, rejected as `leak:bridge`.

Every row that could be read is dealt, also those that another stage leaves out, so that a restored row has its split.
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.key import key_hash, key_text
from curate.stage import IndexOutput, Note, Output, Progress, ShardOutput, Stage
from schemas.config import SplitConfig
from schemas.dataset import Dataset, Shard
from schemas.record import prompt_text
from schemas.stages import SPLITS

LEDGER_SCHEMA = pl.Schema({"id_hi": pl.UInt64, "id_lo": pl.UInt64, "split": pl.UInt8})
"""The 32 hex digits of an id as two halves, and the position of its split in `schemas.stages.SPLITS`."""

TRAIN, VAL, TEST = range(len(SPLITS))

_ID = ("id_hi", "id_lo")


def read_ledger(dataset: Dataset, config: SplitConfig) -> tuple[pl.DataFrame, Note | None]:
    """Give the ledger of the version at hand; an empty one, and a note, where it was dealt by another configuration."""
    empty = pl.DataFrame(schema=LEDGER_SCHEMA)
    entry = dataset.manifest.stage("split")
    files = [file for file in dataset.manifest.files_of("split") if file.role == "index"]
    if entry is None or not files:
        return empty, None
    if any(entry.config.get(name) != getattr(config, name) for name in ("train", "val", "test", "salt")):
        return empty, Note("the salt or the shares are others than before: all rows are dealt anew")
    return pl.scan_ipc(dataset.path(files[0])).collect(), None


def read_shard(shard: Shard, number: int) -> pl.DataFrame:
    """Read what split needs of one shard: every row that ingest could read.

    Reads: id, source, source_file, source_row, messages, context, cluster_id, conflict_id, kept, verdict_ingest.
    Adds: shard, row, prompt (hash; null for an empty prompt), place, id_hi, id_lo.
    """
    columns = ["id", "source", "source_file", "source_row", "messages", "context", "cluster_id", "conflict_id"]
    frame = (
        shard.view([*columns, "kept", "verdict_ingest"], before_stage="split")
        .with_row_index("row")
        .filter(pl.col("verdict_ingest").is_null())
        .with_columns(pl.lit(number, pl.UInt32).alias("shard"), prompt=key_text(prompt_text()))
        .with_columns(
            place=pl.format("{} ({} {}:{})", "id", "source", "source_file", "source_row"),
            id_hi=pl.col("id").str.head(16).str.to_integer(base=16, dtype=pl.UInt64),
            id_lo=pl.col("id").str.tail(16).str.to_integer(base=16, dtype=pl.UInt64),
        )
        .drop("messages", "context", "source", "source_file", "source_row", "verdict_ingest")
        .collect()
    )
    hashed = pl.DataFrame({"hash": key_hash(frame["prompt"]), "empty": frame["prompt"] == ""})
    return frame.with_columns(hashed.select(pl.when(~pl.col("empty")).then("hash").alias("prompt")))


def components(links: Sequence[pl.Series]) -> NDArray[np.int64]:
    """Give for every row the smallest row number that it hangs together with.

    Two rows are linked where a series holds the same value for both; null links nothing. The smallest label spreads
    through the links and is written back to the row that it came from, so that long chains take few rounds.
    """
    count = len(links[0])
    label = np.arange(count)
    orders: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = []
    for series in links:
        rank = series.rank("dense").cast(pl.Int64).to_frame("rank")
        linked = rank.with_row_index("at").drop_nulls().sort("rank", "at")
        at, ranks = linked["at"].to_numpy().astype(np.int64), linked["rank"].to_numpy()
        starts = np.flatnonzero(np.diff(ranks, prepend=-1))
        orders.append((at, starts, np.diff(starts, append=len(at))))
    while True:
        before = label.copy()
        for at, starts, sizes in orders:
            if len(at):
                least = np.repeat(np.minimum.reduceat(label[at], starts), sizes)
                np.minimum.at(label, label[at], least)
                label[at] = np.minimum(label[at], least)
        label = label[label]
        if (label == before).all():
            return label


def fraction(salt: str, founder: str) -> float:
    """Give the place of a group in [0, 1): 53 bits of blake2b over the salt and the group's smallest id."""
    digest = hashlib.blake2b(f"{salt}\0{founder}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / (1 << 53)


def deal(rows: pl.DataFrame, ledger: pl.DataFrame, config: SplitConfig) -> tuple[pl.DataFrame, list[Note]]:
    """Give every row its split, and find the training rows that new data joins to evaluation rows.

    Reads: id, id_hi, id_lo, prompt, cluster_id, conflict_id, kept, place. Adds: dealt (position in SPLITS), old (the
    same, from the ledger), leak (where the evaluation row of its group stands; null for no leak), group.
    """
    group = components([rows["cluster_id"], rows["conflict_id"], rows["prompt"]])
    rows = rows.with_columns(group=group).join(
        ledger.rename({"split": "old"}), on=_ID, how="left", maintain_order="left"
    )
    evaluates = (pl.col("old") > TRAIN) & pl.col("kept")  # a row that is left out is in no evaluation: nothing leaks
    groups = rows.group_by("group", maintain_order=True).agg(
        founder=pl.col("id").min(),
        # test before val before train; rows that are left out decide only where no kept row does
        old_split=pl.coalesce(pl.col("old").filter("kept").max(), pl.col("old").max()),
        counts=pl.col("kept").any(),
        evaluation=pl.format("{}, a row of {}", "place", _split_name("old"))
        .filter(evaluates)
        .sort_by(pl.col("id").filter(evaluates))
        .first(),
    )
    places = [fraction(config.salt, founder) for founder in groups["founder"]]
    groups = groups.with_columns(place_in_split=pl.Series(places, dtype=pl.Float64)).with_columns(
        group_split=pl.coalesce("old_split", _by_share(config)).cast(pl.UInt8)
    )
    groups, notes = _never_empty(rows, groups, config)
    rows = rows.join(groups.select("group", "group_split", "evaluation"), on="group", maintain_order="left")
    bridged = pl.col("kept") & (pl.col("old") == TRAIN)
    return rows.with_columns(
        dealt=pl.coalesce("old", "group_split"),
        leak=pl.when(bridged).then(pl.format("now joined to {}", "evaluation")),
    ), notes


def _split_name(position: str) -> pl.Expr:
    return pl.col(position).replace_strict(dict(enumerate(SPLITS)), return_dtype=pl.String)


def _by_share(config: SplitConfig) -> pl.Expr:
    """Give the split of a new group by its place in [0, 1). Reads: place_in_split."""
    to_val = config.train + config.val if config.test > 0 else 1.0  # the shares may miss 1 by a rounding error
    place = pl.col("place_in_split")
    return pl.when(place < config.train).then(TRAIN).when(place < to_val).then(VAL).otherwise(TEST)


def _never_empty(rows: pl.DataFrame, groups: pl.DataFrame, config: SplitConfig) -> tuple[pl.DataFrame, list[Note]]:
    """Give a group to each split that would hold no kept row, as far as there are groups: train, then val, then test.

    Only new groups move: the one whose place is nearest to the end of its split, from the largest split that has more
    than one. Reads: group, group_split, old_split, counts, place_in_split. Adds: nothing.
    """
    split = dict(zip(groups["group"], groups["group_split"], strict=True))
    old = rows.filter("kept").select("group", pl.col("old"))
    held = [set[int]() for _ in SPLITS]
    for number, was in old.iter_rows():
        held[split[number] if was is None else was].add(number)
    new = groups.filter(pl.col("counts") & pl.col("old_split").is_null()).sort("place_in_split", "founder")
    movable: list[int] = new["group"].to_list()
    notes: list[Note] = []
    for target, share in enumerate((config.train, config.val, config.test)):
        if held[target] or share == 0 or not rows["kept"].any():
            continue
        fewest = 2 if target == TEST else 1  # val may take the last group of test, nothing takes the last of train
        donors = [
            s
            for s in sorted(range(len(SPLITS)), key=lambda s: (-len(held[s]), s))
            if len(held[s]) >= (2 if s == TRAIN else fewest) and any(split[g] == s for g in movable)
        ]
        if not donors:
            notes.append(Note(f"{SPLITS[target]} is empty: too few groups of rows to fill it"))
            continue
        moved = [g for g in movable if split[g] == donors[0]][-1]
        held[donors[0]].discard(moved)
        held[target].add(moved)
        split[moved] = target
        notes.append(Note(f"the set is small: one group of rows moved from {SPLITS[donors[0]]} to {SPLITS[target]}"))
    dealt = pl.Series("group_split", [split[g] for g in groups["group"]], dtype=pl.UInt8)
    return groups.with_columns(dealt), notes


def run(dataset: Dataset, config: SplitConfig, progress: Progress) -> Iterator[Output]:
    """Deal every row that is not in the ledger yet."""
    ledger, note = read_ledger(dataset, config)
    if note:
        yield note
    if not dataset.shards:
        return
    parts: list[pl.DataFrame] = []
    for number, shard in enumerate(dataset.shards):
        parts.append(read_shard(shard, number))
        progress(shard.rows)
    rows, notes = deal(pl.concat(parts), ledger, config)
    yield from notes
    opinions = rows.select(
        "shard",
        "row",
        verdict=pl.when(pl.col("leak").is_not_null()).then(pl.lit("leak:bridge")),
        detail="leak",
        split=_split_name("dealt"),
    )
    for number, shard in enumerate(dataset.shards):
        own = opinions.filter(pl.col("shard") == number).drop("shard")
        every = pl.DataFrame({"row": pl.arange(shard.rows, dtype=pl.UInt32, eager=True)})
        yield ShardOutput(shard, every.join(own, on="row", how="left", maintain_order="left").drop("row"))
    new = rows.filter(pl.col("old").is_null()).select(*_ID, pl.col("dealt").alias("split"))
    yield IndexOutput(pl.concat([ledger, new]).sort(_ID))
    yield _note(rows)


def _note(rows: pl.DataFrame) -> Note:
    said: list[str] = []
    kept = rows.filter(pl.col("kept") & pl.col("leak").is_null())
    for position, name in enumerate(SPLITS):
        own = kept.filter(pl.col("dealt") == position)
        said.append(f"{name}: {own.height:,} ({own['group'].n_unique():,})")
    leaks = rows["leak"].count()
    bridges = f"; training rows left out as bridges to evaluation rows: {leaks:,}" if leaks else ""
    return Note(f"rows (and groups of rows) by split: {', '.join(said)}{bridges}")


STAGE = Stage("split", 2, SplitConfig, run, features=("split-ledger",), remembers=True)
