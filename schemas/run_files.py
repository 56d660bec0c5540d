"""The files that a run leaves, read by whoever judges or shows it: what is broken is named, and all else is read.

train/run/folder.py says what each file holds. A run that still goes on, or was killed, has fewer of them, and its last
line may be cut short. Nothing here raises for what a file says.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RECORDS = pl.Schema(
    {
        "id": pl.String,
        "source": pl.String,
        "split": pl.String,
        "n_target_tokens": pl.Int64,
        "loss_before": pl.Float64,
        "loss": pl.Float64,
        "seen": pl.Int64,
    }
)
"""Columns of records.arrow; one that a file lacks is null in all its rows."""

STEP_NUMBERS = ("epoch", "loss", "lr", "grad_norm", "tokens_per_s", "tokens", "seconds", "memory_gb")
_MUST = ("run.json", "config.json", "metrics.jsonl")


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Values by step, in the order of the steps; all are finite."""

    step: Floats
    value: Floats

    def __len__(self) -> int:
        return len(self.step)

    def at(self, step: float) -> float:
        """Give the value at a step, on the line between its neighbours."""
        return float(np.interp(step, self.step, self.value))


@dataclass(frozen=True, slots=True)
class Sample:
    """An answer to a prompt at a step. `whole`: the model ended it by itself."""

    step: int
    id: str
    source: str
    prompt: str
    reference: str
    answer: str
    whole: bool


@dataclass(frozen=True, slots=True)
class SpikeRecord:
    """A record of a step whose loss leapt."""

    id: str
    source: str
    loss: float | None


@dataclass(frozen=True, slots=True)
class Spike:
    """A step whose loss leapt: what it was, what was expected, and its records, the worst first."""

    step: int
    loss: float | None
    expected: float | None
    records: tuple[SpikeRecord, ...]


@dataclass(frozen=True, slots=True)
class General:
    """A general set, scored before and after the run: losses in nats per target. `se` is of the change, if known."""

    reference: str
    records: int
    before: float
    after: float
    se: float | None


@dataclass(frozen=True, eq=False)
class RunFiles:
    """What the files of a run folder say.

    `steps` and `evaluations`: curves by name and by source. `skipped`: steps whose fp16 gradients overflowed.
    `not_finite`: steps whose loss is infinite or no number; `val_not_finite`: evaluations. `problems`: what is missing
    or cannot be read.
    """

    path: Path
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    preflight: Mapping[str, Any] = field(default_factory=dict[str, Any])
    steps: Mapping[str, Curve] = field(default_factory=dict[str, Curve])
    train_by_source: Mapping[str, Curve] = field(default_factory=dict[str, Curve])
    evaluations: Curve = field(default_factory=lambda: curve(()))
    val_by_source: Mapping[str, Curve] = field(default_factory=dict[str, Curve])
    skipped: tuple[int, ...] = ()
    not_finite: tuple[int, ...] = ()
    val_not_finite: tuple[int, ...] = ()
    records: pl.DataFrame | None = None
    rejected: tuple[Mapping[str, str], ...] = ()
    samples: tuple[Sample, ...] = ()
    spikes: tuple[Spike, ...] = ()
    general: General | None = None
    problems: tuple[str, ...] = ()

    @property
    def settings(self) -> Mapping[str, Any]:
        """The trainer's settings, with what became of those that were left open."""
        return {**_mapping(self.config.get("train")), **_mapping(self.facts.get("settled"))}

    @property
    def ended(self) -> bool:
        """Whether the run came to its end, early stopping and a spent budget included."""
        return bool(self.facts.get("ended"))

    @property
    def resumable(self) -> bool:
        """Whether there is something to go on with: a run that never passed its preflight has no run.json."""
        return bool(self.facts) and not self.ended

    def curve(self, name: str) -> Curve:
        """Give a curve of the steps; an empty one where it was not measured."""
        return self.steps.get(name) or curve(())


def curve(points: Any) -> Curve:
    """Make a curve of (step, value) pairs: in order, the last value of each step, without what is not finite."""
    kept = {int(step): value for step, value in points if math.isfinite(value)}
    order = sorted(kept)
    return Curve(np.array(order, dtype=np.float64), np.array([kept[step] for step in order], dtype=np.float64))


def read_run(path: Path) -> RunFiles:
    """Read the files of a run folder. What is missing or broken is listed in `problems`."""
    reader = _Reader(path)
    metrics = list(reader.lines("metrics.jsonl"))
    facts, config = reader.object("run.json"), reader.object("config.json")
    for name in _MUST:
        if not (path / name).is_file():
            reader.problems.append(f"{name} is missing")
    done, settings = bool(facts.get("ended")), _mapping(config.get("train"))
    expected = {
        "records.arrow": done,
        "samples.jsonl": done and bool(settings.get("samples")),
        "general.json": done and bool(settings.get("general")),
    }
    reader.problems += [f"{name} is missing" for name, due in expected.items() if due and not (path / name).is_file()]
    return RunFiles(
        path=path,
        config=config,
        facts=facts,
        preflight=reader.object("preflight.json") or _mapping(facts.get("preflight")),
        records=reader.records(),
        rejected=tuple(
            {k: _text(line.get(k)) for k in ("split", "id", "source", "reason", "detail")}
            for line in reader.lines("rejected.jsonl")
        ),
        samples=tuple(_sample(line) for line in reader.lines("samples.jsonl")),
        spikes=tuple(_spike(line) for line in reader.lines("spikes.jsonl")),
        general=_general(reader.object("general.json")),
        **_curves(metrics),
        problems=tuple(reader.problems),
    )


