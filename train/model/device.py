"""Where a run computes, and in which precision."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from schemas.errors import ConfigError
from schemas.train_config import TrainConfig
from train.step import processes

PRECISIONS: dict[torch.dtype | None, str] = {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
"""What autocast computes in, by name; None is fp32 throughout."""


@dataclass(frozen=True, slots=True)
class Device:
    """Where the run computes, and in which precision: `autocast` is None for fp32 throughout."""

    device: torch.device
    autocast: torch.dtype | None

    def compute(self) -> AbstractContextManager[object]:
        """Give the context in which forward passes run."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast)

    def frozen_dtype(self) -> torch.dtype:
        """Give the dtype of weights that are only read: that of the computation on a GPU, fp32 on a CPU."""
        return self.autocast if self.device.type == "cuda" and self.autocast is not None else torch.float32

    def __str__(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        return f"{name}, {PRECISIONS[self.autocast]} compute"


def choose_device(config: TrainConfig) -> Device:
    """Choose device and precision. Raises ConfigError for a device that is not there, or a precision it has not."""
    cuda = torch.cuda.is_available()
    if config.device == "cuda" and not cuda:
        raise ConfigError("--device", "cuda, but torch sees no GPU", "cpu or auto")
    device = torch.device("cuda" if cuda and config.device != "cpu" else "cpu")
    if device.type == "cuda" and processes.asked() > 1:
        here, gpus = processes.on_this_machine(), torch.cuda.device_count()
        if here > gpus:
            raise ConfigError(
                "--nproc-per-node", f"{here} processes on a machine with {gpus} GPUs", "a GPU for each", "start fewer"
            )
        device = torch.device("cuda", processes.local_rank())
    has_bf16 = device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)
    if config.precision == "bf16" and not has_bf16:
        raise ConfigError("--precision", "bf16, but this GPU has none", "fp32 or auto")
    fits = ("bf16" if has_bf16 else "fp16") if device.type == "cuda" else "fp32"
    named = {name: dtype for dtype, name in PRECISIONS.items()}
    return Device(device, named[fits if config.precision == "auto" else config.precision])
