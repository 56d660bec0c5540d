"""Evaluation sets: the files that a person names, read as items: the texts that a model is asked with.

A set is a file, a glob, an hf://datasets/ path, or the name of a preset. What the settings record of it is its name and
its SHA-256, so that a changed file is another setting.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from curate.decontaminate.presets import PRESETS
from curate.ingest.fields import usable_id
from curate.ingest.inputs import Input, find_inputs
from curate.ingest.read import rows_of
from schemas.config import DecontaminateConfig
from schemas.dataset import Dataset
from schemas.errors import ConfigError, CorruptObjectError, InputError

ITEMS = pl.Schema({"eval": pl.String, "item": pl.String, "text": pl.String})
"""One line for each item: the set that it belongs to, its id there, and its text."""

PROMPTS = ("instruction", "question", "prompt", "problem", "query", "turns", "messages", "ctx", "text")
"""Fields that hold what is asked; the first of these that a row has is read."""
BESIDES = ("input", "choices", "options", "endings", "instances[].input")
"""Fields that are read besides it: an item is its question with its material and its choices."""
IDS = ("id", "task_id", "question_id", "unique_id", "qid", "key", "idx", "ind")

_MOST_MB = 64
_PINNED = re.compile(r"(?P<name>.+):(?P<sha256>[0-9a-f]{64})")
_DIGITS = re.compile(r"-\d{5}-of-\d{5}$")


@dataclass(frozen=True)
class EvalSet:
    """An evaluation set: its name, its files, and the fields that are read (none: those that are recognised)."""

    given: str
    name: str
    files: tuple[Input, ...]
    fields: tuple[str, ...]


def pin(_dataset: Dataset, config: DecontaminateConfig) -> DecontaminateConfig:
    """Name every evaluation file, and the allow-list, with its SHA-256.

    Raises InputError for a file that cannot be read, ConfigError for sets that go by one name.
    """
    sets = [entry for given in config.eval for entry in find_sets(_unpinned(given), config.eval_field)]
    names = [entry.name for entry in sets]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            "decontaminate, eval", f"two sets go by the name {', '.join(twice)}", "one file for each", "rename a file"
        )
    named = tuple(f"{entry.given}:{_sha256(entry.files)}" for entry in sets)
    allow = config.allow and _unpinned(config.allow)
    return config.model_copy(update={"eval": named, "allow": allow and f"{allow}:{_sha256(find_inputs([allow]))}"})


def find_sets(given: str, fields: Sequence[str]) -> Iterator[EvalSet]:
    """Find the sets that one `--eval` names: a preset is one set, each file of a glob is one.

    Raises InputError where there is no such file.
    """
    preset = PRESETS.get(given)
    if preset and not Path(given).is_file():
        yield EvalSet(given, given, find_inputs(preset.paths), tuple(fields) or preset.fields)
        return
    if given == "-":
        raise ConfigError("decontaminate, eval -", "stdin can be read once only", "a file")
    try:
        files = find_inputs([given])
    except InputError as error:
        if "/" in given or "." in given:
            raise
        raise InputError(
            f"--eval {given}", "neither a file nor a preset", f"a file, or one of {', '.join(PRESETS)}"
        ) from error
    for file in files:
        yield EvalSet(file.uri, _name(file), (file,), tuple(fields))


def read_sets(config: DecontaminateConfig) -> tuple[pl.DataFrame, list[str]]:
    """Read the items of all sets, as `ITEMS`, and say what there is to say about them.

    Raises InputError for a row that cannot be read and for a set without text, CorruptObjectError where a file is not
    the one that was pinned.
    """
    frames: list[pl.DataFrame] = []
    notes: list[str] = []
    for given in config.eval:
        pinned = _PINNED.fullmatch(given)
        for entry in find_sets(_unpinned(given), config.eval_field):
            if pinned and _sha256(entry.files) != pinned["sha256"]:
                raise CorruptObjectError(
                    f"--eval {entry.given}", "the file has changed since the stage began", "the same file", "run again"
                )
            frame = pl.DataFrame(list(_items(entry)), schema=ITEMS, orient="row")
            blank = frame.filter(pl.col("text") == "")
            if blank.height == frame.height:
                raise _without_text(entry)
            if blank.height:
                some = ", ".join(blank["item"].head(5))
                notes.append(f"{entry.name}: {blank.height:,} items without text were not searched for ({some})")
            frames.append(frame.filter(pl.col("text") != ""))
    return pl.concat(frames), notes


def read_allowed(config: DecontaminateConfig) -> list[str]:
    """Read the allow-list: the lines of a text file, without blanks around them, blank ones and `#` lines left out."""
    if config.allow is None:
        return []
    path = _unpinned(config.allow)
    [file] = find_inputs([path])
    with file.open() as stream:
        data = b"".join(iter(stream.read, b""))
    try:
        lines = [line.strip() for line in data.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise InputError(f"--allow {path}", "not UTF-8 text", "item ids or texts, one on a line") from error
    return [line for line in lines if line and not line.startswith("#")]


def _unpinned(given: str) -> str:
    pinned = _PINNED.fullmatch(given)
    return pinned["name"] if pinned else given


def _sha256(files: Sequence[Input]) -> str:
    """Hash a file as it is stored; several files by their hashes."""
    hashes: list[str] = []
    for file in files:
        with file.open() as stream:
            hashes.append(stream.finish()[0])
    return hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def _name(file: Input) -> str:
    """Give a file's name without its endings, and without the number of its part."""
    name = PurePosixPath(file.path).name
    for ending in reversed([ending for ending in file.suffixes if ending]):
        name = name[: -len(ending)] if name.lower().endswith(ending) else name
    return _DIGITS.sub("", name) or name


