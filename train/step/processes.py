"""The processes of a run: one by default, several under torchrun, and what they agree on.

    torchrun sets    WORLD_SIZE   RANK          LOCAL_RANK             MASTER_ADDR, MASTER_PORT
    which are        how many     which of all  which of this machine  where they meet

The process of rank 0 leads: it alone writes and speaks. What the host decides (a signal, a clock) is agreed on between
CPUs by gloo, so that no GPU is waited for; numbers of the device go by nccl, in the order of its own work.
"""

import os
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from schemas.errors import CheckFailedError, ConfigError

PATIENCE = timedelta(hours=1)
"""How long a process waits for the others: the first one builds `tiny` and reads a large dataset while they wait."""


def asked() -> int:
    """Give how many processes were started together, by the environment. Raises ConfigError for what torchrun would not
    set."""
    said = os.environ.get("WORLD_SIZE", "1")
    if not said.isdecimal() or said == "0":
        raise ConfigError("WORLD_SIZE", said, "the number of processes, which torchrun sets", "unset it")
    if int(said) > 1:
        for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            if name not in os.environ:
                raise ConfigError(
                    "WORLD_SIZE", f"{said}, and {name} is not set", "both", "start with torchrun, or unset WORLD_SIZE"
                )
    return int(said)


@contextmanager
def together(*, cuda: bool) -> Generator[None]:
    """Join the processes that were started together, for the block; one process alone joins nothing.

    Raises CheckFailedError where another process ends before its time. After an error nobody leaves the group: the
    others then wait until this process has told what is wrong, and ends.
    """
    if asked() == 1:
        yield
        return
    if cuda:
        torch.cuda.set_device(local_rank())
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield
    except RuntimeError as error:
        if not _left_alone(error):
            raise
        raise CheckFailedError(
            f"process {rank()} of {ranks()}",
            "another process of this run has ended",
            "all of them to the end",
            "its own line, or torchrun's, says why",
        ) from error
    dist.destroy_process_group()


def _left_alone(error: RuntimeError) -> bool:
    """Whether an error is that of a process which waits for one that has gone. What gloo raises has no class."""
    return isinstance(error, dist.DistError) or "/gloo/" in str(error)


def ranks() -> int:
    """How many processes make up the run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def started_as() -> int:
    """Give the rank that this process was started as, joined or not."""
    return int(os.environ["RANK"]) if asked() > 1 else 0


def local_rank() -> int:
    """Which of this machine's processes this is, from 0: the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if asked() > 1 else 0


def on_this_machine() -> int:
    """How many of them this machine has, as torchrun says it; at least as many as `local_rank` needs."""
    return max(int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if asked() > 1 else 1, local_rank() + 1)


def leads() -> bool:
    """Whether this process writes and speaks."""
    return rank() == 0


def wait() -> None:
    """Wait until all processes are here."""
    any_of(said=False)


def any_of(*, said: bool) -> bool:
    """Whether any process says so. All must ask."""
    if ranks() == 1:
        return said
    flag = torch.tensor(int(said))
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def of_leader(value: float) -> float:
    """Give the leader's value. All must ask."""
    if ranks() == 1:
        return value
    told = torch.tensor(value, dtype=torch.float64)
    dist.broadcast(told, 0)
    return float(told)


def add_up(numbers: Tensor) -> Tensor:
    """Add the numbers of all processes, in place; on a GPU nobody waits for it."""
    if ranks() > 1:
        dist.all_reduce(numbers)
    return numbers


def side_by_side(numbers: Tensor) -> list[Tensor]:
    """Give the numbers of every process, in the order of ranks. They lie on the CPU and are alike in shape."""
    if ranks() == 1:
        return [numbers]
    found = [torch.empty_like(numbers) for _ in range(ranks())]
    dist.all_gather(found, numbers)
    return found


@contextmanager
def leader_first() -> Generator[None]:
    """Let the leader go through the block, then the others: they find what it left there."""
    if not leads():
        wait()
    yield
    if leads():
        wait()


def without_gradients() -> AbstractContextManager[object]:
    """Give the context of passes without gradients: sharded weights, once gathered, must not be inference tensors."""
    return torch.inference_mode() if ranks() == 1 else torch.no_grad()
