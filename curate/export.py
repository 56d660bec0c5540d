"""Export: the rows of a version as files that other programs read, one for each split.

`jsonl` and `parquet` hold the records in full. `dpo` holds preference pairs (see curate/preferences.py), none, one or
several of a row. `hf` is a dataset for the hub (see curate/publish/). The others are the formats that ingest reads: a
row goes back to the shape it came in, unknown fields included, and a row that a format has no place for is named in
`skipped.jsonl`.
Everything is written beside the target first and renamed at the end, so that the target is never half written.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import polars as pl
import pyarrow.parquet as pq

from curate.folder import new_folder
from curate.ingest.formats import FORMATS
from curate.ingest.row import RowError
from curate.store import Store
from schemas.about import About
from schemas.config import ExportFormat
from schemas.dataset import Dataset, Shard
from schemas.errors import ConfigError
from schemas.record import TEXT_SCHEMA
from schemas.stages import SPLITS

_STAGE_COLUMNS = {"signals": ("quality",), "select": ("weight",), "split": ("split",)}
"""What later stages say about a row that is of use outside; `records in full` have these where the stage has run."""
_ROWS = 4_096
_SKIPPED = "skipped.jsonl"


@dataclass(frozen=True)
class Exported:
    """What was written: the files, the rows in them, and the kept rows that the format has no place for, by reason.

    `notices`: what people should know of a published version, such as what nobody stated.
    """

    files: tuple[Path, ...]
    rows: int
    skipped: dict[str, int] = field(default_factory=dict[str, int])
    notices: tuple[str, ...] = ()


def export(
    dataset: Dataset,
    format: ExportFormat,
    to: Path,
    *,
    splits: tuple[str, ...] | None = None,
    include_rejected: bool = False,
    about: About | None = None,
) -> Exported:
    """Write the kept rows of a version into the folder `to`: train.jsonl and so on, or all.jsonl before a split.

    `splits` names those that are wanted (None: all). With `include_rejected` the rejected rows go to a file of their
    own, rejected.jsonl or .parquet, with their reason. `about`: what its publisher says of it (hf). Raises ConfigError
    for a folder that is in use, an unknown format or split, and a folder that cannot be written.
    """
    if format not in get_args(ExportFormat):
        raise ConfigError(f"format {format!r}", "not known", f"one of {', '.join(get_args(ExportFormat))}")
    whole = format in ("jsonl", "parquet")
    if include_rejected and not whole:
        raise ConfigError(
            f"rejected rows as {format}", "no place for the reason", "jsonl or parquet", "leave them out, or use jsonl"
        )
    if about is not None and format != "hf":
        raise ConfigError(f"--about with {format}", "no place for what it says", "--format hf")
    if format == "hf":
        return _publish(dataset, to, splits, about)
    stages = {stage for shard in dataset.shards for stage in shard.annotations}
    wanted = _wanted(dataset, splits, split_ran="split" in stages)
    columns = [*TEXT_SCHEMA, *(c for stage, names in _STAGE_COLUMNS.items() if stage in stages for c in names)]
    rejected = ["reject_reason", "reject_detail"] if include_rejected else []
    if format == "dpo":
        return _export_pairs(dataset, to, wanted)
    with new_folder(to) as folder, ExitStack() as open_files:
        files = _Files(folder, "parquet" if format == "parquet" else "jsonl", open_files)
        run = _Export(files, columns, rejected, wanted, None if whole else format)
        for shard in dataset.shards:
            run.shard(shard)
    names = sorted(name for name in files.rows if name != _SKIPPED)
    if files.rows.get(_SKIPPED):
        names.append(_SKIPPED)
    rows = sum(n for name, n in files.rows.items() if name != _SKIPPED)
    return Exported(tuple(to / name for name in names), rows, dict(sorted(run.skipped.items())))


def _publish(dataset: Dataset, to: Path, splits: tuple[str, ...] | None, about: About | None) -> Exported:
    """Write a version as a dataset for the hub."""
    from curate.publish.layout import publish  # noqa: PLC0415 # cards and licences come with it, for no other format

    done = publish(dataset, to, about=about, splits=splits)
    return Exported(done.files, done.rows, notices=done.notices)


def _export_pairs(dataset: Dataset, to: Path, splits: tuple[str, ...] | None) -> Exported:
    """Write the preference pairs of a version, and name those that are left out. Raises ConfigError without pairs."""
    from curate.preferences import preferences  # noqa: PLC0415 # reviews come with it, and no other format needs them

    pairs, left = preferences(dataset, Store(dataset.root))
    named = [p for p in pairs if splits is not None and p.split not in splits]
    chosen = [p for p in pairs if splits is None or p.split in splits]
    without = [vars(e) for e in left]
    without += [
        {"id": p.id, "source": p.source, "reason": "no split", "detail": "run split again"}
        for p in named
        if p.split is None
    ]
    if not chosen:
        m = dataset.manifest
        reasons = Counter(e["reason"] for e in without)
        others = len(named) - reasons["no split"]
        why = ", ".join(f"{n} left out: {reason}" for reason, n in sorted(reasons.items()))
        why += f"{', ' if why else ''}{others} of other splits" if others else ""
        raise ConfigError(
            f"preference pairs of {m.name}@{m.seq}",
            f"none ({why})" if why else "none: no corrections of reviewers, and no comparisons of a run's answers",
            "one at least",
            f"bring them with sft curate review pull {m.name}, or sft curate review pull --run RUN",
        )
    with new_folder(to) as folder, ExitStack() as open_files:
        files = _Files(folder, "jsonl", open_files)
        for split in splits or ("all",):
            files.lines(f"{split}.jsonl", [p.to_json() for p in chosen if splits is None or p.split == split])
        files.lines(_SKIPPED, without)
    names = sorted(files.rows, key=lambda name: (name == _SKIPPED, name))
    return Exported(
        tuple(to / name for name in names), len(chosen), dict(sorted(Counter(e["reason"] for e in without).items()))
    )


def _wanted(dataset: Dataset, splits: tuple[str, ...] | None, *, split_ran: bool) -> tuple[str, ...] | None:
    """Give the splits to write; None where the rows have none."""
    if splits is None:
        return SPLITS if split_ran else None
    unknown = [name for name in splits if name not in SPLITS]
    if unknown:
        raise ConfigError(f"split {unknown[0]!r}", "no such split", f"one of {', '.join(SPLITS)}")
    if not split_ran:
        name = dataset.manifest.name
        raise ConfigError(f"dataset {name!r}", "not split yet", "a split", f"run `sft curate split {name}` first")
    return tuple(dict.fromkeys(splits))


class _Files:
    """The files of an export, each opened with its first row."""

    def __init__(self, folder: Path, kind: str, closing: ExitStack) -> None:
        self._folder, self.kind, self._closing = folder, kind, closing
        self._open: dict[str, Any] = {}
        self.rows: Counter[str] = Counter()

    def lines(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows to a JSON Lines file."""
        if not rows:
            return
        if name not in self._open:
            self._open[name] = self._closing.enter_context((self._folder / name).open("w", encoding="utf-8"))
        self._open[name].writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self.rows[name] += len(rows)

    def frame(self, name: str, frame: pl.DataFrame) -> None:
        """Append the rows of a frame to a Parquet or JSON Lines file."""
        if not frame.height:
            return
        if self.kind == "jsonl":
            for part in frame.iter_slices(_ROWS):
                self.lines(name, part.to_dicts())
            return
        table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        if name not in self._open:
            writer = pq.ParquetWriter(self._folder / name, table.schema, compression="zstd")
            self._open[name] = self._closing.enter_context(writer)
        self._open[name].write_table(table)
        self.rows[name] += frame.height


