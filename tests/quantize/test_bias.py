"""Bias correction: the means of layers are those of the float network again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from strict_nets import make_net, prepared, samples
from torch import nn
from torch.fx import Interpreter

from edgekd.measure.proof import onnx_run
from edgekd.quantize import Prepared, prepare, write_master
from edgekd.quantize.bias import correct_biases
from edgekd.quantize.observers import observes_weight
from edgekd.quantize.weighted import layers


class Biased(nn.Module):
    """Positive inputs and weights that all round down: every layer loses, and passes the loss on."""

    def __init__(self, *, bias: bool = True) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, bias=bias), nn.Conv2d(8, 8, 1, bias=bias)
        self.tied, self.head = nn.Linear(8, 8, bias=bias), nn.Linear(8, 5, bias=bias)
        with torch.no_grad():
            for layer in (self.one, self.two, self.tied, self.head):
                layer.weight.fill_(30.4)
                layer.weight[:, 0] = 127  # the scale is 1, so 30.4 becomes 30

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.two(self.one(x).relu()).relu().mean((2, 3))
        return self.head(self.tied(self.tied(x)))


def channel_means(made: Prepared, x: torch.Tensor) -> dict[str, torch.Tensor]:
    names = {layer.node.name: layer.axis for layer in layers(made.module)}
    found = {}

    class Noting(Interpreter):
        def run_node(self, n):
            value = super().run_node(n)
            if n.name in names:
                found[n.name] = value.movedim(names[n.name], 0).flatten(1).mean(1)
            return value

    with torch.no_grad():
        Noting(made.module).run(x)
    return found


def errors(made: Prepared, reference: Prepared, x: torch.Tensor) -> dict[str, float]:
    """For each layer: the mean error of its channels over their mean, from rounding weights alone."""
    with reference.floating():
        want = channel_means(reference, x)
    with made.floating(weights=False):
        got = channel_means(made, x)
    return {name: float((got[name] - want[name]).abs().mean() / want[name].abs().mean()) for name in want}


@pytest.mark.parametrize("bias", [True, False])
def test_means_are_those_of_the_float_network(bias: bool) -> None:
    torch.manual_seed(0)
    net, x = Biased(bias=bias).eval(), torch.rand(64, 3, 8, 8)
    reference = prepare(net, x[:2])
    reference.calibrate(x.split(64))
    made = reference.copy()
    before = errors(made, reference, x)
    assert correct_biases(made, reference, [x]) == 5
    after = errors(made, reference, x)
    assert min(before.values()) > 1e-3
    # What is left in a batch of all samples are float32 roundings.
    assert max(after.values()) < 1e-5
    # The layer that is used twice has two biases now.
    assert len({layer.bias.sum().item() for layer in layers(made.module)}) == 5
    with reference.floating():
        assert np.abs(reference.run_float(x.numpy()) - net(x).detach().numpy()).max() < 1e-3


def test_activations_stay_float_meanwhile() -> None:
    """What is corrected is the same in every form, however finely it rounds them."""
    x = samples("mobilenet-xs").split(16)
    fine, coarse = (prepared("mobilenet-xs").copy() for _ in range(2))
    for _, quantizer in coarse.quantizers():
        if not observes_weight(quantizer):
            quantizer.scale.mul_(8)
    for made in (fine, coarse):
        correct_biases(made, prepared("mobilenet-xs"), x)
    for one, other in zip(layers(fine.module), layers(coarse.module), strict=True):
        assert torch.equal(one.bias, other.bias)


def test_several_batches_in_one_pass() -> None:
    """The early batches' estimates are those of fewer samples: close to one batch of all."""
    x = samples("mobilenet-xs")
    made, reference = prepared("mobilenet-xs").copy(), prepared("mobilenet-xs")
    before = errors(made, reference, x)
    correct_biases(made, reference, x.split(16))
    after = errors(made, reference, x)
    assert sum(after.values()) < 0.35 * sum(before.values())


def test_the_logits_come_closer_and_the_master_follows(tmp_path: Path) -> None:
    x, net = samples("mobilenet-xs"), make_net("mobilenet-xs")
    with torch.no_grad():
        want = net(x).numpy()
    made = prepared("mobilenet-xs").copy()
    correct_biases(made, prepared("mobilenet-xs"), x.split(16))
    distance = []
    for one in (prepared("mobilenet-xs").copy(), made):
        with one.floating(weights=False):
            distance.append(np.square(one.run_quantized(x.numpy()) - want).mean())
    assert distance[1] < 0.8 * distance[0]
    master = write_master(made, x[:2], tmp_path)
    got = made.run_quantized(x.numpy())
    assert np.sqrt(np.square(onnx_run(master.path)(x.numpy()) - got).mean()) < 0.05 * np.sqrt(np.square(got).mean())
