"""Ingest: files of the known formats become the text objects of a source, and nothing is lost on the way.

Every row that a file holds becomes one row of a shard. A row that cannot be read is a row with a reason and its raw
text; a file that cannot be read is an error. Nothing is committed here: `curate.version` does that.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from curate.ingest.fields import usable_id
from curate.ingest.formats import FORMATS, RowFormat
from curate.ingest.inputs import Input, find_inputs
from curate.ingest.keys import Keys, Name, content_name, own_name
from curate.ingest.read import rows_of
from curate.ingest.row import Row, RowError, TooLongError, canonical_text, json_text, kind
from curate.ingest.shards import ShardWriter
from curate.ingest.sniff import SAMPLE_BYTES, SAMPLE_ROWS, Sniffed, fields_found, fitting, sniff
from curate.licences import read_licence
from curate.stage import Progress, no_progress
from curate.store import Store
from schemas.config import Format, IngestConfig
from schemas.errors import InputError
from schemas.manifest import FileEntry, InputFile, Source

__all__ = ["Ingested", "ingest"]

_TICK = 2_048
"""Rows between two reports of progress."""


@dataclass(frozen=True)
class Ingested:
    """A source that was read: its manifest entry, its objects, and what there is to say about it."""

    source: Source
    files: tuple[FileEntry, ...]
    rows: int
    rejected: dict[str, int]
    notes: tuple[str, ...]
    format: str


def ingest(
    store: Store,
    inputs: Sequence[str],
    format: Format,
    config: IngestConfig,
    *,
    first_shard: int = 0,
    seen: Iterable[str] = (),
    progress: Progress = no_progress,
    base: Path | None = None,
) -> Ingested:
    """Read files into the shards of a source, from `first_shard` on.

    `seen` are the source_keys that the source has already (when appending). Relative inputs are looked up from `base`.
    Raises InputError for an input that is missing, empty, damaged, of no known format, or without a single row that
    fits; with `config.strict` for the first row that does not fit.
    """
    files = find_inputs(inputs, base)
    keys = Keys(seen)
    name = config.source or (None if format == "auto" else format)
    run = _Run(
        store=store,
        config=config,
        keys=keys,
        first_shard=first_shard,
        source=name,
        format=FORMATS.get(format),
        progress=progress,
    )
    read = tuple(run.file(file) for file in files)
    return run.done(read)


@dataclass(slots=True)
class _File:
    """One file under way: what is needed to say where a row stood, and what was wrong with the first that did not
    fit."""

    input: Input
    unit: str
    rows: int = 0
    kept: int = 0
    first: RowError | None = None
    misfits: list[Any] = field(default_factory=list[Any])
    reasons: Counter[str] = field(default_factory=Counter[str])


class _Run:
    def __init__(
        self,
        *,
        store: Store,
        config: IngestConfig,
        keys: Keys,
        first_shard: int,
        source: str | None,
        format: RowFormat | None,
        progress: Progress,
    ) -> None:
        self._store, self._config, self._keys = store, config, keys
        self._first_shard, self._source, self._progress = first_shard, source, progress
        self._format = format
        self._auto = format is None
        self._limit = config.max_row_mb * 1_000_000
        self._writer: ShardWriter | None = None
        self._notes: list[str] = []

    # files ------------------------------------------------------------------------------------------------------------

    def file(self, source: Input) -> InputFile:
        """Read one file to its end."""
        with source.open() as stream:
            unit, rows = rows_of(stream, self._limit)
            if self._auto:
                rows = self._sniffed(source, rows)
            read = self._read(_File(source, unit), rows)
            sha256, size = stream.finish()
        return InputFile(uri=source.uri, sha256=sha256, bytes=size, rows=read.rows)

    def _sniffed(self, source: Input, rows: Iterator[Row]) -> Iterator[Row]:
        """Decide the format by the first rows; all files of a source have the same one."""
        first: list[Row] = []
        size = 0
        for row in rows:
            first.append(row)
            size += len(row.raw or "")
            if len(first) == SAMPLE_ROWS or size > SAMPLE_BYTES:
                break
        if not first:
            raise InputError(source.uri, "no rows", "at least one row")
        readable = [row.value for row in first if row.problem is None]
        if not readable and first[0].problem is not None:
            raise InputError(source.uri, f"no row can be read ({first[0].problem.detail})", "rows of a known format")
        found: Sniffed = sniff(readable, source.uri)
        if self._format is None:
            self._format = FORMATS[found.format]
        elif found.format != self._format.name:
            raise InputError(
                source.uri,
                f"its rows are {found.format}, those of the files before {self._format.name}",
                "one format for all files of a source",
                "ingest them as two sources",
            )
        self._notes.append(found.why)
        return chain(first, rows)

    def _read(self, file: _File, rows: Iterator[Row]) -> _File:
        assert self._format is not None  # noqa: S101 - named, or sniffed just before
        if self._writer is None:
            self._source = self._source or self._format.name
            self._writer = ShardWriter(self._store, self._source, self._keys, self._first_shard)
        add, ticked = self._row, 0
        for row in rows:
            add(file, row, self._writer, self._format)
            file.rows += 1
            if file.rows - ticked == _TICK:
                self._progress(_TICK)
                ticked = file.rows
        self._progress(file.rows - ticked)
        if file.rows == 0:
            raise InputError(file.input.uri, "no rows", "at least one row")
        if file.kept == 0:
            raise self._nothing_fits(file)
        return file

    def _nothing_fits(self, file: _File) -> InputError:
        assert self._format is not None and file.first is not None  # noqa: S101, PT018 - rows came, none was kept
        wanted = f"rows of the format {self._format.name}: {self._format.needs}"
        if not file.misfits:
            reason = file.reasons.most_common(1)[0][0].partition(":")[2].replace("_", " ")
            found = f"none of its {file.rows:,} rows can be read ({reason}: {file.first.detail})"
            return InputError(file.input.uri, found, wanted)
        found = f"none of its {file.rows:,} rows fits; they have {fields_found(file.misfits)} ({file.first.detail})"
        others = [name for name in fitting(file.misfits) if name != self._format.name]
        remedy = f"they would fit {' or '.join(others)}" if others else ""
        return InputError(file.input.uri, found, wanted, remedy)

    # rows -------------------------------------------------------------------------------------------------------------

    def _row(self, file: _File, row: Row, writer: ShardWriter, format: RowFormat) -> None:
        """Add one row, kept or rejected."""
        number, value, _, problem = row
        name: Name | None = None
        if problem is None:
            try:
                text = canonical_text(_object(value))
                size = len(text.encode())
                _check_size(text, size, self._limit)
                own = value.get(format.id) if format.id is not None else None
                name = own_name(own) if usable_id(own) else content_name(text)
                writer.keep(file.input.label, number, name, format.parse(value), size)
            except TooLongError as error:
                problem, row = error, row._replace(raw=error.head)
            except RowError as error:
                problem = error
            except UnicodeEncodeError:
                problem, name = RowError("ingest:bad_unicode", "half of a surrogate pair (\\ud800 to \\udfff)"), None
            except RecursionError:
                problem = RowError("ingest:too_deep", "nested too deeply")
            else:
                file.kept += 1
                return
        self._reject(file, row, problem, name, writer)

    def _reject(self, file: _File, row: Row, problem: RowError, name: Name | None, writer: ShardWriter) -> None:
        number, value, raw, _ = row
        where = f"{file.input.label}, {file.unit} {number}"
        if self._config.strict:
            raise InputError(where, problem.detail, "rows that can be read (--strict)", "nothing was committed")
        if file.first is None:
            file.first = problem
        file.reasons[problem.reason] += 1
        if value is not None and len(file.misfits) < SAMPLE_ROWS and len(raw or "") < SAMPLE_BYTES // SAMPLE_ROWS:
            file.misfits.append(value)
        text = json_text(value) if raw is None else raw
        text = text.encode("utf-8", "backslashreplace").decode()
        detail = f"{where}: {problem.detail}".encode("utf-8", "backslashreplace").decode()
        writer.reject(file.input.label, number, name or content_name(text), text, RowError(problem.reason, detail))

    # end --------------------------------------------------------------------------------------------------------------

    def done(self, inputs: tuple[InputFile, ...]) -> Ingested:
        """Write the last shard and sum up."""
        assert self._writer is not None and self._format is not None and self._source is not None  # noqa: S101, PT018
        self._writer.close()
        if self._keys.repeated_ids:
            self._notes.append(
                f"{self._keys.repeated_ids:,} rows repeat the id of an earlier row; they are kept as ID#2, ID#3 …"
            )
        config = self._config
        if note := read_licence(config.license).note:
            self._notes.append(f"licence: {note}")
        source = Source(
            name=self._source,
            format=self._format.name,
            license=config.license,
            terms=config.terms,
            generated_by=config.generated_by,
            inputs=inputs,
        )
        writer = self._writer
        rejected = dict(sorted(writer.rejected.items()))
        return Ingested(source, tuple(writer.files), writer.rows, rejected, tuple(self._notes), self._format.name)


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RowError("ingest:not_an_object", f"{kind(value)}; expected an object with named fields")
    return value


def _check_size(text: str, size: int, limit: int) -> None:
    """Raise TooLongError for a row above the limit that no reader stopped (those of Parquet and Arrow cannot)."""
    if size > limit:
        raise TooLongError(text, content_name(text)[0], size, limit)
