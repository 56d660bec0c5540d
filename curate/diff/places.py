"""Places: where the rows that differ stand in the two versions, found without reading a text.

A place is a shard (its number among `Dataset.shards`) and a row of it. Shards with the same text object stand side by
side, row by row; what is left is matched by id, from 90 bytes a row: the id as two numbers, and hashes in place of what
is only compared.
"""

from collections.abc import Callable, Mapping, Sequence

import polars as pl

from schemas.dataset import Dataset, Shard
from schemas.record import EDITABLE, OVERLAY_SCHEMA
from schemas.stages import ANNOTATION_COLUMNS
from schemas.stages import before as stages_before

PLACES = pl.Schema(dict.fromkeys(("shard", "row", "shard_after", "row_after"), pl.UInt32))
"""Null where a version has no such row."""

NUMBERS: Mapping[str, str] = {
    "quality": "signals",
    **{column: "score" for column, dtype in ANNOTATION_COLUMNS["score"].items() if dtype.is_numeric()},
    "weight": "select",
}
"""The numbers that stages give rows as an opinion, and the stage of each."""

_STRINGS = ("content_hash", "reject_reason", "stage", "split")
_COMPARED = (*_STRINGS, *NUMBERS)

_PART_ROWS = 1 << 20
"""Rows that are matched by id at a time: what a join takes beside the rows themselves stays below 200 MB."""


def rescored(column: str) -> pl.Expr:
    """Both versions have the number, and it differs; one that was only just computed is no change of opinion.

    A row without a weight is seen once an epoch, as one of weight 1. Reads: the column, and it with `_after`.
    """
    one, other = pl.col(column), pl.col(f"{column}_after")
    return one.fill_null(1.0) != other.fill_null(1.0) if column == "weight" else one != other


def tests() -> dict[str, pl.Expr]:
    """Give, for each word about a row that both versions have, whether it fits. Null where it does not.

    Reads: content_hash, reject_reason, stage, split and `NUMBERS`, and each with `_after`.
    """
    reason, new_reason = pl.col("reject_reason"), pl.col("reject_reason_after")
    kept = reason.is_null() & new_reason.is_null()
    differs = {c: pl.col(c) != pl.col(f"{c}_after") for c in _STRINGS}
    return {
        "edited": differs["content_hash"],
        "rejected": reason.is_null() & new_reason.is_not_null(),
        "restored": reason.is_not_null() & new_reason.is_null(),
        "rejudged": differs["reject_reason"] | differs["stage"],
        "resplit": kept & differs["split"],
        "rescored": kept & pl.any_horizontal(rescored(column) for column in NUMBERS),
    }


def changed_places(before: Dataset, after: Dataset) -> pl.DataFrame:
    """Give the places of all rows about which the versions say something else (`PLACES`), in no certain order."""
    old, new = ({shard.text.stem: i for i, shard in enumerate(dataset.shards)} for dataset in (before, after))
    said = [_opinions(dataset) for dataset in (before, after)]
    found = [PLACES.to_frame()]
    for text in sorted(old.keys() & new.keys(), key=old.__getitem__):
        numbers = old.pop(text), new.pop(text)
        mine, other = before.shards[numbers[0]], after.shards[numbers[1]]
        if said[0].get(_name(mine)) != said[1].get(_name(other)):
            found.append(_beside(mine, other, numbers))
    found.append(_matched(before, sorted(old.values()), after, sorted(new.values())))
    return pl.concat(found)


def read_places(
    dataset: Dataset,
    places: pl.DataFrame,
    columns: Sequence[str],
    *,
    before_stage: str | None = None,
    then: Sequence[pl.Expr] | None = None,
) -> pl.DataFrame:
    """Give columns of the rows at places (shard, row), in their order; nulls where a place is null.

    `then`: what is made of the columns, while a shard is read. Each shard is read once; of `EDITABLE` columns, only
    the rows at the places.
    """
    made = [pl.col(column) for column in columns] if then is None else then

    def read(shard: Shard, wanted: pl.Expr) -> pl.LazyFrame:
        if not set(columns) <= set(EDITABLE):
            return shard.view(columns, before_stage=before_stage).with_row_index("row").filter(wanted)
        overlays = [shard.overlays[s] for s in stages_before(before_stage) if s in shard.overlays]
        layers = [pl.scan_ipc(shard.text).select(columns).with_row_index("row")]
        layers += [pl.scan_ipc(overlay).select("row", *columns) for overlay in overlays]
        rows = pl.concat([layer.filter(wanted) for layer in layers])
        return rows.unique("row", keep="last", maintain_order=True) if overlays else rows

    found = _read(dataset, places, read, lambda rows: rows.select("row", *made))
    return found if found is not None else _nulls(dataset.scan(columns, before_stage=before_stage).select(made), places)


def read_overlays(dataset: Dataset, places: pl.DataFrame, stage: str) -> pl.DataFrame:
    """Give what a stage rewrote at places, as `read_places` does; nulls where it left the row as it was.

    Adds: content_hash, edits.
    """
    columns = ("content_hash", "edits")

    def read(shard: Shard, wanted: pl.Expr) -> pl.LazyFrame:
        overlay = shard.overlays.get(stage)
        return (pl.scan_ipc(overlay) if overlay else OVERLAY_SCHEMA.to_frame().lazy()).filter(wanted)

    found = _read(dataset, places, read, lambda rows: rows.select("row", *columns))
    return found if found is not None else _nulls(OVERLAY_SCHEMA.to_frame().lazy().select(columns), places)


