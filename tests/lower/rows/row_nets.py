"""A tiny network for each pattern of docs/placement.md, as a user writes it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS, MANY, SIDE, WIDTH = 16, 64, 8, 32


def conv(
    inputs: int = CHANNELS, outputs: int = CHANNELS, kernel: int = 3, groups: int = 1, *after: nn.Module
) -> nn.Module:
    """Convolution, BatchNorm with statistics that are not trivial, and what comes behind."""
    norm = nn.BatchNorm2d(outputs)
    nn.init.normal_(norm.running_mean, std=0.2)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False), norm, *after
    )


class Row(nn.Module):
    """A first convolution, the ``parts`` of the pattern in order, and a last convolution that the network pools."""

    def __init__(self, *parts: nn.Module, outputs: int = CHANNELS) -> None:
        super().__init__()
        self.first, self.parts = conv(3, CHANNELS, 3, 1, nn.ReLU()), nn.Sequential(*parts)
        self.last, self.head = nn.Conv2d(outputs, 24, 1), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.last(self.parts(self.first(x)))).mean((2, 3)))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(conv(CHANNELS, CHANNELS, 3, 1, nn.ReLU()), conv())

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.branch(x))


class Branches(nn.Module):
    """RepVGG's block on many channels; ``identity`` is about how large its factors are."""

    def __init__(self, identity: float) -> None:
        super().__init__()
        self.three, self.one = conv(MANY, MANY), conv(MANY, MANY, 1)
        self.norm = nn.BatchNorm2d(MANY)
        nn.init.normal_(self.norm.weight, identity, 0.2 * identity)
        nn.init.normal_(self.norm.running_mean, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(x) + self.three(x) + self.one(x))


class Concat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv(CHANNELS, CHANNELS, 1, 1, nn.ReLU()), conv(CHANNELS, CHANNELS, 3, 1, nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.two(x)], 1)


class SqueezeExcite(nn.Module):
    def __init__(self, gate: Callable[[Tensor], Tensor] = F.hardsigmoid) -> None:
        super().__init__()
        self.gate, self.down, self.up = gate, nn.Conv2d(CHANNELS, 8, 1), nn.Conv2d(8, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.up(torch.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))


class Split(nn.Module):
    """ShuffleNetV2's unit: one half of the channels is convolved, then both are concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = conv(CHANNELS // 2, CHANNELS // 2, 3, 1, nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        one, two = x.chunk(2, 1)
        return torch.cat([one, self.branch(two)], 1)


class Tokens(nn.Module):
    """A patch embedding to 16 tokens, the ``parts``, their mean and a linear layer."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.patches, self.parts, self.head = nn.Conv2d(3, WIDTH, 2, 2), nn.Sequential(*parts), nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.parts(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


class Attention(nn.Module):
    """Four heads, with a linear layer behind, as in a ViT; ``masked``: every second token is hidden, as in a Swin."""

    def __init__(self, *, masked: bool = False) -> None:
        super().__init__()
        hidden = torch.tensor([0.0, -100.0]).repeat(SIDE)
        self.register_buffer("mask", hidden.expand(2 * SIDE, 2 * SIDE).clone() if masked else None)
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(2, (4, WIDTH // 4)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.out(F.scaled_dot_product_attention(q, k, v, self.mask).transpose(1, 2).flatten(2))


class Head(nn.Module):
    """Convolution, ReLU, what makes a vector of the maps, linear layers."""

    def __init__(self, flatten: Callable[[Tensor], Tensor], inputs: int, *hidden: nn.Module) -> None:
        super().__init__()
        self.first, self.flatten, self.head = conv(3, CHANNELS, 3, 1, nn.ReLU()), flatten, nn.Linear(inputs, 10)
        self.hidden = nn.Sequential(*hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(self.flatten(self.first(x))))


ROWS: dict[str, Callable[[], nn.Module]] = {
    "conv_bn_relu": lambda: Row(conv(CHANNELS, CHANNELS, 3, 1, nn.ReLU())),
    "conv_relu6": lambda: Row(conv(CHANNELS, CHANNELS, 3, 1, nn.ReLU6())),
    "conv_hardswish": lambda: Row(conv(CHANNELS, CHANNELS, 3, 1, nn.Hardswish())),
    "conv_silu": lambda: Row(conv(CHANNELS, CHANNELS, 3, 1, nn.SiLU())),
    "conv_gelu": lambda: Row(conv(CHANNELS, CHANNELS, 3, 1, nn.GELU())),
    "depthwise": lambda: Row(conv(CHANNELS, CHANNELS, 3, CHANNELS, nn.ReLU())),
    "residual_add": lambda: Row(Residual()),
    "branches": lambda: Row(conv(CHANNELS, MANY, 1, 1, nn.ReLU()), Branches(0.1), outputs=MANY),
    "branches_wide": lambda: Row(conv(CHANNELS, MANY, 1, 1, nn.ReLU()), Branches(2.0), outputs=MANY),
    "concat": lambda: Row(Concat(), outputs=2 * CHANNELS),
    "max_pool": lambda: Row(nn.MaxPool2d(2)),
    "average_pool": lambda: Row(nn.AvgPool2d(2)),
    "squeeze_and_excite": lambda: Row(SqueezeExcite()),
    "squeeze_and_excite_sigmoid": lambda: Row(SqueezeExcite(torch.sigmoid)),
    "resize_nearest": lambda: Row(nn.Upsample(scale_factor=2)),
    "resize_linear": lambda: Row(nn.Upsample(scale_factor=2, mode="bilinear")),
    "global_average_pool": lambda: Head(lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1), CHANNELS),
    "reduce_mean": lambda: Head(lambda x: x.mean((2, 3)), CHANNELS),
    "flatten": lambda: Head(lambda x: x.flatten(1), CHANNELS * SIDE**2),
    "transpose": lambda: Head(lambda x: x.permute(0, 2, 3, 1).flatten(1), CHANNELS * SIDE**2),
    "linear": lambda: Head(lambda x: x.mean((2, 3)), CHANNELS, nn.Linear(CHANNELS, CHANNELS), nn.ReLU()),
    "linear_gelu": lambda: Head(lambda x: x.mean((2, 3)), CHANNELS, nn.Linear(CHANNELS, CHANNELS), nn.GELU()),
    "tokens_gelu": lambda: Tokens(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH)),
    "channel_shuffle": lambda: Row(conv(CHANNELS, CHANNELS, 1, 4, nn.ReLU()), nn.ChannelShuffle(4)),
    "split": lambda: Row(Split()),
    "layer_norm": lambda: Tokens(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.ReLU()),
    "attention": lambda: Tokens(Attention()),
    "attention_masked": lambda: Tokens(Attention(masked=True)),
    "conv_head": lambda: nn.Sequential(conv(3, CHANNELS, 3, 1, nn.ReLU()), nn.Conv2d(CHANNELS, 10, 8), nn.Flatten()),
}


def samples(count: int = 12, seed: int = 1) -> Tensor:
    """Normal noise, (count, 3, 8, 8)."""
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
