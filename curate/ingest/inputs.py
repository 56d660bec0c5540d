"""Inputs: what a person names (files, globs, `-`, hf://datasets/ paths) becomes files, and files become bytes.

Bytes are hashed as they are stored while they pass through; compression is seen by its first bytes and undone. Arrow's
decompressors are used because they report a stream that ends too early, which is what a broken download looks like.
"""

import glob
import hashlib
import os
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import pyarrow as pa

from schemas.errors import InputError

CHUNK = 1 << 20
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_COMPRESSED = {".gz": (_GZIP, "gzip"), ".zst": (_ZSTD, "Zstandard")}


@dataclass(frozen=True)
class Input:
    """One file. `uri` is what the person gave, `label` what a row's `source_file` says, `path` where it lies."""

    uri: str
    label: str
    path: str
    size: int | None = None

    @property
    def suffixes(self) -> tuple[str, str]:
        """The ending that says what the file holds, and the one that says how it is compressed ("" for none)."""
        path = PurePosixPath(self.path.lower())
        outer = path.suffix if path.suffix in _COMPRESSED else ""
        return (PurePosixPath(path.stem).suffix if outer else path.suffix), outer

    @contextmanager
    def open(self) -> Generator["Stream"]:
        """Open the file. Raises InputError where it cannot be read."""
        try:
            with self._open() as file:
                yield Stream(self, file)
        except InputError:
            raise
        except OSError as error:
            raise InputError(self.uri, _reason(error), "a readable file") from error

    @contextmanager
    def _open(self) -> Generator[Any]:
        if self.path == "-":
            yield sys.stdin.buffer
        elif "://" in self.path:
            with _remote_file(self.path) as file:
                yield file
        else:
            with Path(self.path).open("rb") as file:
                yield file


class _Hashed:
    """A file whose bytes are counted and hashed as they are read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.bytes = 0
        self.closed = False
        self._ahead = b""

    def peek(self, size: int) -> bytes:
        """Give the first bytes without taking them."""
        while len(self._ahead) < size and (more := self._take(size)):
            self._ahead += more
        return self._ahead[:size]

    def _take(self, size: int) -> bytes:
        data = self._file.read(size)
        self.sha256.update(data)
        self.bytes += len(data)
        return data

    def read(self, size: int = CHUNK) -> bytes:
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        return self._take(size)

    def close(self) -> None:
        """Leave the file open: who opened it closes it (Arrow calls this)."""


class Stream:
    """The bytes of one input, decompressed. `peek` looks ahead; `finish` gives the hash of the file as it is stored."""

    def __init__(self, source: Input, file: IO[bytes]) -> None:
        self.input = source
        self._stored = _Hashed(file)
        start = self._stored.peek(4)
        compression = "gzip" if start.startswith(_GZIP) else "zstd" if start == _ZSTD else None
        outer = source.suffixes[1]
        if start and outer and not start.startswith(_COMPRESSED[outer][0]):
            raise InputError(
                source.uri, f"not {_COMPRESSED[outer][1]} data", f"what its name says ({outer})", "correct the name"
            )
        self._file: Any = (
            pa.CompressedInputStream(pa.PythonFile(self._stored, mode="r"), compression)
            if compression
            else self._stored
        )
        self.compressed = compression is not None
        self._ahead = b""

    def read(self, size: int = CHUNK) -> bytes:
        """Give the next bytes, at most `size`; b"" at the end. Raises InputError where the file is broken off."""
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        return self._read(size)

    def peek(self, size: int) -> bytes:
        """Give the next bytes without taking them; fewer than `size` at the end."""
        while len(self._ahead) < size and (more := self._read(size)):
            self._ahead += more
        return self._ahead[:size]

    def _read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except (OSError, pa.ArrowException) as error:
            if not self.compressed:
                raise
            raise InputError(
                self.input.uri,
                f"broken off or damaged after {self._stored.bytes:,} bytes ({_reason(error)})",
                "a whole compressed file",
                "fetch it again; nothing was committed",
            ) from error

    @contextmanager
    def spooled(self) -> Generator[Path]:
        """Give a path with the decompressed bytes: the file itself where that is one, else a temporary copy."""
        local = not self.compressed and "://" not in self.input.path and self.input.path != "-"
        if local:
            yield Path(self.input.path)
            return
        with tempfile.NamedTemporaryFile(prefix="sft-") as copy:
            while data := self.read():
                copy.write(data)
            copy.flush()
            yield Path(copy.name)

    def finish(self) -> tuple[str, int]:
        """Read what is left; give (sha256, bytes) of the file as it is stored."""
        while self._stored.read():
            pass
        return self._stored.sha256.hexdigest(), self._stored.bytes


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).partition("\n")[0] or type(error).__name__


def _file_system(uri: str) -> tuple[Any, str]:
    """Give the fsspec file system of a URI, and the path within it. Raises InputError."""
    from fsspec.core import url_to_fs  # noqa: PLC0415 - imports the hub's client, which plain files do not need

    try:
        fs, path = url_to_fs(uri)
    except (ValueError, ImportError, OSError) as error:
        raise InputError(
            uri, _reason(error), "a file, or hf://datasets/OWNER/NAME/FILE", "check the spelling"
        ) from error
    return fs, path


def _remote(uri: str) -> list[tuple[str, str, int | None]]:
    """List the files that a URI names: (uri, path, size)."""
    fs, path = _file_system(uri)
    scheme = uri.partition("://")[0]
    try:
        found = fs.glob(path, detail=True) if glob.has_magic(path) else {path: fs.info(path)}
    except FileNotFoundError:
        found = {}
    except Exception as error:  # the hub's client and its HTTP library raise types of their own
        raise InputError(uri, _reason(error), "a path that can be reached", "check the network and the name") from error
    files = [(f"{scheme}://{name}", info.get("size")) for name, info in sorted(found.items()) if info["type"] == "file"]
    return [(name if glob.has_magic(path) else uri, name, size) for name, size in files]


class _RemoteFile:
    """A file of another machine, whose failures are those of any file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except Exception as error:  # the hub's client and its HTTP library raise types of their own
            raise OSError(_reason(error)) from error


