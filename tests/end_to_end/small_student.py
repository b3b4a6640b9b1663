"""A student that is checked, exported and quantized in a moment: for builds of which many are made."""

from torch import nn


def net(classes: int, width: float) -> nn.Module:
    first, second = int(32 * width), int(64 * width)
    return nn.Sequential(
        nn.Conv2d(1, first, 3, padding=1),
        nn.BatchNorm2d(first),
        nn.ReLU(),
        nn.Conv2d(first, second, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(second * 9, classes),
    )
