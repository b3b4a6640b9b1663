"""Cross-layer equalization: channels of very different range share one scale badly, so each is scaled to fit.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, section 4.1: for a layer,
what is positively homogeneous behind it (nothing, ReLU, pooling; not ReLU6), and the layers that read it,
W1[i] / s[i], b1[i] / s[i] and W2[:, i] * s[i] compute the same. The paper balances the ranges of two weights under one
scale each. Here weights have a scale per output channel, which the first layer's scaling does not touch; what it does
touch is the activation between, under one scale for all channels. So r1 is the range of the activation's channels,
seen on the calibration samples, and s = r1**a / r2**(1 - a), with the share a (the paper's is 1/2; Xiao et al.,
"SmoothQuant", 2023, vary it) for which the noise that rounding should cause is least; never more than unscaled.

Factors are powers of two: these scale floats without a rounding, so that the float network stays the same to the bit,
also where a deep one would make much of the smallest difference. It costs half a bit of evenness at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from edgekd.errors import ProofFailed
from edgekd.quantize.calibrate import not_finite
from edgekd.quantize.prepared import Prepared
from edgekd.quantize.weighted import Layer, channel_shape, layers, over_channels, quantizer_at

aten = torch.ops.aten
# f(s x) = s f(x) for s > 0, each channel by itself.
HOMOGENEOUS = {
    aten.relu.default,
    aten.max_pool2d.default,
    aten.avg_pool2d.default,
    aten.adaptive_avg_pool2d.default,
}
SHARES = (0.25, 0.5, 0.75, 1.0)
# Added to the exponents before they are rounded.
SHIFTS = (0.0, 0.25, 0.5, 0.75)
# Exponents stay within this of their middle: beyond it a weight would vanish beside its neighbours.
FURTHEST = 10
# Of the noise expected unscaled: what saves less is left as it is.
WORTH = 0.9
# Of the largest output: kernels may sum in another order.
EQUAL = 1e-5
TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Pair:
    """A layer and those that read what it gives, through homogeneous operators alone."""

    first: Layer
    readers: tuple[Layer, ...]


def equalize(prepared: Prepared, batches: Iterable[Tensor]) -> int:
    """Scale the channels between layers in ``prepared``, before it is calibrated; returns between how many.

    The ranges are seen on ``batches``, with nothing rounded.

    Raises:
        BadData: NaN or infinity flows through the network.
        ProofFailed: the float network computes something else than before.
    """
    found = pairs(prepared.module)
    seen = _Ranges(prepared.module, found)
    probes: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad(), prepared.frozen(), prepared.floating():
        for batch in batches:
            output = seen.run(batch)
            probes = probes or [(batch, output)]
        (probe, before) = probes[0]
        if not before.isfinite().all():
            _refuse(prepared, probe)
        scaled = sum(_scale(pair, seen.range_of(pair), seen.square_of(pair)) for pair in found)
        after = prepared.module(probe)
    if not (after - before).abs().max() <= EQUAL * before.abs().max():
        raise ProofFailed(
            "equalization changed what the float network computes",
            where="quantize.equalization",
            remedy="this is a fault of edgekd: please report it, and build with quantize.equalization: false",
        )
    return scaled


def pairs(module: GraphModule) -> list[Pair]:
    """What can be scaled: weights and biases are no other layer's, nothing else reads the values between."""
    found = {layer.node: layer for layer in layers(module)}
    result = []
    for layer in found.values():
        readers = [None if node is None else found.get(node) for node in _readers(module, layer.node)]
        same_axis = [one for one in readers if one is not None and not one.shared and one.axis == layer.axis]
        if readers and len(same_axis) == len(readers) and not layer.shared:
            result.append(Pair(layer, tuple(same_axis)))
    return result


def _refuse(prepared: Prepared, probe: Tensor) -> NoReturn:
    """Tell that the network does not answer ``probe`` with numbers, and where that begins."""
    # Calibration names the first of its sites; there is none at the network's output.
    prepared.copy().calibrate([probe])
    raise not_finite("the network's output")


def _readers(module: GraphModule, node: Node) -> Iterator[Node | None]:
    """The nodes that end the homogeneous chains from ``node``; None for one that takes it as something else."""
    for user in node.users:
        if quantizer_at(module, user) is not None or user.target in HOMOGENEOUS:
            yield from _readers(module, user)
        else:
            yield user if user.args and user.args[0] is node else None


