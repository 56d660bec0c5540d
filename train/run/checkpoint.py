"""Checkpoints: all that a run needs to go on as if it had never stopped, and the identity that it must go on with.

    checkpoints/step-40/
        weights.safetensors      the trainable weights, by name
        optimizer.safetensors    AdamW's moments, by weight and name
        random.safetensors       the state of torch's generators
        state.json               the cursor (steps done, best loss so far, …) and the identity of the run

The learning rate is a function of the step and the plan a function of its inputs, so neither has a state to save. A
checkpoint is written beside its place and renamed into it; the last two are kept. Nothing is pickled.
"""

import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from schemas.errors import ConfigError, InputError
from train.model.load import Trainee
from train.run.folder import whole_folder

KEPT = 2
"""One to go on from, and one more should the disk have lost the last."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a run must share with its checkpoint: dataset, template, plan, weights, tokenizer. All are digests."""

    manifest: str
    train_visible: str
    template: str
    plan: str
    base: str
    tokenizer: str = ""  # runs from before it was recorded


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a run has come. `stale`: evaluations since the validation loss last fell."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    first_loss: float | None = None
    last_loss: float | None = None
    best_loss: float | None = None
    best_step: int | None = None
    stale: int = 0
    stopped: bool = False


def save(
    folder: Path,
    cursor: Cursor,
    identity: Identity,
    *,
    trainee: Trainee,
    optimizer: torch.optim.Optimizer,
    scaler: GradScaler,
) -> Path:
    """Write the checkpoint of `cursor.step`, then drop all but the last two. Gives its folder."""
    path = folder / f"step-{cursor.step}"
    with whole_folder(path) as place:
        save_file({name: p.detach().contiguous() for name, p in trainee.trainable()}, place / "weights.safetensors")
        moments = {
            f"{i}.{name}": value.contiguous()
            for i, state in optimizer.state_dict()["state"].items()
            for name, value in state.items()
        }
        save_file(moments, place / "optimizer.safetensors")
        save_file(_random_state(trainee), place / "random.safetensors")
        state = {"cursor": asdict(cursor), "identity": asdict(identity), "scaler": scaler.state_dict()}
        (place / "state.json").write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    for old in steps(folder)[:-KEPT]:
        shutil.rmtree(folder / f"step-{old}")
    return path


def steps(folder: Path) -> list[int]:
    """List the steps that have a checkpoint, in order."""
    names = (p.name.removeprefix("step-") for p in folder.glob("step-*"))
    return sorted(int(name) for name in names if name.isdecimal())


def latest(folder: Path) -> Path | None:
    """Give the last checkpoint, or None where there is none."""
    found = steps(folder)
    return folder / f"step-{found[-1]}" if found else None


def load(
    path: Path, identity: Identity, trainee: Trainee, optimizer: torch.optim.Optimizer, scaler: GradScaler
) -> Cursor:
    """Put a checkpoint's state into the trainee, the optimizer and torch's generators; give its cursor.

    Raises ConfigError where the checkpoint belongs to another dataset, template, plan or base model, and InputError
    where it cannot be read.
    """
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        made_with, cursor = Identity(**state["identity"]), Cursor(**state["cursor"])
        check_identity(path, made_with, identity)
        device = str(trainee.device.device)
        weights = load_file(path / "weights.safetensors", device=device)
        moments = load_file(path / "optimizer.safetensors", device=device)
        random = load_file(path / "random.safetensors")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(
            f"checkpoint {path}",
            f"cannot be read ({type(error).__name__}: {error})",
            "a whole checkpoint",
            "remove this folder; --resume then takes the checkpoint before it",
        ) from error
    _fill(path, trainee, weights)
    _fill_optimizer(optimizer, moments)
    if scaler.is_enabled():
        scaler.load_state_dict(state["scaler"])
    torch.set_rng_state(random["cpu"])
    if "cuda" in random:
        torch.cuda.set_rng_state(random["cuda"], trainee.device.device)
    return cursor


def check_identity(path: Path, made_with: Identity, wanted: Identity) -> None:
    """Raise ConfigError that names what differs between a checkpoint and the run that wants to go on from it."""
    names = {
        "manifest": "the manifest",
        "train_visible": "the rows of the dataset",
        "template": "the chat template",
        "plan": "the plan (records, lengths, seed or batch)",
        "base": "the base model",
        "tokenizer": "the tokenizer",
    }
    for field, what in names.items():
        found, expected = getattr(made_with, field), getattr(wanted, field)
        if found != expected:
            raise ConfigError(
                f"--resume {path}",
                f"{what} was {found[:16]} in the checkpoint and is {expected[:16]} now",
                "the same run",
                "resume with the same dataset version and settings, or start anew with another --out",
            )


def _random_state(trainee: Trainee) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if trainee.device.device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(trainee.device.device)
    return state


def _fill(path: Path, trainee: Trainee, weights: dict[str, Tensor]) -> None:
    own = dict(trainee.trainable())
    if problem := _difference(own, weights):
        raise ConfigError(f"--resume {path}", problem, "the weights of this model and method", "resume with the same")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])


def _difference(own: Iterable[str], saved: Iterable[str]) -> str | None:
    odd = sorted(set(own) ^ set(saved))
    return f"{len(odd)} weights are in one and not in the other, {odd[0]} first" if odd else None


def _fill_optimizer(optimizer: torch.optim.Optimizer, moments: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in moments.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
