"""Outputs of a torch model over a whole split."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edgekd.data.source import DataSource


def predict(module: nn.Module, source: DataSource, split: str, batch_size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """(N, K) float32 outputs and (N,) int64 labels, in the split's order, in evaluation mode, on the fitting device."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    was = next((p.device for p in module.parameters()), device)
    module.to(device)
    evaluation_mode(module)
    outputs, labels = [], []
    with torch.no_grad():
        for x, y in source.loader(split, batch_size, shuffle=False):
            outputs.append(module(x.to(device)).float().cpu().numpy())
            labels.append(y.numpy())
    module.to(was)
    return np.concatenate(outputs), np.concatenate(labels)


def evaluation_mode(module: nn.Module, *, training: bool = False) -> None:
    """Switch dropout and BatchNorm; an exported graph has no such switch and is left as it is."""
    if not isinstance(module, torch.fx.GraphModule):
        module.train(training)
