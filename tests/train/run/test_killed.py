"""A run that is killed by SIGKILL, wherever it is, goes on to the same weights, bit for bit, and the same metrics."""

import faulthandler
import multiprocessing
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.train.run.short_run import lines, same, weights_of
from train.run import loop
from train.run.parts import Run

DEADLINE_S = 60


def train_until_killed(run: Run, *, resume: bool) -> None:
    """Train in a process of its own, which says where it stands if it should hang."""
    faulthandler.dump_traceback_later(DEADLINE_S - 10, exit=True)
    loop.train(run, resume=resume)


@pytest.mark.parametrize(
    ("settings", "seed"),
    [
        ({"method": "full", "neftune": 5.0}, 1),
        ({"method": "lora", "lora_dropout": 0.2, "batch": 8, "micro_batch": 2}, 2),
        ({"method": "lora", "lora_dropout": 0.2, "neftune": 5.0, "micro_batch": 1, "batch": 8}, 3),
    ],
)
def test_killed_at_a_random_moment_and_resumed_gives_the_same_weights_and_metrics(
    tmp_path: Path, run_in: Callable[..., Run], settings: dict[str, Any], seed: int
) -> None:
    settings = {"max_steps": 30, **settings}
    whole = run_in(tmp_path / "whole", **settings)
    loop.train(whole, resume=False)
    draw = random.Random(seed)
    for part in range(3):  # killed, resumed and killed, resumed and killed
        killed = run_in(tmp_path / "killed", **settings)
        child = multiprocessing.get_context("fork").Process(
            target=train_until_killed, args=(killed,), kwargs={"resume": part > 0}, daemon=True
        )
        begun = len(killed.folder.metrics()) if part else 0
        child.start()
        until = time.monotonic() + DEADLINE_S
        while child.is_alive() and len(killed.folder.metrics()) < begun + 2 + draw.randrange(6):
            assert time.monotonic() < until
            time.sleep(0.001)
        time.sleep(draw.random() * 0.02)  # anywhere within a step, an evaluation, a checkpoint
        child.kill()
        child.join()
        child.close()
    resumed = run_in(tmp_path / "killed", **settings)
    loop.train(resumed, resume=True)
    assert same(weights_of(resumed), weights_of(whole))
    assert lines(resumed) == lines(whole)
