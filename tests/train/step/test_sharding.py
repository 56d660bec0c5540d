"""Two processes that share out a model train as one does: losses, gradients' norms, and final weights."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from schemas.errors import ConfigError
from schemas.train_config import TrainConfig
from tests.train.step.share import KINDS, trained
from train.step import processes, sharding

TOLERANCE = 1e-5
"""Relative. The order of sums is all that differs."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two gloo processes found, a file for each kind."""
    place = tmp_path_factory.mktemp("shared")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "tests.train.step.share", str(place)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return place


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_give_the_losses_norms_and_weights_of_one(shared: Path, kind: str) -> None:
    found, expected = load_file(shared / f"{kind}.safetensors"), trained(kind)
    assert found.pop("idle") > 0, "no process was ever without rows: the case does not test that"
    assert expected.pop("idle") == 0
    assert found.pop("elsewhere") == expected.pop("elsewhere") == 0, "only the leader has room for whole weights"
    found.pop("early", None)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        difference = (found[name] - tensor).norm() / tensor.norm().clamp_min(1e-12)
        assert difference <= TOLERANCE, name


def test_nobody_leaves_a_checkpoint_that_the_leader_still_writes(shared: Path) -> None:
    assert load_file(shared / "full.safetensors")["early"] == 0


def test_a_process_that_fails_is_waited_for_until_it_has_told_why(shared: Path) -> None:
    assert (shared / "1.txt").read_text() == "2 joined; ConfigError: the second process: an error of its own"
    left = (shared / "0.txt").read_text()
    assert left.startswith("2 joined; CheckFailedError: process 0 of 2: another process of this run has ended")


@pytest.mark.parametrize(
    "settings", [{"method": "qlora"}, {"optimizer": "adamw8bit"}, {"precision": "fp16"}, {"dora": True}]
)
def test_what_was_not_shown_to_be_exact_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="several processes"):
        sharding.check(TrainConfig.model_validate({"model": "small", **settings}))


def test_a_world_without_torchrun_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match="RANK is not set"):
        processes.asked()


def test_one_process_shares_nothing_out() -> None:
    with processes.together(cuda=False):
        assert (processes.ranks(), processes.rank(), processes.leads()) == (1, 0, True)
        numbers = torch.ones(3)
        assert processes.add_up(numbers) is numbers
        assert processes.any_of(said=True)
        assert processes.of_leader(0.5) == 0.5
