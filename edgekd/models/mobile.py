"""Depthwise networks: a plain separable one (Zhang et al., 2017) and inverted residuals with squeeze-and-excite."""

from __future__ import annotations

from torch import Tensor, nn

from edgekd.models.layers import Classifier, ConvNormAct, channels


def dscnn_s(*, classes: int, input_shape: tuple[int, ...], width: float = 1.0, act: str = "relu") -> nn.Module:
    """Depthwise separable blocks: about 21k parameters."""
    wide = channels(64, width)
    blocks: list[nn.Module] = [ConvNormAct(input_shape[0], wide, stride=2, act=act)]
    for stride in (1, 2, 1, 1):
        blocks += [ConvNormAct(wide, wide, stride=stride, groups=wide, act=act)]
        blocks += [ConvNormAct(wide, wide, kernel=1, act=act)]
    return nn.Sequential(*blocks, Classifier(wide, classes))


def mobilenet_xs(
    *, classes: int, input_shape: tuple[int, ...], width: float = 1.0, act: str = "hardswish"
) -> nn.Module:
    """Inverted residuals with squeeze-and-excite (Howard et al., 2019): about 48k parameters."""
    first, second = channels(16, width), channels(32, width)
    return nn.Sequential(
        ConvNormAct(input_shape[0], first, act=act),
        InvertedResidual(first, second, expand=4, stride=2, act=act),
        InvertedResidual(second, second, expand=4, stride=1, act=act),
        InvertedResidual(second, second * 2, expand=4, stride=2, act=act),
        Classifier(second * 2, classes),
    )


class SqueezeExcite(nn.Module):
    """Channels weighed by a gate computed from their means (Hu et al., 2018), hard sigmoid as in MobileNetV3."""

    def __init__(self, inside: int, squeezed: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(inside, squeezed, 1)
        self.act = nn.ReLU()
        self.expand = nn.Conv2d(squeezed, inside, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        return x * self.gate(self.expand(self.act(self.reduce(self.pool(x)))))


class InvertedResidual(nn.Module):
    """Expand, depthwise, squeeze-and-excite, project; a skip where the shapes agree."""

    def __init__(self, inside: int, out: int, *, expand: int, stride: int, act: str) -> None:
        super().__init__()
        wide = inside * expand
        self.body = nn.Sequential(
            ConvNormAct(inside, wide, kernel=1, act=act),
            ConvNormAct(wide, wide, stride=stride, groups=wide, act=act),
            SqueezeExcite(wide, max(8, wide // 4)),
            ConvNormAct(wide, out, kernel=1, act=None),
        )
        self.residual = stride == 1 and inside == out

    def forward(self, x: Tensor) -> Tensor:
        """(N, inside, H, W) -> (N, out, H / stride, W / stride)."""
        return x + self.body(x) if self.residual else self.body(x)
