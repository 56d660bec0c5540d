"""What models have said and scored, as one growing file of a run: nothing is computed twice, and nothing is lost.

    eval/said.jsonl    {"key": …, "id": …, "text": …, "whole": …, "tokens": …}     an answer
                       {"key": …, "id": …, "targets": …, "nll": …}                 the loss of a record, in nats

A key digests all that the line depends on: the weights, the tokens read, the most tokens that may be said, and the
precision. So an evaluation that was interrupted, or is asked for more rows or another split, goes on from here. Lines
are written as they come; one that a crash cut short is left out when the file is read.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from schemas.errors import InputError
from schemas.manifest import digest
from train.evaluation.generation import Answer
from train.text.tokens import Example


@dataclass(slots=True)
class Said:
    """The file, open for reading and for more; a context manager."""

    path: Path
    known: dict[str, dict[str, Any]] = field(default_factory=dict)
    stream: IO[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.stream = self.path.open("a+b")
            self.stream.seek(0)
            whole = self.stream.read()
        except OSError as error:
            raise InputError(f"{self.path}", error.strerror or str(error), "a folder to write to") from error
        for line in whole.splitlines():
            found = _read(line)
            if found:
                self.known[found["key"]] = found
        if whole and not whole.endswith(b"\n"):
            self.stream.write(b"\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.stream:
            self.stream.close()

    def answer(self, key: str) -> Answer | None:
        """Give an answer that is known."""
        line = self.known.get(key)
        return Answer(line["text"], line["whole"], line["tokens"]) if line else None

    def loss(self, key: str) -> tuple[int, float] | None:
        """Give targets and nats of a loss that is known."""
        line = self.known.get(key)
        return (line["targets"], line["nll"]) if line else None

    def add(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Write lines down, at once. Raises InputError where they cannot be written."""
        assert self.stream is not None  # noqa: S101 # opened by __enter__
        fresh = [dict(line) for line in lines]
        try:
            self.stream.write("".join(json.dumps(line) + "\n" for line in fresh).encode())
            self.stream.flush()
        except OSError as error:
            found = f"cannot be written ({error.strerror}); what was written before stays"
            raise InputError(f"{self.path}", found, "room on the disk") from error
        self.known |= {line["key"]: line for line in fresh}


def _read(line: bytes) -> dict[str, Any] | None:
    try:
        found: Any = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "key" in found else None


def answer_key(weights: str, prompt: Sequence[int], new_tokens: int, precision: str) -> str:
    """Digest what a greedy answer depends on."""
    return digest(["answer/1", weights, list(prompt), new_tokens, precision])


def loss_key(weights: str, example: Example, precision: str) -> str:
    """Digest what the loss of a record depends on."""
    return digest(["loss/1", weights, example.input_ids.tolist(), example.supervised.tolist(), precision])
