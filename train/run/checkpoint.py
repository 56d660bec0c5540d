"""Checkpoints: all that a run needs to go on as if it had never stopped, and the identity that it must go on with.

    checkpoints/step-40/
        weights.safetensors      the trainable weights, by name
        optimizer.safetensors    the optimizer's moments, by weight and name
        random.safetensors       the state of torch's generators
        state.json               the cursor (steps done, best loss so far, …), the identity of the run, and the sha256
                                 of each file; of itself too, so that a changed cursor is seen as well

The learning rate is a function of how far a run is and the plan a function of its inputs, so neither has a state to
save. A checkpoint is written beside its place and renamed into it; the last two are kept. Nothing is pickled. One that
was changed, cut short or lost a file is set aside by name, and the one before it is taken.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from schemas.errors import ConfigError, InputError
from train.model.trainee import Trainee
from train.run.folder import whole_folder
from train.run.weights import gathered, put_back
from train.step import processes, sharding
from train.step.optimizer import Updater

KEPT = 2
"""One to go on from, and one more should the disk have lost the last."""

QUANTISED = "__bnb_optimizer_quant_state__"
"""Under this name bitsandbytes nests the state that it quantises; it takes the same back without nesting."""

WEIGHTS, OPTIMIZER, RANDOM, STATE = "weights.safetensors", "optimizer.safetensors", "random.safetensors", "state.json"


@dataclass(frozen=True, slots=True)
class Identity:
    """What a run must share with its checkpoint. All are digests; an empty one is from before it was recorded."""

    manifest: str
    train_visible: str
    template: str
    plan: str
    base: str
    tokenizer: str = ""
    replay: str = ""
    general: str = ""


NAMES = {
    "manifest": "the manifest",
    "train_visible": "the rows of the dataset",
    "template": "the chat template",
    "replay": "the dataset of --replay",
    "plan": "the plan (records, lengths, seed or batch)",
    "base": "the base model",
    "tokenizer": "the tokenizer",
    "general": "the dataset of --general",
}
"""What people call the parts of an identity, in the order in which they are compared."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a run has come. `stale`: evaluations since the validation loss last fell.

    `seconds` are those of the steps, `wall` all that the run took, loading and measuring included, and `begun` how much
    of that had gone by before the first step. `owes`: the evaluation after `step` is still to be made.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    first_loss: float | None = None
    last_loss: float | None = None
    best_loss: float | None = None
    best_step: int | None = None
    stale: int = 0
    stopped: bool = False
    ended_by: str = ""
    wall: float = 0.0
    begun: float = 0.0
    owes: bool = False
    spikes: int = 0


def random_state(trainee: Trainee) -> dict[str, Tensor]:
    """Give the state of torch's generators; it lies on the CPU, so the GPU is not waited for."""
    state = {"cpu": torch.get_rng_state()}
    if trainee.device.device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(trainee.device.device)
    return state


