"""Soft targets (Hinton, Vinyals and Dean, 2015, "Distilling the Knowledge in a Neural Network", section 2)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def loss(student: Tensor, teacher: Tensor, y: Tensor, *, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T), softmax(student / T)); T^2 keeps the gradient's size whatever T is."""
    soft = functional.log_softmax(student / temperature, dim=1)
    target = functional.log_softmax(teacher / temperature, dim=1)
    return functional.kl_div(soft, target, reduction="batchmean", log_target=True) * temperature**2
