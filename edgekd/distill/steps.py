"""Single steps of training, and the watch over losses and weights that are no longer numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from edgekd.distill.feed import Batch

# Reading a loss makes a GPU wait for itself, so there it is looked at this often (steps).
LOOK_EVERY = 50


class Steps:
    """Forward, backward and update through Fabric (precision, device)."""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, fabric: Fabric, loss: Callable[..., Tensor]
    ) -> None:
        self.model, self.loss, self.fabric = model, loss, fabric
        self._forward, self._optimizer = fabric.setup(model, optimizer, move_to_device=False)
        self._look_every = LOOK_EVERY if fabric.device.type == "cuda" else 1
        self._losses: list[Tensor] = []
        self._sound: list[float] = []

    def begin(self, diverged: Callable[[int, str], Exception]) -> None:
        """An epoch begins; ``diverged(step, what)`` makes the error to raise."""
        self._diverged = diverged
        self._losses, self._sound = [], []

    def step(self, batch: Batch, answers: Tensor | None, epoch: int) -> None:
        """One update; a loss that is no number is told before it reaches the weights (on a GPU soon after)."""
        outputs: Any = self._forward(batch.x)
        value = self.loss(outputs, answers, batch.y, epoch)
        self._losses.append(value.detach())
        if len(self._losses) >= self._look_every:
            self._look()
        self._optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(value)
        self._optimizer.step()

    def end(self) -> float:
        """The mean loss of the epoch, all its losses and the state it leaves checked."""
        self._look()
        sums = [value.detach().double().sum() for value in self.model.parameters() if value.is_floating_point()]
        if not torch.stack(sums).isfinite().all():
            raise self._diverged(len(self._sound) - 1, "a weight became NaN or infinite")
        return sum(self._sound) / len(self._sound)

    def _look(self) -> None:
        values = torch.stack(self._losses).tolist() if self._losses else []
        for place, value in enumerate(values):
            if not math.isfinite(value):
                raise self._diverged(len(self._sound) + place, f"the loss became {value}")
        self._sound += values
        self._losses = []