def _items(entry: EvalSet) -> Iterator[tuple[str, str, str]]:
    several = len(entry.files) > 1
    for file in entry.files:
        label = PurePosixPath(file.path).name
        with file.open() as stream:
            unit, rows = rows_of(stream, _MOST_MB * 1_000_000)
            for row in rows:
                where = f"{label}, {unit} {row.number}"
                if row.problem is not None:
                    raise InputError(where, row.problem.detail, "an evaluation file whose rows can all be read")
                if not isinstance(row.value, Mapping):
                    raise InputError(where, "no object with named fields", 'rows such as {"question": …}')
                place = f"{label}:{row.number}" if several else f"{unit} {row.number}"
                own = next((row.value[name] for name in IDS if usable_id(row.value.get(name))), place)
                texts = texts_of_row(row.value, entry.fields)
                for n, text in enumerate(texts, 1):
                    yield entry.name, _whole(str(own) if n == 1 else f"{own}#{n}"), _whole(text)


def _whole(text: str) -> str:
    """Join letters and accents (NFC), as rows have them after normalize, and put a question mark for each half of a
    character (a lone surrogate, which JSON can spell and UTF-8 cannot)."""
    return unicodedata.normalize("NFC", text.encode(errors="replace").decode())


def texts_of_row(row: Mapping[str, Any], fields: Sequence[str]) -> list[str]:
    """Give the texts that a row of an evaluation file stands for: one, or one for each of its instances.

    `fields` may reach into objects (`choices.text`) and lists (`instances[].input`).
    """
    if not fields:
        prompt = next((name for name in PROMPTS if _text(row.get(name))), None)
        fields = [name for name in (prompt, *BESIDES) if name]
    variants = [""]
    for field in fields:
        head, several, rest = field.partition("[].")
        if several:
            inner = _reach(row, head)
            ones: list[Any] = inner if isinstance(inner, list) else []
            found = [_text(_reach(one, rest)) for one in ones if isinstance(one, Mapping)]
            variants = [_join(text, more) for text in variants for more in found or [""]]
        else:
            more = _text(_reach(row, field))
            variants = [_join(text, more) for text in variants]
    return variants


def _join(text: str, more: str) -> str:
    return f"{text}\n{more}" if text and more else text or more


def _reach(row: Any, path: str) -> Any:
    for name in path.split("."):
        row = row.get(name) if isinstance(row, Mapping) else None
    return row


def _text(value: Any) -> str:
    """Give the text of a field: a text, a list of them, a message's content, the text of choices."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list):
        return "\n".join(text for one in value if (text := _text(one)))
    if isinstance(value, Mapping):
        if value.get("role") == "assistant":
            return ""
        return _text(value.get("content", value.get("text")))
    return ""


def _without_text(entry: EvalSet) -> InputError:
    """Say which fields there are, where none holds a text that is looked for."""
    with entry.files[0].open() as stream:
        first = next(iter(rows_of(stream, _MOST_MB * 1_000_000)[1]), None)
    if first is None:
        return InputError(f"--eval {entry.given}", "no rows", "at least one item")
    found = ", ".join(map(str, list(first.value)[:12]))
    wanted = ", ".join(entry.fields or PROMPTS)
    return InputError(
        f"--eval {entry.given}", f"no text: its rows have {found}", f"text in {wanted}", "name the fields: --eval-field"
    )
