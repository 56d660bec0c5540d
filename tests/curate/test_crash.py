"""A process killed anywhere leaves the store at the old version or the new one; the same command then goes on."""

import random
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest

from curate.store import Store
from schemas.dataset import open_dataset
from tests.curate.crashing import Job, Jobs
from tests.curate.killing import GRACE_S, Step, age, killed, lived

STEPS = ["ingest", "ingest again", "recipe", "tag", "register", "replace", "gc"]


@pytest.fixture(scope="module")
def jobs() -> Generator[Jobs]:
    with Jobs() as running:
        yield running


@pytest.fixture(scope="module")
def steps(jobs: Jobs, tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    return lived(jobs, tmp_path_factory.mktemp("life"))


def test_the_undisturbed_life_is_what_the_kills_are_about(steps: list[Step]) -> None:
    """Otherwise the tests below could pass for nothing: each step changes the store, and touches it often."""
    assert len(steps) == len(STEPS)
    assert all(step.done.calls > 5 for step in steps)
    assert steps[-1].done.value > 5  # gc has something to remove
    assert open_dataset("d@golden", steps[-1].after).manifest.seq == 3
    assert open_dataset("d", steps[-1].after).manifest.seq == 4


@pytest.mark.parametrize("step", range(len(STEPS)), ids=STEPS)
def test_killed_at_a_call_it_is_old_or_new_and_again_it_is_the_same(
    jobs: Jobs, steps: list[Step], tmp_path: Path, step: int
) -> None:
    """At two calls of each step, drawn by a fixed seed; `python -m bench.crash` kills at hundreds."""
    draw = random.Random(step)
    for at in sorted(draw.sample(range(1, steps[step].done.calls + 1), 2)):
        assert killed(jobs, steps[step], tmp_path / "store", at=at).problems == ()


@pytest.mark.parametrize("step", [1, 2, 5, 6], ids=[STEPS[n] for n in (1, 2, 5, 6)])
def test_killed_at_any_time_it_is_old_or_new_and_again_it_is_the_same(
    jobs: Jobs, steps: list[Step], tmp_path: Path, step: int
) -> None:
    after = random.Random(step).uniform(0, steps[step].done.seconds)
    assert killed(jobs, steps[step], tmp_path / "store", after=after).problems == ()


def test_the_last_call_of_a_commit_is_after_it(jobs: Jobs, steps: list[Step], tmp_path: Path) -> None:
    """Both outcomes occur: killed at its first call an ingest has not happened, at its last one it has."""
    for at, versions in ((1, 1), (steps[1].done.calls, 2)):
        root = tmp_path / str(at)
        shutil.copytree(steps[1].before, root)
        [died] = jobs.run(Job(str(root), "ingest", steps[1].job.given, at=at))
        assert died.killed
        assert open_dataset("d", root).manifest.seq == versions


def test_what_a_kill_leaves_over_goes_with_gc_after_the_grace_period(
    jobs: Jobs, steps: list[Step], tmp_path: Path
) -> None:
    root = tmp_path / "store"
    left = 0
    for at in range(20, steps[1].done.calls, 12):
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(steps[1].before, root)
        jobs.run(Job(str(root), "ingest", steps[1].job.given, at=at))
        left = max(left, len(list((root / "tmp").iterdir())))
        store = Store(root)
        assert store.garbage().paths == ()  # it may belong to somebody who is still at work
        age(root)
        store.remove(store.garbage(GRACE_S))
        assert list((root / "tmp").iterdir()) == []
    assert left > 0