def save(
    folder: Path,
    cursor: Cursor,
    identity: Identity,
    *,
    trainee: Trainee,
    updater: Updater,
    random: dict[str, Tensor] | None = None,
) -> Path:
    """Write the checkpoint of `cursor.step`, then drop all but the last two. Gives its folder.

    Of several processes the leader writes, and all must ask: what they hold is gathered, so that any number can go on.
    They leave together: torchrun ends all processes once one has failed, and the leader may still be writing then.
    `random` is the state of the generators, by default the one of now.
    """
    path = folder / f"step-{cursor.step}"
    weights = gathered(trainee)
    moments, numbers = _optimizer_state(updater.optimizer)
    generators = _of_all_ranks(random or random_state(trainee))
    if not processes.leads():
        processes.wait()
        return path
    with whole_folder(path) as place:
        save_file(weights, place / WEIGHTS)
        save_file(moments, place / OPTIMIZER)
        save_file(generators, place / RANDOM)
        state: dict[str, Any] = {
            "cursor": asdict(cursor),
            "identity": asdict(identity),
            "scaler": updater.scaler.state_dict(),
            "optimizer": numbers,
            "files": {name: _sha256(place / name) for name in (WEIGHTS, OPTIMIZER, RANDOM)},
        }
        state["sha256"] = _digest(state)
        (place / STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    for old in steps(folder)[:-KEPT]:
        shutil.rmtree(folder / f"step-{old}")
    processes.wait()
    return path


def steps(folder: Path) -> list[int]:
    """List the steps that have a checkpoint, in order."""
    names = (p.name.removeprefix("step-") for p in folder.glob("step-*"))
    return sorted(int(name) for name in names if name.isdecimal())


def latest(folder: Path) -> Path | None:
    """Give the last checkpoint, or None where there is none."""
    found = steps(folder)
    return folder / f"step-{found[-1]}" if found else None


def resume(
    folder: Path, identity: Identity, trainee: Trainee, updater: Updater, say: Callable[[str], None]
) -> Cursor | None:
    """Go on from the last checkpoint that is whole; None where there is none at all.

    A broken one is set aside (`step-40.broken`) and told. Raises ConfigError for a checkpoint of another run, and
    InputError where there are checkpoints and none is whole.
    """
    broken: list[InputError] = []
    for step in reversed(steps(folder)):
        path = folder / f"step-{step}"
        try:
            cursor = load(path, identity, trainee, updater)
        except InputError as error:
            broken.append(error)
            continue
        for error in broken:
            say(f"warning: {error.where}: {error.found}; going on from {path.name} before it")
        for later in steps(folder):
            if later > step and processes.leads():
                aside = folder / f"step-{later}.broken"
                shutil.rmtree(aside, ignore_errors=True)
                (folder / f"step-{later}").rename(aside)
        return cursor
    if broken:
        raise broken[0]
    return None


def load(path: Path, identity: Identity, trainee: Trainee, updater: Updater) -> Cursor:
    """Put a checkpoint's state into the trainee, the optimizer and torch's generators; give its cursor.

    Nothing is changed before all files are found to be what was written. Raises ConfigError where the checkpoint
    belongs to another run, and InputError, which names the file, where it was changed or cannot be read.
    """
    state = _state(path)
    try:
        made_with = Identity(**state["identity"])
        known = {field.name for field in fields(Cursor)}
        cursor = Cursor(**{name: value for name, value in state["cursor"].items() if name in known})
        scaler, numbers = state["scaler"], dict(state.get("optimizer", {}))
    except (KeyError, TypeError, AttributeError) as error:
        raise _broken(path, f"{STATE} lacks what a checkpoint has ({type(error).__name__}: {error})") from error
    check_identity(path, made_with, identity)
    for name, sha256 in state.get("files", {}).items():
        _check_file(path, name, sha256)
    weights, moments, random = (_tensors(path, name) for name in (WEIGHTS, OPTIMIZER, RANDOM))
    put_back(trainee, weights, f"--resume {path}")
    _fill_optimizer(updater.optimizer, moments, numbers)
    if updater.scaler.is_enabled():
        updater.scaler.load_state_dict(scaler)
    own = _of_this_rank(random)
    if own is None:
        torch.manual_seed(torch.initial_seed() + cursor.step)  # other numbers of processes draw other numbers anyway
        return cursor
    torch.set_rng_state(own["cpu"])
    if "cuda" in own and trainee.device.device.type == "cuda":
        torch.cuda.set_rng_state(own["cuda"], trainee.device.device)
    return cursor


def _of_all_ranks(random: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gather the generators' states: the leader's by their names, those of rank 1 as `cpu.1` and `cuda.1`, …"""
    return {
        f"{name}.{rank}" if rank else name: state
        for name, mine in random.items()
        for rank, state in enumerate(processes.side_by_side(mine))
    }


def _of_this_rank(random: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """Find the states of this process among those of a checkpoint; None where it was made by another number of them."""
    held = sum(name.split(".")[0] == "cpu" for name in random)
    if held != processes.ranks():
        return None if processes.rank() or held > 1 else random
    mine = f".{processes.rank()}" if processes.rank() else ""
    return {name: random[name + mine] for name in ("cpu", "cuda") if name + mine in random}


def check_identity(path: Path, made_with: Identity, wanted: Identity) -> None:
    """Raise ConfigError that names what differs between a checkpoint and the run that wants to go on from it."""
    for field, what in NAMES.items():
        found, expected = getattr(made_with, field), getattr(wanted, field)
        if found != expected:
            raise ConfigError(
                f"--resume {path}",
                f"{what} was {found[:16] or 'none'} in the checkpoint and is {expected[:16] or 'none'} now",
                "the same run",
                "resume with the same dataset version and settings, or start anew with another --out",
            )


def _state(path: Path) -> dict[str, Any]:
    try:
        state: Any = json.loads((path / STATE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _broken(path, f"{STATE} is missing") from error
    except (OSError, ValueError) as error:
        raise _broken(path, f"{STATE} cannot be read ({error})") from error
    if not isinstance(state, dict):
        raise _broken(path, f"{STATE} is not an object")
    plain: dict[str, Any] = {str(name): value for name, value in state.items()}
    sha256 = plain.pop("sha256", None)
    if "files" in plain and sha256 != _digest(plain):
        raise _broken(path, f"{STATE} is not what was written")
    return plain


def _check_file(path: Path, name: str, sha256: str) -> None:
    file = path / Path(name).name
    if not file.is_file():
        raise _broken(path, f"{name} is missing")
    with suppress(OSError):
        if _sha256(file) == sha256:
            return
    raise _broken(path, f"{name} is not what was written")


def _tensors(path: Path, name: str) -> dict[str, Tensor]:
    """Read a file of tensors to the CPU: a GPU that holds the model need not have room for it twice."""
    try:
        return load_file(path / name)
    except (OSError, ValueError, SafetensorError) as error:
        raise _broken(path, f"{name} cannot be read ({type(error).__name__}: {error})") from error


def _broken(path: Path, found: str) -> InputError:
    return InputError(
        f"checkpoint {path}",
        found,
        "a whole checkpoint",
        "there is none before it: put the file back from a copy, or remove this folder and start from the beginning",
    )


def _digest(state: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Give the tensors and the plain numbers of an optimizer's state, by weight and name: `3.exp_avg`."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, float] = {}
    seen: set[int] = set()
    for i, state in optimizer.state_dict()["state"].items():
        nested: dict[str, Any] = state.get(QUANTISED, {})
        for name, value in {**state, **nested}.items():
            if name == QUANTISED:
                continue
            if not isinstance(value, Tensor):
                numbers[f"{i}.{name}"] = value
                continue
            value = sharding.collected(value)  # noqa: PLW2901 # the same, where it is shared out
            shared = value.data_ptr() in seen  # 8-bit optimizers have one table for all weights
            seen.add(value.data_ptr())
            tensors[f"{i}.{name}"] = value.clone() if shared else value.contiguous()
    return tensors, numbers


def _fill_optimizer(optimizer: torch.optim.Optimizer, moments: dict[str, Tensor], numbers: dict[str, float]) -> None:
    state: dict[int, dict[str, Any]] = {}
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for key, value in {**moments, **numbers}.items():
        index, name = key.split(".", 1)
        of = weights[int(index)]
        state.setdefault(int(index), {})[name] = sharding.shared_like(value, of) if isinstance(value, Tensor) else value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
