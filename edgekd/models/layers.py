"""What the networks of this folder are made of."""

from __future__ import annotations

from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "relu6": nn.ReLU6, "hardswish": nn.Hardswish}


def activation(name: str) -> nn.Module:
    """A fresh activation module: relu, relu6 or hardswish.

    Raises:
        ValueError: another name.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def channels(count: int, width: float) -> int:
    """``count`` times ``width``, rounded to a multiple of 8, at least 8: what int8 kernels are fast on."""
    return max(8, int(count * width / 8 + 0.5) * 8)


class ConvNormAct(nn.Sequential):
    """Convolution without bias, BatchNorm, activation (None: linear)."""

    def __init__(self, inside: int, out: int, *, kernel: int = 3, stride: int = 1, groups: int = 1, act: str | None):
        conv = nn.Conv2d(inside, out, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(out), *([] if act is None else [activation(act)]))


class Classifier(nn.Module):
    """Global average pooling and a linear head: (N, C, H, W) -> (N, classes)."""

    def __init__(self, inside: int, classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(inside, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.linear(self.pool(x).flatten(1))
