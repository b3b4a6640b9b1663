"""The task protocol, and tasks by name."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from torch import Tensor

from edgekd.errors import BadRecipe


class Task(Protocol):
    """What training and measuring need to know of a task; nothing else assumes classes or logits."""

    name: str
    metric_name: str

    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """The hard loss of a batch, a scalar."""
        ...

    def distill_outputs(self, outputs: Tensor) -> Tensor:
        """What a student imitates: (N, K)."""
        ...

    def metric(self, outputs: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
        """``metric_name`` in [0, 1] and what else describes the quality."""
        ...

    def decode(self, outputs: np.ndarray, classes: list[str]) -> list[Any]:
        """Outputs as a person reads them, one item a sample."""
        ...


def get_task(name: str) -> Task:
    """A task by name.

    Raises:
        BadRecipe: unknown.
    """
    from edgekd.tasks.classification import Classification

    if name != Classification.name:
        raise BadRecipe(f"unknown task {name!r}", where="task", remedy="known: classification")
    return Classification()
