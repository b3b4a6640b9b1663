"""Small residual networks with dense 3x3 convolutions, for any channel count and input size (He et al., 2015)."""

from __future__ import annotations

from torch import Tensor, nn

from edgekd.models.layers import Classifier, ConvNormAct, activation, channels


def resnet_s(*, classes: int, input_shape: tuple[int, ...], width: float = 1.0, act: str = "relu") -> nn.Module:
    """The reference teacher: about 657k parameters, 52 million multiply-adds at 28x28."""
    return ResNet(classes, input_shape[0], stem=channels(32, width), stages=_stages((64, 128), (2, 2), width), act=act)


def resnet_xs(*, classes: int, input_shape: tuple[int, ...], width: float = 1.0, act: str = "relu") -> nn.Module:
    """The reference student: about 92k parameters, 9 million multiply-adds at 28x28."""
    return ResNet(classes, input_shape[0], stem=channels(16, width), stages=_stages((32, 64), (2, 1), width), act=act)


def _stages(counts: tuple[int, ...], depths: tuple[int, ...], width: float) -> list[tuple[int, int]]:
    return [(channels(count, width), depth) for count, depth in zip(counts, depths, strict=True)]


class Block(nn.Module):
    """Two 3x3 convolutions and a skip branch."""

    def __init__(self, inside: int, out: int, stride: int, act: str) -> None:
        super().__init__()
        self.first = ConvNormAct(inside, out, stride=stride, act=act)
        self.second = ConvNormAct(out, out, act=None)
        same = stride == 1 and inside == out
        self.skip = nn.Identity() if same else ConvNormAct(inside, out, kernel=1, stride=stride, act=None)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inside, H, W) -> (N, out, H / stride, W / stride)."""
        return self.act(self.second(self.first(x)) + self.skip(x))


class ResNet(nn.Module):
    """A stem at full resolution, then stages that each halve it."""

    def __init__(self, classes: int, inside: int, *, stem: int, stages: list[tuple[int, int]], act: str) -> None:
        super().__init__()
        self.stem = ConvNormAct(inside, stem, act=act)
        blocks, previous = [], stem
        for out, depth in stages:
            blocks += [Block(previous if i == 0 else out, out, 2 if i == 0 else 1, act) for i in range(depth)]
            previous = out
        self.blocks = nn.Sequential(*blocks)
        self.head = Classifier(previous, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float32 -> (N, classes) logits."""
        return self.head(self.blocks(self.stem(x)))
