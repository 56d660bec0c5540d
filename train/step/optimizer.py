"""AdamW, its learning rate, and the one update that ends a step: clipped, and left out where gradients are not finite.

Nothing here waits for the device. The norm stays there, and so does the decision whether to update: a NaN or infinity
in any gradient leaves every weight and every moment as it was. Whoever reads the norm later learns of it then.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from schemas.errors import ConfigError
from schemas.train_config import TrainConfig
from train.step import sharding

WARMUP_START = 0.05
"""Share of the peak rate that warm-up begins with: a step of rate 0 would move nothing."""


class Updater:
    """The optimizer of some weights, with all that happens at its step.

    A checkpoint holds the state of `optimizer` and `scaler`; the scaler scales fp16 losses and else does nothing.
    `halted` is 1 on the device from the first step on that was not finite: nothing changes any more, so that the last
    good state is still there when the host reads of it, some steps later.
    """

    def __init__(
        self, weights: Iterable[tuple[str, nn.Parameter]], config: TrainConfig, *, scaler: GradScaler | None = None
    ) -> None:
        named = list(weights)
        self.weights = [weight for _, weight in named]
        self.optimizer = make_optimizer(named, config)
        self.scaler = scaler or GradScaler(enabled=False)
        self.halted = torch.zeros((), device=self.weights[0].device)
        self._clip = config.clip

    def step(self, lr: float, loss: Tensor) -> tuple[Tensor, Tensor]:
        """Update the weights at rate `lr` by the gradients that have been added up, and drop these.

        `loss` is the step's. Gives the norm of the gradients before clipping and whether the step was left out, both on
        the device. Under fp16 a step whose scaled gradients overflow is left out and the scale halved, which happens
        now and then and halts nothing; in other precisions loss and gradients must be finite.
        """
        set_lr(self.optimizer, lr)
        if self.scaler.is_enabled():  # it looks at gradients alone: a loss that is not finite becomes one that it sees
            next(p.grad for p in self.weights if p.grad is not None).add_(loss - loss)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm([p.grad for p in self.weights if p.grad is not None])
        norm = sharding.whole(norm).float()
        nn.utils.clip_grads_with_norm_(self.weights, self._clip, norm)
        unsound = ~(norm.isfinite() & loss.isfinite())
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.halted.logical_or_(unsound)
            if isinstance(self.optimizer, torch.optim.AdamW):
                setattr(self.optimizer, "found_inf", self.halted)  # noqa: B010 # read by fused kernels, declared by none
                self.optimizer.step()
            elif not self.halted.item():  # bitsandbytes has no such switch: with it, the device is waited for
                self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm, unsound


def make_optimizer(weights: Iterable[tuple[str, nn.Parameter]], config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW over the trainable weights; decay on matrices only, for pulling norms and biases to 0 serves nothing.

    Raises ConfigError for 8-bit moments where bitsandbytes is not installed, and for paged ones without a GPU.
    """
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for _, weight in weights:
        (matrices if weight.ndim > 1 else vectors).append(weight)
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    lr, betas = config.resolved_lr(), (config.beta1, config.beta2)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)
    try:
        from bitsandbytes.optim import adamw  # noqa: PLC0415 # optional, and slow to import
    except ImportError as error:
        raise ConfigError(
            f"--optimizer {config.optimizer}", "bitsandbytes is not installed", "it", "pip install 'sft-toolkit[qlora]'"
        ) from error
    if config.optimizer == "paged_adamw8bit":
        if not all(p.is_cuda for p in (*matrices, *vectors)):
            raise ConfigError("--optimizer paged_adamw8bit", "no GPU whose memory it could page", "adamw8bit or adamw")
        return adamw.PagedAdamW8bit(groups, lr=lr, betas=betas)
    return adamw.AdamW8bit(groups, lr=lr, betas=betas)


def lr_at(done: float, config: TrainConfig) -> float:
    """Give the learning rate where `done` of the run, from 0 to below 1, is over: a linear rise, then a cosine to 0.

    A share and no number of steps, so that a budget of time can drive it too. No step has rate 0.
    """
    peak, warmup = config.resolved_lr(), config.warmup_ratio
    if done < warmup:
        return peak * (WARMUP_START + (1 - WARMUP_START) * done / warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
