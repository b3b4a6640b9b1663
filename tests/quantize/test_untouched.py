"""Conversion changes nothing: with quantizers off the prepared network is the float one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strict_nets import enliven, make_net
from torch import nn

from edgekd.quantize import prepare

# Of the largest output: what folding BatchNorm costs in float32 roundings.
EQUAL = 1e-5
ISSUE = ["resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "densenet121"]


def assert_untouched(net: nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        before = net(x).numpy()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    made = prepare(net, x[:2])
    assert np.abs(made.run_float(x.numpy()) - before).max() <= EQUAL * np.abs(before).max()
    assert len(list(made.quantizers())) > 3
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("name", [*ISSUE[:-1], "densenet"])
def test_issue_networks(name: str) -> None:
    assert_untouched(make_net(name, seed=1), torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ISSUE)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), size=st.sampled_from([64, 80, 96]), gain=st.sampled_from([1e-3, 1.0, 30.0]))
def test_issue_networks_more(name: str, seed: int, size: int, gain: float) -> None:
    x = gain * torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(seed))
    assert_untouched(make_net(name, seed), x)


class Cell(nn.Module):
    """What hypothesis varies around a convolution and its BatchNorm."""

    def __init__(self, *, groups: int, bias: bool, eps: float, affine: bool, act: nn.Module, order: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, padding=1, groups=groups, bias=bias)
        self.norm = nn.BatchNorm2d(4 if order == "norm-conv" else 8, eps=eps, affine=affine)
        self.act, self.order = act, order
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(self.norm(x)) if self.order == "norm-conv" else self.norm(self.conv(x))
        return self.head(self.drop(self.act(x)).mean((2, 3)))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    groups=st.sampled_from([1, 2, 4]),
    bias=st.booleans(),
    eps=st.sampled_from([1e-5, 1e-3, 0.1]),
    affine=st.booleans(),
    act=st.sampled_from([nn.ReLU(inplace=True), nn.ReLU6(), nn.Hardswish(inplace=True), nn.SiLU(), nn.Identity()]),
    order=st.sampled_from(["conv-norm", "norm-conv"]),
)
def test_any_cell(seed: int, **parts) -> None:
    """Also eps and the like are kept, which torchao's QAT preparation is known to reset."""
    torch.manual_seed(seed)
    assert_untouched(enliven(Cell(**parts).eval(), seed), torch.randn(3, 4, 9, 7))


def test_the_comparison_would_see_a_wrong_eps() -> None:
    torch.manual_seed(0)
    net = Cell(groups=1, bias=False, eps=1e-3, affine=True, act=nn.ReLU(), order="conv-norm").eval()
    enliven(net, 0)
    x = torch.randn(3, 4, 9, 7)
    with torch.no_grad():
        before = net(x).numpy()
    net.norm.eps = 1e-5
    assert np.abs(prepare(net, x[:2]).run_float(x.numpy()) - before).max() > EQUAL * np.abs(before).max()