class _Export:
    """An export under way. `form` is the format of the rows; None for the records in full."""

    def __init__(
        self,
        files: _Files,
        columns: list[str],
        rejected: list[str],
        splits: tuple[str, ...] | None,
        form: str | None,
    ) -> None:
        self._files, self._columns, self._rejected, self._splits = files, columns, rejected, splits
        self._form = FORMATS[form] if form is not None else None
        self.skipped: Counter[str] = Counter()

    def shard(self, shard: Shard) -> None:
        """Write one shard. Reads: all text columns, kept; split, quality, weight, reject_reason? where there are."""
        rows = shard.view([*self._columns, *self._rejected, "kept"])
        if not self._rejected:
            rows = rows.filter(pl.col("kept"))
        frame = rows.with_columns(pl.selectors.float().fill_nan(None)).collect()  # JSON has no NaN
        kept = frame.filter(pl.col("kept")).drop("kept")
        for split, part in self._parts(kept):
            name = f"{split}.{self._files.kind}"
            if self._form is None:
                self._files.frame(name, part)
            else:
                self._render(name, part)
        if self._rejected:
            self._files.frame(f"rejected.{self._files.kind}", frame.filter(~pl.col("kept")).drop("kept"))

    def _parts(self, kept: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
        """Give the rows by split, and set those aside that have none: they came after the split was made."""
        if self._splits is None:
            yield "all", kept
            return
        without = kept.filter(pl.col("split").is_null())
        self._skip(without.to_dicts(), RowError("no split", "the row came after the split was made; run split again"))
        for split in self._splits:
            yield split, kept.filter(pl.col("split") == split)

    def _render(self, name: str, part: pl.DataFrame) -> None:
        assert self._form is not None  # noqa: S101 - only called with a format
        for some in part.iter_slices(_ROWS):
            rendered: list[dict[str, Any]] = []
            for record in some.iter_rows(named=True):
                try:
                    rendered.append(self._form.render(record))
                except RowError as error:
                    self._skip([record], error)
            self._files.lines(name, rendered)

    def _skip(self, records: Sequence[Mapping[str, Any]], error: RowError) -> None:
        """Name rows that are kept and not written."""
        if not records:
            return
        places = ("id", "source", "source_key", "source_file", "source_row", "split")
        reason = {"reason": error.reason, "detail": error.detail}
        named = [{key: record[key] for key in places if key in record} | reason for record in records]
        self._files.lines(_SKIPPED, named)
        self.skipped[error.reason] += len(named)
