"""A network's outputs over a split."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from edgekd.distill.placement import switch_mode

if TYPE_CHECKING:
    from edgekd.data.source import DataSource


def predict(module: nn.Module, source: DataSource, split: str, batch_size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (N, K) float32 and labels (N,) int64 of a split, in its order, in evaluation mode and float32.

    Computed on a GPU where there is one; the module is left where, and in the mode in which, it was.
    """
    training = module.training
    switch_mode(module, False)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    home = next((parameter.device for parameter in module.parameters()), device)
    module.to(device)
    outputs, labels = [], []
    with torch.inference_mode():
        for x, y in source.loader(split, batch_size, shuffle=False):
            outputs.append(module(x.to(device)).float().cpu().numpy())
            labels.append(y.numpy())
    switch_mode(module, training)
    module.to(home)
    return np.concatenate(outputs), np.concatenate(labels)
