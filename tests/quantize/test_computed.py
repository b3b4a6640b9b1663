"""Weights that a network computes: constant ones become weights like others, what the input changes stays float."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rewritten_nets import Net, conv, norm, rewritten
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.measure.proof import onnx_run
from edgekd.quantize import write_master
from edgekd.quantize.equalize import equalize


class Standardized(nn.Conv2d):
    """A convolution whose weight is computed (weight standardization)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias, padding=1)


@pytest.mark.parametrize("place", ["sum", "norm", "factor"])
def test_computed_weights_are_weights_like_others(place: str) -> None:
    run = {
        "sum": lambda m, x: m.a(x) + m.b(x),
        "norm": lambda m, x: m.n(m.a(x)) + m.b(x),
        "factor": lambda m, x: m.a(x) * m.gamma["g"],
    }[place]
    gamma = nn.ParameterDict({"g": nn.Parameter(torch.rand(4, 1, 1) + 0.5)})
    net = Net(run, a=Standardized(4, 4, 3), b=conv(4, 4, 3), n=norm(4), gamma=gamma)
    made, found = rewritten(net, 4, 6, 6)
    assert (found["conv2d"], found["batch_norm"], found["mul"], found["sub"]) == (1, 0, 0, 0)
    assert made.without_rule == {}


def test_layers_share_a_computed_weight() -> None:
    def both(m: nn.Module, x: Tensor) -> Tensor:
        weight = F.normalize(m.a.weight, dim=1)
        return F.conv2d(F.relu(F.conv2d(x, weight, padding=1)), weight, m.a.bias.tanh())

    made, found = rewritten(Net(both, a=conv(4, 4, 3)), 4, 6, 6)
    assert (found["conv2d"], found["div"], found["tanh"]) == (2, 0, 0)
    assert (
        len([name for name, _ in made.module.named_parameters() if name.endswith("weight") and "a." not in name]) == 1
    )


def test_weights_computed_from_the_input_stay_float(tmp_path: Path) -> None:
    def drawn(m: nn.Module, x: Tensor) -> Tensor:
        return m.b(F.relu(m.n(F.conv2d(x, m.a.weight * torch.sigmoid(m.a.bias.sum() + x.mean()), padding=1))))

    made, found = rewritten(Net(drawn, a=conv(4, 4, 3), b=conv(4, 4, 1), n=norm(4)), 4, 6, 6)
    assert (found["conv2d"], found["batch_norm"]) == (3, 0)
    assert made.without_rule == {"conv2d with a weight computed from the input": 1, "mean": 1}
    x = torch.randn(8, 4, 6, 6)
    made.calibrate([x])
    run = onnx_run(write_master(made, x[:2], tmp_path).path)
    wanted = made.run_quantized(x.numpy())
    assert np.abs(run(x.numpy()) - wanted).max() < 0.05 * np.abs(wanted).max()


def test_a_kernel_that_is_kept_as_a_buffer_is_a_weight() -> None:
    net = Net(lambda m, x: m.b(F.relu(F.conv2d(F.relu(m.a(x)), m.blur, groups=4))), a=conv(4, 4, 3), b=conv(4, 4, 1))
    net.register_buffer("blur", torch.full((4, 1, 2, 2), 0.25))
    made, _ = rewritten(net, 4, 6, 6)
    x = torch.randn(8, 4, 6, 6)
    x[:, 0] *= 100
    before = made.run_float(x.numpy())
    assert equalize(made, [x]) > 0
    assert np.allclose(made.run_float(x.numpy()), before, rtol=1e-5)
