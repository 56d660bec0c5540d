"""A dashboard's files hold what metrics.jsonl holds, each point once."""

import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from schemas.errors import ConfigError
from train.run import track
from train.run.folder import RunFolder
from train.run.track import check, scalars, trackers

LINES: list[dict[str, Any]] = [
    {"step": 0, "val_loss": 3.0, "val_perplexity": 20.1, "val_loss_by_source": {"a": 2.5, "b": 3.5}},
    {"step": 1, "epoch": 0, "loss": 2.0, "lr": 1e-4, "grad_norm": None, "tokens_per_s": 900.0, "tokens": 50,
     "memory_gb": 1.5, "loss_by_source": {"a": 2.0}},
    {"step": 2, "epoch": 0, "loss": 1.5, "lr": 2e-4, "grad_norm": 0.5, "tokens_per_s": 950.0, "tokens": 99,
     "memory_gb": 1.5, "loss_by_source": {"a": 1.5}},
]  # fmt: skip
"""A line of an evaluation, one of a step that overflowed, one of a step."""


def expected(lines: list[dict[str, Any]]) -> Counter[tuple[str, int, float]]:
    return Counter((name, line["step"], round(value, 6)) for line in lines for name, value in scalars(line).items())


def in_tensorboard(run: Path) -> Counter[tuple[str, int, float]]:
    found: Counter[tuple[str, int, float]] = Counter()
    for file in (run / "tensorboard").iterdir():
        events: Any = EventAccumulator(str(file))
        events.Reload()
        for name in events.Tags()["scalars"]:
            found.update((name, event.step, round(event.value, 6)) for event in events.Scalars(name))
    return found


def in_trackio(run: Path) -> Counter[tuple[str, int, float]]:
    connection = sqlite3.connect(run / "trackio" / f"{track.PROJECT}.db")
    rows = connection.execute("SELECT run_name, step, metrics FROM metrics").fetchall()
    connection.close()
    assert {name for name, *_ in rows} == {"run-1"}
    return Counter((n, step, round(v, 6)) for _, step, values in rows for n, v in orjson.loads(values).items())


READ = {"tensorboard": in_tensorboard, "trackio": in_trackio}


@pytest.mark.parametrize("kind", ["tensorboard", "trackio"])
def test_every_value_is_there_once_also_when_the_run_was_resumed(tmp_path: Path, kind: Any) -> None:
    for part in (LINES, LINES[2:]):  # a run, and one that goes on after its first step
        (tracker,) = trackers([kind, kind], RunFolder(tmp_path), "run-1", {"lr": 1e-4})
        tracker.begin(LINES[: len(LINES) - len(part)])
        for line in part:
            tracker.write(line)
        tracker.close()
    assert READ[kind](tmp_path) == expected(LINES)
    assert [p.name for p in tmp_path.iterdir()] == [kind]


def test_two_runs_of_one_process_write_to_their_own_folders(tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        (tracker,) = trackers(["trackio"], RunFolder(tmp_path / name), "run-1", {})
        tracker.begin([])
        made.append(tracker)
    for tracker, line in zip(made, LINES, strict=False):
        tracker.write(line)
        tracker.close()
    assert in_trackio(tmp_path / "one") == expected(LINES[:1])
    assert in_trackio(tmp_path / "two") == expected(LINES[1:2])


def test_a_dashboard_that_is_not_installed_is_one_line_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    check(["tensorboard", "trackio"])
    monkeypatch.setattr(track.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"trackio is not installed.*pip install 'sft-toolkit\[track\]'"):
        check(["trackio"])


def test_names_are_those_of_the_values_and_what_is_no_number_is_left_out() -> None:
    assert scalars(LINES[1]) == {
        "train/epoch": 0.0, "train/loss": 2.0, "train/lr": 1e-4, "speed/tokens_per_s": 900.0, "memory/gb": 1.5,
        "train_loss_by_source/a": 2.0,
    }  # fmt: skip