class _Reader:
    """Reads files of one folder, and remembers what was wrong with them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []

    def _bytes(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            self.problems.append(f"{name} cannot be read ({error.strerror or error})")
            return b""

    def object(self, name: str) -> dict[str, Any]:
        """Read a JSON object; an empty one where there is none."""
        held = self._bytes(name)
        if not held:
            return {}
        try:
            found = json.loads(held)
        except (ValueError, RecursionError):
            self.problems.append(f"{name} is not JSON")
            return {}
        if not isinstance(found, dict):
            self.problems.append(f"{name} holds no JSON object")
            return {}
        return found  # pyright: ignore[reportUnknownVariableType] # JSON

    def lines(self, name: str) -> Iterator[Mapping[str, Any]]:
        """Read a JSON object from each line; a last line that is still being written is left out without a word."""
        held = self._bytes(name)
        whole = held.endswith(b"\n")
        parts = held.splitlines()
        broken = 0
        for number, line in enumerate(parts):
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                found = None
            if isinstance(found, dict):
                yield found
            elif line.strip() and (whole or number + 1 < len(parts)):
                broken += 1
        if broken:
            self.problems.append(
                f"{name} has {broken:,} lines that cannot be read"
                if broken > 1
                else f"{name} has a line that cannot be read"
            )

    def records(self) -> pl.DataFrame | None:
        """Read records.arrow into memory; None where there is none."""
        file = self.path / "records.arrow"
        if not file.is_file():
            return None
        try:
            found = pl.read_ipc(file)
            columns = [
                (pl.col(name) if name in found.columns else pl.lit(None)).cast(dtype).alias(name)
                for name, dtype in RECORDS.items()
            ]
            kept = found.select(columns)
        except (OSError, pl.exceptions.PolarsError) as error:
            self.problems.append(f"records.arrow cannot be read ({str(error).splitlines()[0][:120]})")
            return None
        losses = (pl.when(pl.col(n).is_finite()).then(pl.col(n)).alias(n) for n in ("loss_before", "loss"))
        return kept.with_columns(*losses, pl.col("id", "source", "split").fill_null(""))


def _curves(lines: list[Mapping[str, Any]]) -> dict[str, Any]:
    steps: dict[str, list[tuple[int, float]]] = {name: [] for name in STEP_NUMBERS}
    train: dict[str, list[tuple[int, float]]] = {}
    val: list[tuple[int, float]] = []
    val_sources: dict[str, list[tuple[int, float]]] = {}
    skipped: list[int] = []
    broken: list[int] = []
    val_broken: list[int] = []
    for line in lines:
        number = _number(line.get("step"))
        if not math.isfinite(number):
            continue
        step = int(number)
        if "val_loss" in line:
            value = _number(line["val_loss"])
            val.append((step, value))
            for source, found in _mapping(line.get("val_loss_by_source")).items():
                val_sources.setdefault(source, []).append((step, _number(found)))
            if not math.isfinite(value):
                val_broken.append(step)
        if "loss" in line:
            for name in STEP_NUMBERS:
                if name in line:
                    steps[name].append((step, _number(line[name])))
            for source, found in _mapping(line.get("loss_by_source")).items():
                train.setdefault(source, []).append((step, _number(found)))
            if not math.isfinite(_number(line["loss"])):
                broken.append(step)
            elif "grad_norm" in line and line["grad_norm"] is None:
                skipped.append(step)
    return {
        "steps": {name: made for name, points in steps.items() if len(made := curve(points))},
        "train_by_source": {source: made for source, points in sorted(train.items()) if len(made := curve(points))},
        "evaluations": curve(val),
        "val_by_source": {source: made for source, points in sorted(val_sources.items()) if len(made := curve(points))},
        "skipped": tuple(skipped),
        "not_finite": tuple(broken),
        "val_not_finite": tuple(val_broken),
    }


def _sample(line: Mapping[str, Any]) -> Sample:
    step = _number(line.get("step"))
    return Sample(
        step=int(step) if math.isfinite(step) else 0,
        id=_text(line.get("id")),
        source=_text(line.get("source")),
        prompt=_text(line.get("prompt")),
        reference=_text(line.get("reference")),
        answer=_text(line.get("answer")),
        whole=bool(line.get("whole", True)),
    )


def _spike(line: Mapping[str, Any]) -> Spike:
    step = _number(line.get("step"))
    listed = line.get("records")
    held = [_mapping(one) for one in listed] if isinstance(listed, list) else []  # pyright: ignore[reportUnknownVariableType] # JSON
    records = [SpikeRecord(_text(one.get("id")), _text(one.get("source")), _known(one.get("loss"))) for one in held]
    worst = sorted(records, key=lambda record: -(record.loss if record.loss is not None else -math.inf))
    return Spike(
        int(step) if math.isfinite(step) else 0, _known(line.get("loss")), _known(line.get("expected")), tuple(worst)
    )


def _general(found: Mapping[str, Any]) -> General | None:
    before, after = (_number(_mapping(found.get(when)).get("loss")) for when in ("before", "after"))
    if not math.isfinite(before + after):
        return None
    count = _number(found.get("records"))
    records = int(count) if math.isfinite(count) else 0
    return General(_text(found.get("reference")), records, before, after, _known(found.get("se")))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType] # JSON


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _number(value: Any) -> float:
    """Give a JSON number as a float; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _known(value: Any) -> float | None:
    number = _number(value)
    return number if math.isfinite(number) else None