class _Ranges(Interpreter):
    """Notes, for each pair, the largest magnitude and the mean square of the channels that its readers get."""

    def __init__(self, module: GraphModule, found: list[Pair]) -> None:
        super().__init__(module)
        self.inputs = {pair.readers[0].node.args[0]: pair.readers[0].axis for pair in found}
        self.largest: dict[Any, list[Tensor]] = {node: [] for node in self.inputs}
        self.squares: dict[Any, list[Tensor]] = {node: [] for node in self.inputs}

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n in self.inputs:
            channels = over_channels(value, self.inputs[n])
            self.largest[n].append(channels.abs().amax(1))
            self.squares[n].append(channels.square().mean(1))
        return value

    def range_of(self, pair: Pair) -> Tensor:
        """(channels,): the mean over batches of the largest magnitude, as moving averages see it."""
        return torch.stack(self.largest[pair.readers[0].node.args[0]]).mean(0)

    def square_of(self, pair: Pair) -> Tensor:
        """(channels,): the mean square."""
        return torch.stack(self.squares[pair.readers[0].node.args[0]]).mean(0)


def _scale(pair: Pair, largest: Tensor, square: Tensor) -> bool:
    """Scale the pair by the best factors; False where none are worth it."""
    readers = _Readers(pair.readers)
    candidates = [_factors(largest, readers, share, shift) for share in SHARES for shift in SHIFTS]
    noises = [readers.noise(largest, square, factors) for factors in candidates]
    best = min(range(len(candidates)), key=noises.__getitem__)
    if not noises[best] < WORTH * readers.noise(largest, square, torch.ones_like(largest)):
        return False
    factors, first = candidates[best], pair.first
    first.weight.data.div_(factors.reshape(channel_shape(first.weight, 0)))
    if first.bias is not None:
        first.set_bias(first.bias / factors)
    for layer in pair.readers:
        weight = layer.weight.data
        weight.mul_(_by_weight(layer, factors).reshape(*weight.shape[:2], *[1] * (weight.dim() - 2)))
    return True


def _factors(largest: Tensor, readers: _Readers, share: float, shift: float) -> Tensor:
    """(channels,) > 0; 1 for a channel that never fires or that no one reads."""
    # A row has its own scale: what counts is how much of it a channel takes.
    read = (readers.largest / readers.largest.amax(1, keepdim=True).clamp(min=TINY)).amax(0)
    live = (largest > 0) & (read > 0)
    factors = torch.ones_like(largest)
    if live.any():
        exponents = share * largest[live].log2() - (1 - share) * read[live].log2()
        factors[live] = 2 ** (exponents - exponents.median() + shift).round().clamp(-FURTHEST, FURTHEST)
    return factors


class _Readers:
    """The readers' weights as one matrix: a row for each output, a column for each channel that they read."""

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        kernels = [one.weight.detach().reshape(*one.weight.shape[:2], -1) for one in layers]
        pairs = list(zip(layers, kernels, strict=True))
        self.largest = torch.cat([_by_channel(one, kernel.abs().amax(2)) for one, kernel in pairs])
        self.squares = torch.cat([_by_channel(one, kernel.square().sum(2)) for one, kernel in pairs])
        self.sizes = torch.cat([_by_channel(one, torch.ones_like(kernel).sum(2)) for one, kernel in pairs])

    def noise(self, largest: Tensor, square: Tensor, factors: Tensor) -> float:
        """Expected square error summed over the outputs, in units of a constant; errors taken for independent."""
        rounded_input = (largest / factors).max().square() * (self.squares.sum(0) * factors.square()).sum()
        steps = (self.largest * factors).amax(1).square()
        rounded_weight = (steps * (self.sizes @ (square / factors.square()))).sum()
        return float(rounded_input + rounded_weight)


def _by_channel(layer: Layer, value: Tensor) -> Tensor:
    """(out, channels) of (out, in / groups): zero where a group does not read a channel."""
    groups, (out, width) = layer.groups, value.shape
    whole = value.new_zeros(groups, out // groups, groups, width)
    index = torch.arange(groups)
    whole[index, :, index] = value.reshape(groups, out // groups, width)
    return whole.reshape(out, groups * width)


def _by_weight(layer: Layer, factors: Tensor) -> Tensor:
    """(out, in / groups) of (channels,): the factor of the channel that a weight reads."""
    groups, out = layer.groups, len(layer.weight)
    return factors.reshape(groups, 1, -1).expand(-1, out // groups, -1).reshape(out, -1)
