"""The worst step of a run, made once before step 0: whether it fits, and how long it takes. Then it is undone.

The micro-batch with the most tokens of the whole plan goes forward and backward. No optimizer step is made; gradients
are dropped and the generators of random numbers put back, so a run is bit for bit what it is without a rehearsal.
Out of memory, there or later, becomes one line with numbers and with settings that fit by the estimate.
"""

import resource
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import torch

from schemas.errors import CheckFailedError, ConfigError, SftError
from schemas.train_config import TrainConfig
from train.model.trainee import Trainee
from train.plan import Plan, Row
from train.preflight.memory import (
    MOMENTS,
    Memory,
    choose_checkpointing,
    estimate,
    options_that_fit,
    shape_of,
    size,
)
from train.step import processes, sharding
from train.step.batch import make_batch
from train.step.memory import is_out_of_memory
from train.step.recompute import recompute
from train.text.tokens import Tokens

QUICK_S = 5.0
"""A first pass of less is made a second time for the clock: the first one also warms up kernels and the allocator, and
compiles. A slow one is so because of its work."""

SURE = 1.5
"""On a CPU a run is refused where the estimate is this many times what is free: there the system would kill the process
without a word, and the estimate may be too high for a model that it does not know."""

CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)
"""Where Linux keeps a container's limit and what it uses, in its second and its first version."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """The worst step, measured: the most bytes that `holder` held, with the optimizer's moments to come on a GPU."""

    holder: str
    records: int
    tokens: int
    targets: int
    longest: int
    seconds: float
    peak: int
    capacity: int

    @property
    def tokens_per_s(self) -> float:
        """Tokens forward and backward per second."""
        return self.tokens / self.seconds

    def __str__(self) -> str:
        return (
            f"{self.tokens:,} tokens of {self.records:,} records in {self.seconds:.2g} s "
            f"({self.tokens_per_s:,.0f} tokens/s); {self.holder} held {size(self.peak)} of {size(self.capacity)}"
        )


def rehearse(trainee: Trainee, tokens: Tokens, plan: Plan, config: TrainConfig) -> Rehearsal:
    """Make the worst micro-batch's forward and backward pass, and leave no trace.

    Raises ConfigError where memory does not suffice, with settings that fit.
    """
    device = trainee.device.device
    rows = worst_rows(tokens, plan, config.micro_batch)
    batch = make_batch(tokens, rows)
    was_training = trainee.model.training
    room = capacity(trainee)
    trained = [p for _, p in trainee.trainable()]
    before = [p.grad for p in trained]
    trainee.model.train()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), memory_told(trainee, config, room):
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            seconds = 0.0
            for _ in range(2):
                for p in trained:
                    p.grad = None
                started = time.perf_counter()
                on_device = batch.to(device)
                with trainee.device.compute():
                    nll_M = trainee.nll(on_device)
                    loss = nll_M.sum() / max(1, batch.targets)
                loss.backward()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                seconds = time.perf_counter() - started
                if processes.any_of(said=seconds > QUICK_S):
                    break
    finally:
        for p, grad in zip(trained, before, strict=True):
            p.grad = grad
        trainee.model.train(was_training)
    return Rehearsal(
        holder="the GPU" if device.type == "cuda" else "the process",
        records=len(batch.records),
        tokens=int(tokens.lengths[list(batch.records)].sum()),
        targets=batch.targets,
        longest=batch.max_seqlen,
        seconds=seconds,
        peak=_peak(trainee, config),
        capacity=room,
    )


def worst_rows(tokens: Tokens, plan: Plan, micro_batch: int) -> tuple[Row, ...]:
    """Find the micro-batch that holds the most tokens, among these the most targets: its rows."""
    in_step = np.arange(plan.rows) - np.repeat(plan.step_bounds[:-1], np.diff(plan.step_bounds))
    first_row = np.flatnonzero(in_step % micro_batch == 0)
    starts = plan.row_bounds[first_row]
    held, targets = (np.add.reduceat(of[plan.records], starts) for of in (tokens.lengths, tokens.targets))
    worst = int(np.lexsort((targets, held))[-1])
    last_row = int(first_row[worst + 1]) if worst + 1 < len(first_row) else plan.rows
    bounds = plan.row_bounds[int(first_row[worst]) : last_row + 1]
    return tuple(tuple(plan.records[a:b].tolist()) for a, b in pairwise(bounds.tolist()))


def capacity(trainee: Trainee) -> int:
    """Give the bytes that the run may hold on its device: what is free, and what it holds already."""
    device = trainee.device.device
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device))
    return free_memory() + _held(trainee)


