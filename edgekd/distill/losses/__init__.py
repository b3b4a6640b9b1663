"""Distillation losses: a file each, named as recipes name them.

A newcomer adds ``NAME.py`` with ``def loss(student, teacher, y, *, temperature) -> Tensor``: the soft part alone, a
scalar, the mean over the batch. Mixing it with the task's hard loss is `edgekd.distill.objective`'s.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Protocol, cast

from torch import Tensor

from edgekd.errors import BadRecipe


class SoftLoss(Protocol):
    """What a file in this folder gives: how far the student is from its teacher."""

    def __call__(self, student: Tensor, teacher: Tensor, y: Tensor, *, temperature: float) -> Tensor:
        """``student``, ``teacher``: (N, K) float, of `Task.distill_outputs`; ``y``: (N,) targets; a scalar."""
        ...


def get_loss(name: str) -> SoftLoss:
    """The loss of the file ``name``.

    Raises:
        BadRecipe: there is no such file.
    """
    if name not in list_losses():
        known = ", ".join(list_losses())
        raise BadRecipe(f"unknown distillation loss {name!r}", where="distill.loss", remedy=f"known: {known}")
    return cast(SoftLoss, importlib.import_module(f"{__name__}.{name}").loss)


def list_losses() -> list[str]:
    """Names of all losses, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))
