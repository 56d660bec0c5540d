"""Lines: JSON Lines, one row a line. Memory holds one chunk and one line; a line above the limit is passed over."""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from curate.ingest.inputs import CHUNK, Stream
from curate.ingest.row import Row, RowError, TooLongError, decode

BOM = b"\xef\xbb\xbf"
BLANK = b" \t\r\n"


class Line(NamedTuple):
    """A line without its line feed. `problem` where it is too long: it then holds a stand-in for its text."""

    number: int
    data: bytes
    problem: RowError | None = None
    ended: bool = True


class _Pieces:
    """A line as it arrives in pieces. Above the limit only its beginning, its length and its hash are kept."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._hash: hashlib.blake2b | None = None
        self.size = 0

    def add(self, piece: bytes) -> None:
        self.size += len(piece)
        if self._hash is not None:
            self._hash.update(piece)
            return
        self._pieces.append(piece)
        if self.size > self._limit:
            self._hash = hashlib.blake2b(b"".join(self._pieces), digest_size=16)
            self._pieces = [b"".join(self._pieces)[:1_000]]

    def line(self, number: int, *, ended: bool = True) -> Line:
        data = b"".join(self._pieces)
        if self._hash is None:
            return Line(number, data, ended=ended)
        problem = TooLongError(data.decode("utf-8", "replace"), self._hash.hexdigest(), self.size, self._limit)
        return Line(number, problem.head.encode(), problem)


def split_lines(stream: Stream, limit: int) -> Iterator[Line]:
    """Split a stream at line feeds; the last line counts where it holds anything. `limit` is in bytes."""
    if stream.peek(3) == BOM:
        stream.read(3)
    number = 0
    pieces = _Pieces(limit)
    while chunk := stream.read(CHUNK):
        first, *rest = chunk.split(b"\n")
        pieces.add(first)
        if rest:
            number += 1
            yield pieces.line(number)
            for data in rest[:-1]:  # none of them can be longer than the chunk, and no limit is below that
                number += 1
                yield Line(number, data)
            pieces = _Pieces(limit)
            pieces.add(rest[-1])
    if pieces.size:
        yield pieces.line(number + 1, ended=False)


def line_rows(stream: Stream, limit: int) -> Iterator[Row]:
    """Give the rows of a JSON Lines file. Blank lines are no rows, but count in the line numbers."""
    for number, data, problem, ended in split_lines(stream, limit):
        if problem is not None:
            yield Row(number, None, data.decode(), problem)
            continue
        text = data.strip(BLANK)
        if not text:
            continue
        try:
            raw = text.decode()
        except UnicodeDecodeError as error:
            raw, detail = text.decode("utf-8", "backslashreplace"), f"byte {error.start + 1} of the line is not UTF-8"
            yield Row(number, None, raw, RowError("ingest:bad_encoding", detail))
            continue
        try:
            yield Row(number, decode(raw), raw)
        except RowError as error:
            if not ended and error.reason == "ingest:broken_json":
                error = RowError(error.reason, f"{error.detail}; the file ends in this line and may be cut off")
            yield Row(number, None, raw, error)
