"""The run folder: everything that a run leaves behind, each file written whole or not at all.

config.json       the resolved configuration                  run.json        what was trained on what, with versions
preflight.json    what was known before step 0                training.log    what was said, with the time
metrics.jsonl     a line per step, a line per evaluation      samples.jsonl   answers to prompts, at each evaluation
rejected.jsonl    records that were not trained on, and why   records.arrow   the loss of each record, before and after
spikes.jsonl      steps whose loss leapt, and their records   general.json    what was forgotten of a general set
checkpoints/      step-N: to go on from                       verdict.json    over-fitting, under-fitting, …: evidence
best/ final/      weights, tokenizer and model card           base/           the base model, where it is `tiny`
report.html       all of it as one page                       tensorboard/ trackio/   where a dashboard was asked for

A line of metrics.jsonl about a step has `step, epoch, loss, lr, grad_norm, tokens_per_s, tokens, seconds, memory_gb,
loss_by_source` (`tokens` and `seconds` since the start; `memory_gb` the most held so far, of the GPU or the process);
one about an evaluation `step, val_loss, val_perplexity, val_loss_by_source, val_perplexity_by_source`. Losses are in
nats per target. A line of samples.jsonl has `step, id, source, prompt, reference, answer, whole`. records.arrow has one
row per record: `id, source, split, n_target_tokens, loss_before, loss, seen` (losses are means; null where not
measured; `seen` is how often the run read it). spikes.jsonl: `step, loss, expected, records: [{id, source, loss}]`.
general.json: `reference, records, before, after`, each a `loss` and a `perplexity`, `se` of the change of the loss,
and `nll_before` of each record. verdict.json: `findings`, each with
`kind, level, found, evidence, advice`.
"""

import json
import os
import shutil
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from schemas.errors import ConfigError, InputError
from schemas.train_config import TrainConfig

