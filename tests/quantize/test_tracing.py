"""Networks that torch.export cannot trace, and operators that ONNX or the rules do not know."""

from __future__ import annotations

import linecache
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import BadModel
from edgekd.quantize import export_float, prepare
from edgekd.quantize.tracing import export


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.register_buffer("of_two", torch.zeros(2, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.before(x))


class Branch(Net):
    def before(self, x: Tensor) -> Tensor:
        if x.sum() > 0:  # the fault
            x = -x
        return x


class Loop(Net):
    def before(self, x: Tensor) -> Tensor:
        while x.norm() > 1:  # the fault
            x = x / 2
        return x


class Item(Net):
    def before(self, x: Tensor) -> Tensor:
        steps = int(x.abs().max().item())  # the fault
        return x * 2 if steps > 2 else x


class Numpy(Net):
    def before(self, x: Tensor) -> Tensor:
        return torch.from_numpy(np.tanh(x.numpy()))  # the fault


class Reshaped(Net):
    def before(self, x: Tensor) -> Tensor:
        return x.reshape(2, 4)  # the fault


class Samples(Net):
    def before(self, x: Tensor) -> Tensor:
        return torch.stack([row.abs() for row in x])  # the fault


class Buffer(Net):
    def before(self, x: Tensor) -> Tensor:
        return x + self.of_two  # the fault


class Shapes(Net):
    def before(self, x: Tensor) -> Tensor:
        return torch.matmul(x, x)  # the fault


class Inner(Net):
    """The fault lies in a module of the network, as in any real one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.ReLU(), Branch())

    def before(self, x: Tensor) -> Tensor:
        return torch.cat([self.inner(x), x[:, :1]], 1)


@pytest.mark.parametrize(
    ("net", "operator", "cause", "remedy"),
    [
        (Branch, "", "by the values of a tensor", "torch.where"),
        (Loop, "", "by the values of a tensor", "torch.where"),
        (Item, "", "by the values of a tensor", ".item()"),
        (Numpy, "torch.Tensor.numpy", "it leaves torch for numpy", "torch's own functions"),
        (Reshaped, "torch.Tensor.reshape", "a batch of the one size", "-1 or x.shape[0]"),
        (Samples, "torch.Tensor.unbind", "a batch of the one size", "no loop over samples"),
        (Buffer, "torch.Tensor.add", "a batch of the one size", "no buffer of a batch's size"),
        (Shapes, "torch.matmul", "", "mend this line"),
        (Inner, "", "by the values of a tensor", "torch.where"),
    ],
)
def test_operator_line_and_way_out(net, operator: str, cause: str, remedy: str, capsys) -> None:
    with pytest.raises(BadModel, match="cannot trace it") as caught:
        export(net().eval(), torch.ones(2, 4))
    error = caught.value
    file, line = error.where.removeprefix('File "').split('", line ')
    assert file == __file__
    assert "# the fault" in linecache.getline(file, int(line.split(",")[0]))
    assert operator in error.what
    assert cause in error.what
    assert remedy in error.remedy
    told = capsys.readouterr()
    assert told.out + told.err == ""


class Plain(Net):
    def before(self, x: Tensor) -> Tensor:
        return x.tanh()


def test_a_network_that_traces_keeps_its_lines() -> None:
    """They are in the graph of a watched trace too, but there they are the watch's."""
    program = export(Plain().eval(), torch.ones(2, 4))
    node = next(node for node in program.graph.nodes if node.op == "call_function" and "tanh" in node.name)
    assert "test_tracing.py" in node.meta["stack_trace"]
    assert "tracing.py" not in node.meta["stack_trace"].replace("test_tracing.py", "")


class Values(Net):
    def before(self, x: Tensor) -> Tensor:
        return x + torch.linalg.svdvals(x.reshape(-1, 2, 2)).sum(1, keepdim=True)


def test_an_operator_without_an_onnx_form(tmp_path) -> None:
    with pytest.raises(BadModel, match=r"ONNX has no form of aten\._linalg_svd") as caught:
        export_float(Values().eval(), torch.ones(2, 4), tmp_path / "float.onnx")
    assert "test_tracing.py" in caught.value.where
    assert list(tmp_path.iterdir()) == []


class Unruled(nn.Module):
    """Known operators around two that no rule knows; what is computed of weights alone does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 5)
        self.scale = nn.Parameter(torch.ones(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x).clone() * self.scale.atan()
        x = self.two(x.atan()).sinh()
        x = torch.fft.rfft2(x.asinh().atan()).real
        return self.head(x.mean((2, 3)))


def test_operators_without_a_rule_are_counted(tmp_path) -> None:
    x = torch.randn(8, 3, 8, 8)
    made = prepare(Unruled().eval(), x[:2])
    assert made.without_rule == {"asinh": 1, "atan": 2, "fft_rfft2": 1, "real": 1, "sinh": 1}
    assert math.isfinite(made.run_float(x.numpy()).sum())


def test_every_operator_of_the_own_networks_has_a_rule() -> None:
    from edgekd.models import build_model

    for name in ("resnet-xs", "dscnn-s", "mobilenet-xs"):
        for act in ("relu", "relu6", "hardswish"):
            net = build_model(f"edgekd:{name}", classes=5, input_shape=(1, 12, 12), args={"act": act, "width": 0.25})
            assert prepare(net, torch.ones(2, 1, 12, 12)).without_rule == {}
