"""Runs of 12 steps that tests kill, resume and compare."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from train.run.checkpoint import Cursor, Identity
from train.run.parts import Run
from train.run.progress import Progress

IDENTITY = Identity("m" * 64, "v" * 64, "t" * 32, "p" * 32, "b" * 64, "k" * 32)


class KilledError(Exception):
    """Stands for a kill: nothing of the run gets to clean up."""


def weights_of(run: Run) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in run.trainee.trainable()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def timeless(cursor: Cursor) -> Cursor:
    return replace(cursor, seconds=0, wall=0, begun=0)


TIMES = {"tokens_per_s", "seconds", "memory_gb"}


def lines(run: Run) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in TIMES} for line in run.folder.metrics()]


def read_late(monkeypatch: pytest.MonkeyPatch, late: int) -> None:
    """Read what steps measured so many steps late, as on a GPU."""
    made = Progress.__init__

    def init(self: Progress, *arguments: Any) -> None:
        made(self, *arguments)
        self._late = late

    monkeypatch.setattr(Progress, "__init__", init)


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}