def free_memory() -> int:
    """Give the bytes that this machine, or the container that we are in, still has."""
    free = [_available()]
    for limit, used in CGROUPS:
        try:
            free.append(int(limit.read_text()) - int(used.read_text()))
        except (OSError, ValueError):  # no such file, or "max": no limit
            continue
    return max(0, min(free))


def check_fits(trainee: Trainee, config: TrainConfig) -> Memory:
    """Estimate a run's memory for its own model. Raises ConfigError where a CPU's memory is surely too small."""
    memory = expected(trainee, config)
    room = capacity(trainee)
    if trainee.device.device.type == "cpu" and memory.total > SURE * room:
        raise _no_memory(trainee, config, room, "this run would not fit in the machine's memory")
    return memory


def expected(trainee: Trainee, config: TrainConfig) -> Memory:
    """Estimate a run's memory, with the weights as they lie there."""
    on_gpu = trainee.device.device.type == "cuda"
    kind = "none" if config.checkpointing == "auto" else config.checkpointing
    memory = estimate(
        shape_of(trainee.network), config, compute=trainee.device.autocast, on_gpu=on_gpu, checkpointing=kind
    )
    trained = sum(sharding.local(p).numel() for _, p in trainee.trainable())
    return Memory(
        weights=_held(trainee),
        casts=memory.casts,
        gradients=4 * trained,
        optimizer=round(MOMENTS[config.optimizer] * trained),
        activations=memory.activations,
        loss=memory.loss,
        workspace=memory.workspace,
    )


def settle_checkpointing(trainee: Trainee, config: TrainConfig) -> TrainConfig:
    """Resolve `checkpointing: auto` by what fits the device, make the layers so, and give the settled configuration."""
    if config.checkpointing != "auto":
        return config
    on_gpu = trainee.device.device.type == "cuda"
    kind = "none"
    if trainee.network.supports_gradient_checkpointing:
        shape, room = shape_of(trainee.network), capacity(trainee)
        kind = choose_checkpointing(shape, config, compute=trainee.device.autocast, on_gpu=on_gpu, capacity=room)
    recompute(trainee.network, kind)
    return config.model_copy(update={"checkpointing": kind})


@contextmanager
def memory_told(trainee: Trainee, config: TrainConfig, room: int | None = None) -> Generator[None]:
    """Turn out-of-memory errors of what runs inside into ConfigError: what is there, what is needed, what would fit."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise told_out_of_memory(error, trainee, config, room) from error


def told_out_of_memory(
    error: BaseException, trainee: Trainee, config: TrainConfig, room: int | None = None
) -> SftError:
    """Make the one line about an out-of-memory error: what there was, what the estimate says, what would fit."""
    said = str(error).strip().splitlines() or [type(error).__name__]
    return _no_memory(trainee, config, capacity(trainee) if room is None else room, said[0][:160])


def _no_memory(trainee: Trainee, config: TrainConfig, room: int, said: str) -> SftError:
    on_gpu = trainee.device.device.type == "cuda"
    options = options_that_fit(
        shape_of(trainee.network), config, compute=trainee.device.autocast, on_gpu=on_gpu, capacity=room
    )
    memory = expected(trainee, config)
    fits = "; ".join(map(str, options[:4]))
    if memory.total <= room:
        return CheckFailedError(
            f"memory of {'the GPU' if on_gpu else 'the machine'}",
            f"{said}. {size(room)} were free for this run, and the estimate was only {memory}",
            "more room than the estimate says",
            f"something else may have taken it, or the model keeps more than is known; smaller: {fits}",
        )
    return ConfigError(
        f"memory of {'the GPU' if on_gpu else 'the machine'}",
        f"{said}. {size(room)} are there for this run, the estimate is {memory}",
        "settings that fit",
        f"by the estimate these do: {fits}" if options else "none that we know does: take a smaller model",
    )


def _held(trainee: Trainee) -> int:
    held = map(sharding.local, chain(trainee.model.parameters(), trainee.model.buffers()))
    return sum(p.numel() * p.element_size() for p in held)


def _peak(trainee: Trainee, config: TrainConfig) -> int:
    """What the step held at its peak, with the moments that the optimizer will hold on a GPU."""
    device = trainee.device.device
    if device.type != "cuda":
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    trained = sum(sharding.local(p).numel() for _, p in trainee.trainable())
    return int(torch.cuda.max_memory_allocated(device) + MOMENTS[config.optimizer] * trained)


def _available() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):  # not Linux
        return sys.maxsize