def _read(
    dataset: Dataset,
    places: pl.DataFrame,
    read: Callable[[Shard, pl.Expr], pl.LazyFrame],
    then: Callable[[pl.LazyFrame], pl.LazyFrame],
) -> pl.DataFrame | None:
    """Read rows shard by shard and put them in the order of their places; None where no place is there."""
    found: list[pl.DataFrame] = []
    for (number,), rows in places.drop_nulls().partition_by("shard", as_dict=True).items():
        own = read(dataset.shards[int(number)], pl.col("row").is_in(rows["row"].implode()))
        chosen = then(own).collect(engine="streaming")
        found.append(_alone(chosen).with_columns(shard=pl.lit(number, pl.UInt32)))
    if not found:
        return None
    rows = places.select("shard", "row").join(pl.concat(found), on=["shard", "row"], how="left", maintain_order="left")
    return rows.drop("shard", "row")


def _alone(rows: pl.DataFrame) -> pl.DataFrame:
    """Copy rows, so that they do not hold all the texts of the shard that they were chosen from."""
    return pl.DataFrame(rows.to_arrow(compat_level=pl.CompatLevel.oldest()))


def _nulls(like: pl.LazyFrame, places: pl.DataFrame) -> pl.DataFrame:
    known = like.collect_schema()
    return places.with_columns(pl.lit(None, dtype).alias(c) for c, dtype in known.items()).select(list(known))


def side(places: pl.DataFrame, *, after: bool) -> pl.DataFrame:
    """Give one version's half of places, as shard and row."""
    end = "_after" if after else ""
    return places.select(shard=f"shard{end}", row=f"row{end}")


def _name(shard: Shard) -> tuple[str, int]:
    return shard.source, shard.number


def _opinions(dataset: Dataset) -> dict[tuple[str | None, int | None], set[tuple[str, str, str]]]:
    """Give what is said about each shard, by source and number: overlays and annotations."""
    said: dict[tuple[str | None, int | None], set[tuple[str, str, str]]] = {}
    for file in dataset.manifest.files:
        if file.role in ("overlay", "annotation"):
            said.setdefault((file.source, file.shard), set()).add((file.role, file.stage, file.sha256))
    return said


def _any() -> pl.Expr:
    return pl.any_horizontal(test.fill_null(value=False) for test in tests().values())


def _beside(mine: Shard, other: Shard, numbers: tuple[int, int]) -> pl.DataFrame:
    """Compare two shards of one text, row by row."""
    new = other.view(_COMPARED).rename({c: f"{c}_after" for c in _COMPARED})
    rows = pl.concat([mine.view(_COMPARED), new], how="horizontal").with_row_index("row").filter(_any())
    row = rows.select("row").collect(engine="streaming").to_series()
    fixed = [pl.lit(n, pl.UInt32).alias(c) for n, c in zip(numbers, ("shard", "shard_after"), strict=True)]
    return pl.DataFrame({"row": row, "row_after": row}).with_columns(fixed).select(list(PLACES))


def _matched(before: Dataset, old: Sequence[int], after: Dataset, new: Sequence[int]) -> pl.DataFrame:
    """Match the rows of shards that have no text in common by id, a part of all ids at a time."""
    rows = sum(dataset.shards[i].rows for dataset, numbers in ((before, old), (after, new)) for i in numbers)
    parts = max(1, -(-rows // (2 * _PART_ROWS)))
    mine, other = _brief(before, old, parts), _brief(after, new, parts)
    found = [PLACES.to_frame()]
    for part in range(parts):
        pair = [pl.concat([_BRIEF.to_frame(), *versions.pop(part, [])]) for versions in (mine, other)]
        joined = pair[0].lazy().join(pair[1].lazy(), on=["id_hi", "id_lo"], how="full", suffix="_after")
        one_sided = pl.col("row").is_null() | pl.col("row_after").is_null()
        found.append(joined.filter(one_sided | _any()).select(list(PLACES)).collect())
    return pl.concat(found)


_BRIEF = pl.Schema(
    {
        **dict.fromkeys(("id_hi", "id_lo", *_STRINGS), pl.UInt64),
        **dict.fromkeys(NUMBERS, pl.Float32),
        "shard": pl.UInt32,
        "row": pl.UInt32,
    }
)


def _brief(dataset: Dataset, numbers: Sequence[int], parts: int) -> dict[int, list[pl.DataFrame]]:
    """Read shards as far as they are compared, divided by the ids' first digits."""
    divided: dict[int, list[pl.DataFrame]] = {}
    for number in numbers:
        halves = [pl.col("id").str.slice(at, 16).str.to_integer(base=16, dtype=pl.UInt64) for at in (0, 16)]
        strings = [pl.when(pl.col(c).is_not_null()).then(pl.col(c).hash()).alias(c) for c in _STRINGS]
        brief = (
            dataset.shards[number]
            .view(["id", *_COMPARED])
            .with_row_index("row")
            .with_columns(*strings, id_hi=halves[0], id_lo=halves[1], shard=pl.lit(number, pl.UInt32))
            .select(list(_BRIEF))
            .collect(engine="streaming")
        )
        if parts == 1:
            divided.setdefault(0, []).append(brief)
            continue
        part = (pl.col("id_hi") // (1 << 40)) % parts
        for (which,), rows in brief.with_columns(part=part).partition_by("part", as_dict=True).items():
            divided.setdefault(int(which), []).append(rows.drop("part"))
    return divided
