"""AdamW and its learning rate: a short linear rise, then a cosine to 0, as a function of the step alone."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from schemas.train_config import TrainConfig


def make_optimizer(weights: Iterable[tuple[str, nn.Parameter]], config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over the trainable weights; decay on matrices only, for pulling norms and biases to 0 serves nothing."""
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for _, weight in weights:
        (matrices if weight.ndim > 1 else vectors).append(weight)
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.resolved_lr(),
        betas=(config.beta1, config.beta2),
        fused=True,
    )


def lr_at(step: int, total: int, config: TrainConfig) -> float:
    """Give the learning rate of a step, counted from 0, in a run of `total` steps. No step has rate 0."""
    warmup = math.ceil(config.warmup_ratio * total)
    if step < warmup:
        return config.resolved_lr() * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, total - warmup)
    return config.resolved_lr() * 0.5 * (1 + math.cos(math.pi * done))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
