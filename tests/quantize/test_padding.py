"""Paddings that are words: the same convolutions with numbers, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rewritten_nets import Net, conv, norm, rewritten
from torch import nn
from torch.nn import functional as F

# Kernel, dilation, and the zeros that torch adds at the end alone.
PADDINGS = [(3, 1, 0), (2, 1, 1), (4, 1, 1), (4, 2, 0), (2, 3, 1), (5, 2, 0), (1, 1, 0)]


@pytest.mark.parametrize(("kernel", "dilation", "odd"), PADDINGS)
@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d])
def test_same_padding_in_numbers(kind: type[nn.Conv1d | nn.Conv2d], kernel: int, dilation: int, odd: int) -> None:
    options = {"padding": "same", "dilation": dilation}
    net = Net(
        lambda m, x: m.b(F.relu(m.a(x))),
        a=kind(4, 6, kernel, bias=False, **options), b=kind(6, 4, kernel, groups=2, **options),
    )  # fmt: skip
    shape = (4, 9) if kind is nn.Conv1d else (4, 9, 8)
    made, found = rewritten(net, *shape)
    assert (found["conv1d"] + found["conv2d"], found["pad"]) == (2, 2 * odd)
    assert made.without_rule == {}
    assert not any("padding" in str(node.target) for node in made.module.graph.nodes)
    x = torch.randn(5, *shape)
    with torch.no_grad():
        assert np.array_equal(made.run_float(x.numpy()), net(x).numpy())


def test_each_side_of_a_kernel_has_its_padding() -> None:
    net = Net(lambda m, x: m.a(x), a=nn.Conv2d(3, 4, (4, 5), padding="same", dilation=(1, 2)))
    made, _ = rewritten(net, 3, 9, 11)
    (pad,) = (node for node in made.module.graph.nodes if node.target == torch.ops.aten.pad.default)
    assert list(pad.args[1]) == [0, 0, 0, 1]


def test_valid_padding_and_norms_behind_words() -> None:
    net = Net(
        lambda m, x: m.b(F.relu(m.k(m.a(F.relu(m.n(m.s(x))))))),
        s=nn.Conv2d(3, 4, 3, padding="valid", stride=2), n=norm(4),
        a=nn.Conv2d(4, 4, 4, padding="same", bias=False), k=norm(4), b=conv(4, 4, 1),
    )  # fmt: skip
    made, found = rewritten(net, 3, 15, 15)
    assert (found["conv2d"], found["batch_norm"], found["pad"]) == (3, 0, 1)
    assert made.without_rule == {}
