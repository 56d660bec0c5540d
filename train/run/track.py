"""The lines of metrics.jsonl for a dashboard: TensorBoard or trackio, in the run folder.

    run/tensorboard/   tensorboard --logdir RUN/tensorboard
    run/trackio/       TRACKIO_DIR=RUN/trackio trackio show

metrics.jsonl is what was measured, and a dashboard's files a copy of it: a run that begins or goes on writes them anew
from its lines, so no point is there twice. Everything stays in the folder: no account, no network, no server. Neither
library is imported before it is asked for.
"""

import importlib
import importlib.util
import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from schemas.errors import ConfigError
from schemas.train_config import Tracker as Kind
from train.run.folder import RunFolder

NAMES = {
    "loss": "train/loss",
    "lr": "train/lr",
    "grad_norm": "train/grad_norm",
    "tokens_per_s": "speed/tokens_per_s",
    "memory_gb": "memory/gb",
    "epoch": "train/epoch",
    "val_loss": "val/loss",
    "val_perplexity": "val/perplexity",
    "loss_by_source": "train_loss_by_source",
    "val_loss_by_source": "val_loss_by_source",
    "val_perplexity_by_source": "val_perplexity_by_source",
}
"""What a dashboard calls the values of a line; a mapping by source becomes one curve per source."""

BUFFERED = 100
"""Points that trackio's database gets at once: a commit for each would take longer than a small step."""


class Tracker(Protocol):
    """A dashboard's files."""

    def begin(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Start the files anew, with the lines that were written so far."""
        ...

    def write(self, line: Mapping[str, Any]) -> None:
        """Add a line of metrics."""
        ...

    def close(self) -> None:
        """Write what is still waiting."""
        ...


def trackers(kinds: Sequence[Kind], folder: RunFolder, run_id: str, config: Mapping[str, Any]) -> tuple[Tracker, ...]:
    """Make the trackers that were asked for, each once."""
    made: dict[str, Tracker] = {}
    for kind in kinds:
        made[kind] = TensorBoard(folder.path) if kind == "tensorboard" else Trackio(folder.path, run_id, config)
    return tuple(made.values())


def check(kinds: Sequence[Kind]) -> None:
    """Raise ConfigError for a dashboard that is not installed, before anything is trained."""
    for kind in kinds:
        if importlib.util.find_spec(kind) is None:
            raise ConfigError(
                f"--track {kind}",
                f"{kind} is not installed",
                "the track extra",
                "install it: pip install 'sft-toolkit[track]'",
            )


def scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """Give the values of a line of metrics by the names of a dashboard; what is not a number is left out."""
    found: dict[str, float] = {}
    for name, value in line.items():
        shown = NAMES.get(name)
        if shown is None:
            continue
        by_source: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
        found |= {f"{shown}/{source}": float(each) for source, each in by_source.items() if each is not None}
        if isinstance(value, int | float):
            found[shown] = float(value)
    return found


class TensorBoard:
    """Event files of TensorBoard."""

    def __init__(self, run: Path) -> None:
        self._folder = run / "tensorboard"
        self._writer: Any = None

    def begin(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Start the files anew."""
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        from torch.utils.tensorboard.writer import SummaryWriter  # noqa: PLC0415 # two seconds, and only for this

        self._writer = SummaryWriter(str(self._folder))
        for line in lines:
            self.write(line)

    def write(self, line: Mapping[str, Any]) -> None:
        """Add a line of metrics."""
        for name, value in scalars(line).items():
            self._writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        """Write what is still waiting."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Trackio:
    """trackio's database, written by its storage alone: its `init` would look for a server, a Space, a browser."""

    def __init__(self, run: Path, run_id: str, config: Mapping[str, Any]) -> None:
        self._folder, self._run_id, self._config = run / "trackio", run_id, dict(config)
        self._waiting: list[tuple[int, dict[str, float]]] = []

    def begin(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Start the database anew."""
        self._waiting = [(line["step"], scalars(line)) for line in lines]
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._flush()

    def write(self, line: Mapping[str, Any]) -> None:
        """Add a line of metrics."""
        self._waiting.append((line["step"], scalars(line)))
        if len(self._waiting) >= BUFFERED:
            self._flush()

    def close(self) -> None:
        """Write what is still waiting."""
        self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        storage: Any = _storage_in(self._folder)
        storage.SQLiteStorage.bulk_log(
            project=PROJECT,
            run=self._run_id,
            run_id=self._run_id,
            metrics_list=[values for _, values in self._waiting],
            steps=[step for step, _ in self._waiting],
            config=self._config,
        )
        self._waiting.clear()


PROJECT = "sft"
"""trackio's name for what a database holds."""


def _storage_in(folder: Path) -> ModuleType:
    """Give trackio's storage, writing to `folder`.

    It reads TRACKIO_DIR when it is imported, which may have been for another run of this process: what it read is
    replaced in the modules that use it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a library's own imports
        storage = importlib.import_module("trackio.sqlite_storage")
    for name in ("trackio.utils", "trackio.sqlite_storage"):
        setattr(sys.modules[name], "TRACKIO_DIR", folder)  # noqa: B010 # no attribute that a module type declares
    return storage