FACTS = ("run_id", "dataset", "seq", "manifest", "model", "method", "identity", "versions", "ended")
"""What run.json has from its beginning, and others read."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run. Of several processes only the leader `writes`: what the others would write is dropped."""

    path: Path
    writes: bool = True

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        return self.path / "checkpoints"

    @property
    def base(self) -> Path:
        """Where the base model lies that was built for this run."""
        return self.path / "base"

    def holds_run(self) -> bool:
        """Whether a run was started here: it passed preflight. Raises ConfigError where nobody can look."""
        try:
            return (self.path / "run.json").is_file()
        except OSError as error:  # a name too long, or a folder of somebody else
            raise ConfigError(f"run {self.path}", error.strerror or str(error), "a folder that can be read") from error

    def finished(self) -> dict[str, Any]:
        """Give the facts of a finished run. Raises ConfigError where there is none, or it has not finished; InputError
        where its files are broken or its weights are gone."""
        if not self.holds_run():
            raise ConfigError(f"run {self.path}", "no run in this folder", "the folder of a finished run")
        facts = self.facts()
        if not facts.get("ended"):
            remedy = f"finish it with sft train --resume --out {self.path}"
            raise ConfigError(f"run {self.path}", "not finished", "a finished run", remedy)
        if not (self.path / "final").is_dir():
            raise InputError(f"run {self.path}", "its weights are gone (no folder final)", "a whole run folder")
        return facts

    def facts(self) -> dict[str, Any]:
        """Read run.json. Raises InputError where it is broken, or lacks what every run writes before step 0."""
        facts: Any = self.read_json("run.json")
        if lacking := [name for name in FACTS if not isinstance(facts, dict) or name not in facts]:
            found, expected = f"it has no {lacking[0]}", "the file that a run writes"
            raise InputError(f"{self.path / 'run.json'}", found, expected, "bring it back from a copy")
        return facts

    def settings(self) -> TrainConfig:
        """Read the settings of the run. Raises InputError where they are broken, or those of another release."""
        saved: Any = self.read_json("config.json")
        try:
            _dataset, settings = saved["dataset"], saved["train"]
            return TrainConfig.model_validate(settings)
        except (LookupError, TypeError, ValidationError) as error:
            said = " ".join(str(error).split("\n  For further")[0].split())[:300]
            found = f"no settings of this release ({type(error).__name__}: {said})"
            raise InputError(
                f"{self.path / 'config.json'}", found, "the file that a run of this release writes"
            ) from error

    def check_new(self) -> None:
        """Raise ConfigError where the folder holds a run, or files of somebody else."""
        if self.holds_run():
            raise ConfigError(
                f"--out {self.path}", "it already holds a run", "a new folder", "go on with --resume, or name another"
            )
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"--out {self.path}", "it is a file", "a new folder")
        # A run that ended before its first step leaves a log and more; all of that may be written over.
        foreign = self.path.exists() and any(self.path.iterdir()) and not (self.path / "training.log").exists()
        if foreign:
            raise ConfigError(f"--out {self.path}", "the folder holds other files", "a new or empty folder")

    def claim(self) -> None:
        """Make the folder for a new run. Raises ConfigError where it holds a run, or files of somebody else."""
        if not self.writes:
            return
        self.check_new()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--out {self.path}", error.strerror or str(error), "a folder to write to") from error
        for left in (self.base, self.path / "tensorboard", self.path / "trackio"):
            shutil.rmtree(left, ignore_errors=True)
        for name in ("metrics.jsonl", "training.log", "rejected.jsonl"):
            (self.path / name).write_text("")
        # What a run leaves before step 0, and would take for its own.
        for name in ("samples.jsonl", "spikes.jsonl", "general.json", "loss_before.arrow"):
            (self.path / name).unlink(missing_ok=True)

    def release(self) -> None:
        """Give up a run that made no step: its files stay to be read, and the next start may write over them."""
        if self.writes:
            (self.path / "run.json").unlink(missing_ok=True)

    def log(self, line: str) -> None:
        """Append a line to training.log, with the time."""
        if not self.writes:
            return
        with (self.path / "training.log").open("a", encoding="utf-8") as stream:
            stream.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}\n")

    def append(self, name: str, values: dict[str, Any]) -> None:
        """Append a line to a file of JSON lines."""
        if not self.writes:
            return
        with (self.path / name).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(values, ensure_ascii=False) + "\n")

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Read a file of JSON lines; a last line that a crash cut short is left out, and no file is no line."""
        file = self.path / name
        found: list[dict[str, Any]] = []
        for line in file.read_text(encoding="utf-8").split("\n")[:-1] if file.is_file() else []:
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return found

    def metric(self, values: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        self.append("metrics.jsonl", values)

    def metrics(self) -> list[dict[str, Any]]:
        """Read metrics.jsonl."""
        return self.lines("metrics.jsonl")

    def rewind(self, step: int, *, evaluated: bool = True) -> None:
        """Drop what was written of later steps, which will be made again; unless `evaluated`, also the evaluation after
        `step` itself."""
        if not self.writes:
            return
        for name in ("metrics.jsonl", "samples.jsonl", "spikes.jsonl"):
            found = self.lines(name)
            kept = [
                line
                for line in found
                if line["step"] < step
                or (line["step"] == step and (evaluated or (name != "samples.jsonl" and "val_loss" not in line)))
            ]
            if found or (self.path / name).is_file():
                _write(self.path / name, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept))

    def write_json(self, name: str, value: object) -> None:
        """Write a JSON file, whole or not at all."""
        if not self.writes:
            return
        _write(self.path / name, json.dumps(value, indent=1, ensure_ascii=False) + "\n")

    def write_jsonl(self, name: str, values: Iterable[object]) -> None:
        """Write a file of one JSON value per line, whole or not at all."""
        if not self.writes:
            return
        _write(self.path / name, "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values))

    def read_json(self, name: str) -> Any:
        """Read a JSON file. Raises InputError where it is absent or broken."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.path / name}", f"cannot be read ({error})", "the file that a run writes"
            ) from error


@contextmanager
def whole_folder(path: Path) -> Generator[Path]:
    """Give a temporary folder that takes the place of `path` once it is complete and on the disk."""
    temporary = path.with_name(f".{path.name}.tmp")
    old = path.with_name(f".{path.name}.old")
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _fsync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def whole_file(path: Path) -> Generator[Path]:
    """Give a temporary file that takes the place of `path` once it is complete and on the disk."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _fsync(path.parent)


def _write(path: Path, text: str) -> None:
    with whole_file(path) as place:
        place.write_text(text, encoding="utf-8")


def _fsync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