@contextmanager
def _remote_file(uri: str) -> Generator[_RemoteFile]:
    fs, path = _file_system(uri)
    try:
        file = fs.open(path, "rb")
    except Exception as error:  # as above
        raise InputError(uri, _reason(error), "a file that can be reached", "check the network and the name") from error
    with file:
        yield _RemoteFile(file)


def _local(uri: str, base: Path | None) -> list[tuple[str, str, int | None]]:
    root = base or Path()
    if not uri.strip():
        raise InputError("inputs", "a name without letters", "a file, a glob, '-' or hf://datasets/OWNER/NAME/FILE")
    try:
        if (root / uri).is_dir():
            raise InputError(uri, "a folder", "a file or a glob", f"try '{uri.rstrip('/')}/*.jsonl'")
        names = [uri]
        if glob.has_magic(uri) and not (root / uri).exists():
            matches = glob.glob(uri, root_dir=root, recursive=True)  # noqa: PTH207 - keeps the spelling that was given
            names = sorted(name for name in matches if (root / name).is_file())
        return [(name, str(root / name), (root / name).stat().st_size) for name in names]
    except (OSError, ValueError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else _reason(error)
        raise InputError(uri[:200], reason, "a file that can be read", "check the path") from error


def find_inputs(given: Sequence[str], base: Path | None = None) -> tuple[Input, ...]:
    """Resolve what a person named to files, in the order given (globs in the order of names).

    Relative paths and globs are looked up from `base` (default: the working folder). Raises InputError for what is not
    there and for a file that is named twice.
    """
    found: list[tuple[str, str, int | None]] = []
    for uri in given:
        if uri == "-":
            files = [("-", "-", None)]
        elif "://" in uri:
            files = _remote(uri)
        else:
            files = _local(uri, base)
        if not files:
            raise InputError(uri, "no file matches", "at least one file", "check the path")
        found.extend(files)
    if not found:
        raise InputError("inputs", "none given", "a file, a glob, '-' or hf://datasets/OWNER/NAME/FILE")
    places: set[str] = set()
    for uri, path, _ in found:
        place = path if path == "-" or "://" in path else os.path.realpath(path)
        if place in places:
            raise InputError(uri, "named twice", "each file once", "its rows would come in twice")
        places.add(place)
    return tuple(
        Input(uri, label, path, size)
        for (uri, path, size), label in zip(found, _labels([path for _, path, _ in found]), strict=True)
    )


def _place(path: str) -> PurePosixPath:
    return PurePosixPath(path.partition("://")[2] or os.path.normpath(Path(path).absolute()))


def _labels(paths: Sequence[str]) -> list[str]:
    """Give each file the name that its rows remember: relative to the folder that all share, never absolute."""
    inner = [None if path == "-" else _place(path) for path in paths]
    folders = [str(p.parent) for p in inner if p is not None]
    schemes = {p.partition("://")[0] if "://" in p else "" for p in paths if p != "-"}
    common = os.path.commonpath(folders) if len(schemes) == 1 else None
    labels: list[str] = []
    for path in inner:
        if path is None:
            labels.append("stdin")
        else:
            labels.append(path.relative_to(common).as_posix() if common is not None else path.name)
    return labels
