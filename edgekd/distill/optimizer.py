"""The optimizer and its learning rate, a pure function of the step: nothing of a schedule needs to be kept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

# The first step of the warm-up and the last of the schedule, as shares of the peak rate.
FIRST, LAST = 0.04, 0.001


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov and Hutter, 2019) or SGD with Nesterov momentum; ``lr`` is the peak rate."""

    lr: float
    weight_decay: float = 0.0
    warmup_epochs: float = 0.0
    name: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """An optimizer of the parameters that want a gradient; biases and norms (one dimension) do not decay."""
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in wanted if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in wanted if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=True)
    return torch.optim.AdamW(groups, lr=config.lr)


def set_rate(optimizer: torch.optim.Optimizer, config: OptimizerConfig, step: int, steps: int, epochs: int) -> float:
    """Give every group the rate of ``step`` (from 0) of ``steps`` in all; returns it."""
    warm = min(config.warmup_epochs * steps / max(epochs, 1), steps / 2)
    rate = config.lr * rate_share(step, steps, warm)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def rate_share(step: int, steps: int, warm: float) -> float:
    """Linear from `FIRST` to 1 over ``warm`` steps, then half a cosine down to `LAST`."""
    if step < warm:
        return FIRST + (1 - FIRST) * step / warm
    way = (step - warm) / max(steps - 1 - warm, 1)
    return LAST + (1 - LAST) * (1 + math.cos(math.pi * min(way, 1.0))) / 2
