"""Equalization: the same float network, and less noise where channels of unequal range share a scale."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgekd.errors import BadData, ProofFailed
from edgekd.quantize import equalize as module
from edgekd.quantize import prepare
from edgekd.quantize.equalize import equalize, pairs
from edgekd.quantize.post_training import calibrated
from edgekd.target import CalibrationPolicy

POLICY = CalibrationPolicy(name="test", averaging=0.25, batch_size=16)


class Separable(nn.Module):
    """Expand, depthwise, project; ``gains`` makes the ranges of the channels between them unequal."""

    def __init__(self, act: Callable[[], nn.Module] = nn.ReLU, *, decades: float = 0.0, groups: int = 16) -> None:
        super().__init__()
        self.expand, self.act = nn.Conv2d(3, 16, 1), act()
        self.depth = nn.Conv2d(16, 16, 3, padding=1, groups=groups)
        self.project, self.head = nn.Conv2d(16, 8, 1, bias=False), nn.Linear(8, 5)
        with torch.no_grad():
            for layer, reader in ((self.expand, self.depth), (self.depth, self.project)):
                gains = 10 ** (decades * (torch.rand(16) - 0.5))
                layer.weight.mul_(gains.reshape(-1, 1, 1, 1))
                layer.bias.mul_(gains)
                width = reader.weight.shape[1]
                for out in range(len(reader.weight)):
                    first = out // (len(reader.weight) // reader.groups) * width
                    reader.weight[out].div_(gains[first : first + width].reshape(-1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.depth(self.act(self.expand(x))))
        return self.head(self.project(x).mean((2, 3)))


def signal_to_noise(net: nn.Module, made, x: torch.Tensor) -> float:
    with torch.no_grad():
        want = net(x)
    noise = torch.from_numpy(made.run_quantized(x.numpy())) - want
    return float(10 * torch.log10((want - want.mean(0)).square().mean() / noise.square().mean()))


def test_unequal_channels_of_a_depthwise_network() -> None:
    torch.manual_seed(0)
    net, x = Separable(decades=3).eval(), torch.randn(48, 3, 8, 8)
    plain = signal_to_noise(net, calibrated(net, x.split(16), POLICY), x)
    scaled = signal_to_noise(net, calibrated(net, x.split(16), POLICY, equalization=True), x)
    assert scaled > plain + 10  # dB


def test_equal_channels_are_left_alone() -> None:
    torch.manual_seed(0)
    net, x = Separable().eval(), torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        for layer in (net.expand, net.depth):
            layer.weight.copy_(layer.weight[:1].expand_as(layer.weight))
            layer.bias.fill_(0.1)
        net.project.weight.fill_(1)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    made = prepare(net, x[:2])
    assert equalize(made, x.split(2)) == 0
    assert all(torch.equal(made.module.state_dict()[name], value) for name, value in state.items())


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    decades=st.sampled_from([0.0, 1.0, 4.0]),
    groups=st.sampled_from([1, 4, 16]),
    act=st.sampled_from([nn.ReLU, nn.Identity]),
    dead=st.booleans(),
)
def test_the_float_network_stays(seed: int, decades: float, groups: int, act: type[nn.Module], dead: bool) -> None:
    torch.manual_seed(seed)
    net, x = Separable(act, decades=decades, groups=groups).eval(), torch.randn(4, 3, 7, 5)
    if dead:  # channels without a weight, that no one reads, that never fire
        with torch.no_grad():
            net.expand.weight[2] = 0
            net.project.weight[:, 3] = 0
            net.depth.bias[4] = -1e6
    with torch.no_grad():
        before = net(x).numpy()
    made = prepare(net, x[:2])
    assert equalize(made, x.split(2)) <= len(pairs(made.module)) == 2
    assert np.abs(made.run_float(x.numpy()) - before).max() <= 1e-5 * np.abs(before).max()


@pytest.mark.parametrize("act", [nn.ReLU6, nn.Hardswish, nn.SiLU, nn.GELU, nn.Sigmoid])
def test_what_is_not_homogeneous_ends_a_pair(act: type[nn.Module]) -> None:
    assert pairs(prepare(Separable(act).eval(), torch.randn(2, 3, 8, 8)).module) == []


class Branching(nn.Module):
    """A value that is read twice, a weight that is used twice, a residual, a pooled pair."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))
        self.three = nn.Conv2d(4, 4, 3, padding=2, dilation=2)  # else it would be merged with two
        self.tied, self.last, self.head = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 6, 1), nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.one(x).relu()
        y = self.two(y) + self.three(y)  # one with two and three; neither of them, since they are added
        y = self.tied(self.tied(y).relu())
        y = nn.functional.max_pool2d(self.two(y).relu(), 2)  # two is used twice
        return self.head(self.last(y).mean((2, 3)))


def test_branches_and_shared_weights() -> None:
    net, x = Branching().eval(), torch.randn(4, 4, 8, 8)
    made = prepare(net, x[:2])
    # Since two is used twice, its first reader cannot be scaled with one.
    assert pairs(made.module) == []
    net.two.weight = nn.Parameter(net.two.weight.detach().clone())
    net.forward = lambda x: net.head(net.last(nn.functional.max_pool2d(net.two(x).relu(), 2)).mean((2, 3)))
    (pair,) = pairs(prepare(net, x[:2]).module)
    assert [layer.node.name for layer in (pair.first, *pair.readers)] == ["conv2d", "conv2d_1"]


def test_two_readers_of_one_value() -> None:
    torch.manual_seed(1)
    net, x = Branching().eval(), torch.randn(4, 4, 8, 8)
    net.forward = lambda x: net.head(net.last(net.two(y := net.one(x).relu()) + net.three(y)).mean((2, 3)))
    with torch.no_grad():
        net.one.weight[0] *= 300
        before = net(x).numpy()
    made = prepare(net, x[:2])
    (pair,) = pairs(made.module)
    assert len(pair.readers) == 2
    assert equalize(made, x.split(2)) == 1
    assert np.abs(made.run_float(x.numpy()) - before).max() <= 1e-5 * np.abs(before).max()


def test_a_wrong_scaling_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net, x = Separable(decades=3).eval(), torch.randn(4, 3, 8, 8)
    monkeypatch.setattr(module, "_by_weight", lambda layer, factors: torch.ones_like(layer.weight[:, :, 0, 0]))
    with pytest.raises(ProofFailed, match="equalization changed"):
        equalize(prepare(net, x[:2]), x.split(2))


@pytest.mark.parametrize("batch", [0, 1])
def test_samples_that_are_no_numbers(batch: int) -> None:
    torch.manual_seed(0)
    net, x = Separable(decades=3).eval(), torch.randn(8, 3, 8, 8)
    x[4 * batch, 0, 2, 2] = torch.nan
    with pytest.raises(BadData, match=r"calibration, the network's input: NaN or infinity"):
        calibrated(net, x.split(4), POLICY, equalization=True)


@pytest.mark.parametrize(
    ("parameter", "place"),
    [("depth.weight", "depth.weight"), ("depth.bias", "relu_1 in act"), ("head.bias", "the network's output")],
)
def test_parameters_that_are_no_numbers(parameter: str, place: str) -> None:
    torch.manual_seed(0)
    net, x = Separable(decades=3).eval(), torch.randn(8, 3, 8, 8)
    net.get_parameter(parameter).data[1] = torch.nan
    with pytest.raises(BadData, match=rf"calibration, {place}: NaN or infinity"):
        calibrated(net, x.split(4), POLICY, equalization=True)
