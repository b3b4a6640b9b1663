"""AdaRound: whether a weight is rounded up or down is learned, so that its layer's output stays close to the float one.

Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020, section 3, layer after layer in
order: the float layer's output on float inputs is imitated on the inputs that the quantized layers before give. The
error is quadratic in the weights, so two matrices of moments, summed over the samples, hold all of it: every step sees
all samples, in memory that does not grow with them. The activation behind the layer is left out of the error. Rows
(outputs) are independent; one that ends worse than rounded to nearest is rounded to nearest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx import Interpreter
from torch.nn import functional as F

from edgekd.quantize.prepared import Prepared
from edgekd.quantize.weighted import Layer, layers

aten = torch.ops.aten
SAMPLES, STEPS, RATE = 256, 500, 0.03
# Of the rectified sigmoid, the regularizer's weight, its exponent from the first step to the last, and the share of
# steps without it.
ZETA, GAMMA = 1.1, -0.1
WEIGHT, SHARP, BLUNT, FREE = 1.0, 20.0, 2.0, 0.2
# Of the mean square of an input, added to each: a layer with more inputs than samples must not fit their noise.
DAMPING = 0.01


def learn_rounding(prepared: Prepared, reference: Prepared, batches: Iterable[Tensor]) -> int:
    """Put the weights of ``prepared``, calibrated, on their grid; returns how many are not rounded to nearest.

    ``reference`` is the same graph before its weights were changed; at most `SAMPLES` samples of ``batches`` are used,
    which are gone through once a layer. Weights stay float, whole multiples of their scale; those of a layer that gets
    nothing but zeros stay as they are.
    """
    moved = 0
    originals = {layer.node.name: layer for layer in layers(reference.module)}
    with prepared.frozen(), reference.frozen(), reference.floating():
        for layer in layers(prepared.module):
            if layer.quantizer is not None and not layer.shared:
                inputs, wanted = _moments(layer, originals[layer.node.name], batches)
                # Behind a dead ReLU nothing is multiplied but zeros: there is nothing to learn from.
                if inputs.any():
                    moved += _round(layer, inputs, wanted)
    return moved


def _moments(layer: Layer, original: Layer, batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """(groups, in, in) of the inputs with themselves; (groups, out / groups, in) of the wanted outputs with them.

    ``in`` are the inputs of one output, the kernel's places included; outputs are without their bias.
    """
    inputs: Any = 0
    both: Any = 0
    count = 0
    with torch.no_grad():
        for batch in _first(batches, SAMPLES):
            seen, true = columns(layer, _Until(layer).input(batch)), columns(original, _Until(original).input(batch))
            inputs, both = inputs + seen @ seen.mT, both + true @ seen.mT
            count += seen.shape[2]
        groups, width, _ = inputs.shape
        damping = DAMPING * inputs.diagonal(dim1=1, dim2=2).mean() / count * torch.eye(width)
        weight = original.weight.detach().reshape(groups, -1, width)
        return inputs / count + damping, weight @ (both / count + damping)


def columns(layer: Layer, x: Tensor) -> Tensor:
    """(groups, in, places): what the layer multiplies with its weight, from its input ``x``."""
    if layer.node.target == aten.linear.default:
        return x.flatten(0, -2).T[None]
    given: list[Any] = list(layer.node.args[3:6])
    settings = [*given, *([1], [0], [1])[len(given) :]]
    kernel = tuple(layer.weight.shape[2:])
    if x.dim() == 3:  # a signal is an image of one line
        x, kernel = x[:, :, None], (1, *kernel)
        settings = [[neutral, *one] for neutral, one in zip((1, 0, 1), settings, strict=True)]
    stride, padding, dilation = (tuple([*one, *one][:2]) for one in settings)
    unfolded = F.unfold(x, kernel, dilation, padding, stride)
    return unfolded.unflatten(1, (layer.groups, -1)).permute(1, 2, 0, 3).flatten(2)


def _round(layer: Layer, inputs: Tensor, wanted: Tensor) -> int:
    """Learn the rounding of one layer and set its weight; returns how many weights are not the nearest code."""
    quantizer = layer.quantizer
    assert quantizer is not None
    shape = layer.weight.shape
    scale = quantizer.calculate_qparams()[0].reshape(*wanted.shape[:2], 1)
    codes = layer.weight.detach().reshape(wanted.shape) / scale
    lowest, highest = quantizer.quant_min, quantizer.quant_max
    down = codes.floor()

    def error(weight: Tensor) -> Tensor:
        """(groups, out / groups): the mean square error, less what no weight changes."""
        return ((weight @ inputs - 2 * wanted) * weight).sum(2)

    def grid(up: Tensor) -> Tensor:
        return (down + up).clamp(lowest, highest)

    nearest = codes.round().clamp(lowest, highest)
    with torch.no_grad():
        # The least that any real weights could leave: what is above it is what rounding costs.
        least = error(torch.linalg.solve(inputs, wanted.mT).mT)
        before = error(nearest * scale)
        cost = (before - least).clamp(min=torch.finfo(scale.dtype).tiny)
    share = (codes - down).clamp(0.01, 0.99)
    choice = torch.logit((share - GAMMA) / (ZETA - GAMMA)).requires_grad_()
    optimizer = torch.optim.Adam([choice], lr=RATE)
    for step in range(STEPS):
        up = (choice.sigmoid() * (ZETA - GAMMA) + GAMMA).clamp(0, 1)
        loss = (error(grid(up) * scale) / cost).sum()
        way = (step / STEPS - FREE) / (1 - FREE)
        if way > 0:
            loss = loss + WEIGHT * (1 - (2 * up - 1).abs() ** (SHARP + (BLUNT - SHARP) * way)).mean(2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        learned = grid((choice.sigmoid() * (ZETA - GAMMA) + GAMMA > 0.5).float())
        chosen = torch.where((error(learned * scale) < before)[:, :, None], learned, nearest)
        layer.weight.data.copy_((chosen * scale).reshape(shape))
    return int((chosen != nearest).sum())


class _Until(Interpreter):
    """Runs the network as far as a layer."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer.module)
        self.layer = layer

    def input(self, x: Tensor) -> Tensor:
        """What flows into the layer."""
        self.env, self.args_iter = {}, iter([x])
        for node in self.graph.nodes:
            if node is self.layer.node:
                break
            self.env[node] = self.run_node(node)
            for read in self.user_to_last_uses.get(node, ()):
                del self.env[read]
        found: Tensor = self.env[self.layer.node.args[0]]  # type: ignore[index]
        return found


def _first(batches: Iterable[Tensor], samples: int) -> Iterator[Tensor]:
    """The first ``samples`` samples."""
    for batch in batches:
        yield batch[:samples]
        samples -= len(batch)
        if samples <= 0:
            return
