"""Means and sums over tokens in OpenVINO: right for every sample of a batch, and integer where a rounding follows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from lowered_nets import forms_of, target_of
from strict_nets import rms
from torch import Tensor, nn

from edgekd.backends import get_backend
from edgekd.lower import check_lowering, lower
from edgekd.lower.graph import Graph
from edgekd.measure.proof import onnx_run
from edgekd.quantize import prepare, write_master


class Net(nn.Module):
    """Three linear layers of 16 features, and what is done with them."""

    def __init__(self, do: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.other, self.head = (nn.Linear(16, 16) for _ in range(3))
        self.do = do

    def forward(self, x: Tensor) -> Tensor:
        return self.do(self, x)


def shared(net: Net, x: Tensor) -> Tensor:
    y = net.one(x)
    return net.other(y)[:, 0] + torch.softmax(y.relu().mean(1), 1)


def summed(net: Net, x: Tensor) -> Tensor:
    y = net.one(x)
    return net.other(y)[:, 0] + torch.softmax(y.sum(1) / 12, 1)


# The network, the form, and whether the sum reads integers.
NETS: dict[str, tuple[Callable[[Net, Tensor], Tensor], str, bool]] = {
    "output": (lambda net, x: net.one(x).mean(1), "int8", False),
    "behind a relu": (lambda net, x: net.one(x).relu().mean(1, keepdim=True).flatten(1), "int8", False),
    "of a residual addition": (lambda net, x: (x + net.one(x)).mean(-2), "int8", False),
    "of what a layer reads": (shared, "int8", False),
    "a sum": (summed, "int8", False),
    "in front of a layer": (lambda net, x: net.head(net.one(x).mean(1)), "int8", True),
    "in front of a float layer": (lambda net, x: net.head(net.one(x).mean(1)), "int8-float-ends", False),
    "moved in front of it": (
        lambda net, x: net.head(net.one(x).mean(1, keepdim=True).flatten(1)),
        "int8-float-ends",
        False,
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_every_sample_of_a_batch(name: str, tmp_path: Path) -> None:
    do, form_name, integer = NETS[name]
    torch.manual_seed(0)
    net, x = Net(do).eval(), torch.randn(8, 12, 16)
    made = prepare(net, x[:2])
    made.calibrate([x])
    master, form, path = write_master(made, x[:2], tmp_path), forms_of("openvino")[form_name], tmp_path / "model.onnx"
    backend, target = get_backend("openvino"), target_of("openvino")
    model = lower(master, form, vnni=target.has_vnni())
    check_lowering(master, model, form, vnni=target.has_vnni())
    onnx.save(model, path)
    compiled = backend.compile(path, target, tmp_path, form=form)
    session, batch = backend.load(compiled, target), x[:3].numpy()
    assert rms(session.run({"input": batch})["logits"], onnx_run(path)(batch)) < 0.01
    graph = Graph(model)
    (total,) = (node for node in model.graph.node if node.op_type.startswith("Reduce") and is_over_tokens(graph, node))
    assert graph.is_quantized(total.input[0]) == integer
    layers = backend.coverage(compiled, target)
    assert any(layer.integer for layer in layers) == (form_name == "int8")


def is_over_tokens(graph: Graph, node: onnx.NodeProto) -> bool:
    return len(graph.shapes[node.input[0]]) == 3 and not np.any(graph.array(node.input[1]) == 2)
