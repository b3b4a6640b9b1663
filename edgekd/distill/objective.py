"""What a student is trained on: the soft loss against its teacher mixed with the task's hard loss."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from edgekd.distill.losses import get_loss
from edgekd.distill.temperature import temperature_at
from edgekd.recipe import Temperature
from edgekd.tasks import Task


@dataclass(frozen=True)
class Objective:
    """``alpha`` times the soft loss ``loss`` plus ``1 - alpha`` times the task's own."""

    task: Task
    loss: str
    temperature: float | Temperature
    alpha: float
    epochs: int

    def __call__(self, outputs: Tensor, teacher: Tensor | None, y: Tensor, epoch: int) -> Tensor:
        """A scalar; ``outputs`` are the model's, ``teacher`` (N, K) float what `Task.distill_outputs` gives."""
        hard = self.task.loss(outputs, y)
        if teacher is None:
            return hard
        degree = temperature_at(self.temperature, epoch, self.epochs)
        soft = get_loss(self.loss)(self.task.distill_outputs(outputs), teacher, y, temperature=degree)
        return self.alpha * soft + (1 - self.alpha) * hard
