"""A checkpoint is taken as it was written, or not at all."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch.amp.grad_scaler import GradScaler

from schemas.errors import ConfigError, InputError
from schemas.train_config import TrainConfig
from tests.train.world import small_llama
from train.model.trainee import Trainee
from train.run import checkpoint
from train.run.checkpoint import Cursor, Identity
from train.step.optimizer import Updater

IDENTITY = Identity("m" * 64, "v" * 64, "t" * 32, "p" * 32, "b" * 64, "k" * 32)
FILES = ["weights.safetensors", "optimizer.safetensors", "random.safetensors", "state.json"]


class State:
    """A trainee with an optimizer, some steps on."""

    def __init__(self, trainee: Trainee, folder: Path) -> None:
        self.trainee, self.folder = trainee, folder
        self.updater = Updater(trainee.trainable(), TrainConfig(lr=0.01), scaler=GradScaler("cpu", enabled=False))
        self.said: list[str] = []

    def save(self, step: int) -> Path:
        for _, p in self.trainee.trainable():
            p.grad = torch.full_like(p, float(step))
        self.updater.step(0.01, torch.tensor(1.0))
        kept = {"trainee": self.trainee, "updater": self.updater}
        return checkpoint.save(self.folder, Cursor(step=step), IDENTITY, **kept)

    def resume(self, identity: Identity = IDENTITY) -> Cursor | None:
        return checkpoint.resume(self.folder, identity, self.trainee, self.updater, self.said.append)

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: p.detach().clone() for name, p in self.trainee.trainable()}


@pytest.fixture
def state(trainee_of: Callable[..., Trainee], tmp_path: Path) -> State:
    return State(trainee_of(method="full"), tmp_path)


def flip(file: Path) -> None:
    held = bytearray(file.read_bytes())
    held[len(held) // 2] ^= 1
    file.write_bytes(held)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["changed", "truncated", "missing"])
def test_a_file_that_is_not_what_was_written_is_named_and_the_checkpoint_before_it_is_taken(
    state: State, name: str, harm: str
) -> None:
    state.save(2)
    expected = state.weights()
    file = state.save(4) / name
    if harm == "missing":
        file.unlink()
    elif harm == "truncated":
        file.write_bytes(file.read_bytes()[:-7])
    else:
        flip(file)
    cursor = state.resume()
    assert cursor == Cursor(step=2)
    assert all(torch.equal(p, expected[weight]) for weight, p in state.trainee.trainable())
    (said,) = state.said
    assert name in said
    assert "going on from step-2" in said
    assert checkpoint.steps(state.folder) == [2]
    assert (state.folder / "step-4.broken").is_dir()


def test_8_bit_moments_go_on_bit_for_bit(trainee_of: Callable[..., Trainee], tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")

    def begun(folder: str) -> State:
        made = State(trainee_of(small_llama(300), method="full"), tmp_path / folder)
        config = TrainConfig(lr=0.01, optimizer="adamw8bit")
        made.updater = Updater(made.trainee.trainable(), config, scaler=GradScaler("cpu", enabled=False))
        return made

    whole = begun("a")
    for step in (1, 2, 3):
        whole.save(step)
    begun("b").save(1)
    resumed = begun("b")
    assert resumed.resume() == Cursor(step=1)
    held = [v for state in resumed.updater.optimizer.state.values() for v in state.values()]
    assert torch.uint8 in {v.dtype for v in held if isinstance(v, torch.Tensor)}, "none of the weights is large enough"
    for step in (2, 3):
        resumed.save(step)
    expected = whole.weights()
    assert all(torch.equal(weight, expected[name]) for name, weight in resumed.weights().items())


def test_where_no_checkpoint_is_whole_the_last_is_named_with_the_way_out_and_nothing_is_changed(state: State) -> None:
    flip(state.save(2) / "weights.safetensors")
    flip(state.save(4) / "optimizer.safetensors")
    before = state.weights()
    with pytest.raises(InputError, match=r"step-4: optimizer\.safetensors is not what was written.*remove this folder"):
        state.resume()
    assert all(torch.equal(p, before[name]) for name, p in state.trainee.trainable())
    assert checkpoint.steps(state.folder) == [2, 4]


def test_a_cursor_that_somebody_moved_is_seen(state: State) -> None:
    file = state.save(2) / "state.json"
    held = json.loads(file.read_text())
    held["cursor"]["step"] = 1
    file.write_text(json.dumps(held))
    with pytest.raises(InputError, match=r"state\.json is not what was written"):
        state.resume()


@pytest.mark.parametrize("field", list(checkpoint.NAMES))
def test_a_checkpoint_of_another_run_is_refused_saying_what_differs(state: State, field: str) -> None:
    state.save(2)
    wanted = Identity(**{**asdict(IDENTITY), field: "other"})
    with pytest.raises(
        ConfigError, match=rf"{re.escape(checkpoint.NAMES[field])}.* in the checkpoint and is other now"
    ):
        state.resume(wanted)


def test_a_checkpoint_from_before_hashes_and_new_fields_is_still_taken(state: State) -> None:
    file = state.save(2) / "state.json"
    held = json.loads(file.read_text())
    for name in ("sha256", "files", "optimizer"):
        del held[name]
    for name in ("replay", "general"):
        del held["identity"][name]
    held["cursor"] = {"step": 2, "tokens": 10, "best_loss": None}
    file.write_text(json.dumps(held))
    assert state.resume() == Cursor(step=2, tokens=10)


def test_no_checkpoint_is_no_cursor(state: State) -> None:
    assert state.resume() is None
    state.save(2)
    shutil.rmtree(state.folder / "step-2")
    assert state.resume() is None


OWN_PICKLE = "pickle.loads(pickled)  # noqa: S301 # what the parent wrote, where nobody else can"
"""The tokenizer on its way to the processes that tokenise: never a file that anybody else could have written."""


def test_nothing_in_the_trainer_unpickles() -> None:
    for file in Path(checkpoint.__file__).parents[1].rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert "torch.load(" not in text, file
        assert "pickle.load" not in text.replace(OWN_PICKLE, ""), file
