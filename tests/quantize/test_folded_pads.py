"""Zero padding in front of convolutions: theirs in master and float file, with the same numbers; other pads stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from rewritten_nets import Net, conv
from torch import nn
from torch.nn import functional as F

from edgekd.measure.proof import onnx_run
from edgekd.quantize import export_float, prepare, write_master
from edgekd.quantize.folded_pads import fold_pads


def written(net: Net, *shape: int, folder: Path) -> dict[str, list]:
    """The pads of the convolutions, and the numbers of other Pads, of master and float file, which both compute it."""
    torch.manual_seed(0)
    net.eval()
    x = torch.randn(16, *shape)
    made = prepare(net, x[:2])
    made.calibrate([x])
    master = write_master(made, x[:2], folder)
    export_float(net, x[:2], folder / "float.onnx")
    with torch.no_grad():
        want = net(x).numpy()
    for path, expected in ((master.path, made.run_quantized(x.numpy())), (folder / "float.onnx", want)):
        assert np.abs(onnx_run(path)(x.numpy()) - expected).max() < 1e-5 * np.abs(want).max()
    values = {name for node in onnx.load(master.path).graph.node for name in node.input}
    assert {site.tensor for site in master.sites} <= values
    found: dict[str, list] = {}
    for path in (master.path, folder / "float.onnx"):
        nodes = onnx.load(path).graph.node
        pads = [list(a.ints) for node in nodes if node.op_type == "Conv" for a in node.attribute if a.name == "pads"]
        found[path.stem] = [*pads, *(node.op_type for node in nodes if node.op_type == "Pad")]
    return found


# What runs in front of the convolution b, whose own padding is 1 at each end, and the pads that come of it.
FOLDED = {
    "the same at both ends": (lambda m, x: m.b(F.pad(x, (2, 2, 1, 1))), [[2, 3, 2, 3]]),
    "one more at the ends": (lambda m, x: m.b(F.pad(x, (0, 1, 0, 1))), [[1, 1, 2, 2]]),
    "each end another": (lambda m, x: m.b(F.pad(x, (0, 1, 2, 3))), [[3, 1, 4, 2]]),
    "in a row": (lambda m, x: m.b(F.pad(F.pad(x, (1, 0)), (0, 0, 0, 2))), [[1, 2, 3, 1]]),
    "stride, dilation, groups": (lambda m, x: m.d(F.pad(x, (1, 2, 0, 1))), [[2, 3, 3, 4]]),
    "two convolutions": (lambda m, x: F.relu(m.b(y := F.pad(x, (0, 1, 0, 1)))) + m.c(y), [[1, 1, 2, 2], [1, 1, 2, 2]]),
    "behind it a ReLU": (lambda m, x: m.b(F.relu(F.pad(x, (2, 2, 1, 1)))), [[2, 3, 2, 3]]),
    "in a row, behind them a ReLU6": (lambda m, x: m.b(F.relu6(F.pad(F.pad(x, (1, 0)), (0, 0, 0, 2)))), [[1, 2, 3, 1]]),
    "behind it a ReLU6 as a module": (lambda m, x: m.b(m.e(F.pad(x, (2, 2, 1, 1)))), [[2, 3, 2, 3]]),
    "behind it a clip around zero": (lambda m, x: m.b(F.hardtanh(F.pad(x, (0, 1, 0, 1)))), [[1, 1, 2, 2]]),
    "one more reader": (lambda m, x: m.b(y := F.pad(x, (0, 1, 0, 1))) + F.relu(y), [[1, 1, 2, 2], "Pad"]),
}
STAY = {
    "cropped": lambda m, x: m.b(F.pad(x, (-1, 1, 0, 1))),
    "ones": lambda m, x: m.b(F.pad(x, (0, 1, 0, 1), value=1.0)),
    "ones, behind them a ReLU": lambda m, x: m.b(F.relu(F.pad(x, (0, 1, 0, 1), value=1.0))),
    "zeros, behind them another function": lambda m, x: m.b(F.hardtanh(F.pad(x, (0, 1, 0, 1)), 1.0, 2.0)),
    "reflected": lambda m, x: m.b(F.pad(x, (1, 1, 1, 1), mode="reflect")),
    "in front of pooling": lambda m, x: m.b(F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 3, 2)),
    "channels": lambda m, x: m.b(F.pad(x[:, :3], (0, 0, 0, 0, 0, 1))),
}


def padded(run: object) -> Net:
    return Net(
        lambda m, x: run(m, F.hardswish(m.a(x))), a=conv(3, 4, 3), b=conv(4, 4, 3), c=conv(4, 4, 3),
        d=nn.Conv2d(4, 8, 3, stride=2, dilation=2, padding=2, groups=2), e=nn.ReLU6(),
    )  # fmt: skip


@pytest.mark.parametrize("name", FOLDED)
def test_zeros_are_the_convolutions(name: str, tmp_path: Path) -> None:
    run, pads = FOLDED[name]
    found = written(padded(run), 3, 11, 9, folder=tmp_path)
    assert found == {"master": [[1, 1, 1, 1], *pads], "float": [[1, 1, 1, 1], *pads]}


@pytest.mark.parametrize("name", STAY)
def test_other_pads_stay(name: str, tmp_path: Path) -> None:
    found = written(padded(STAY[name]), 3, 11, 9, folder=tmp_path)
    assert found["master"] == [[1, 1, 1, 1], [1, 1, 1, 1], "Pad"]


def test_at_the_input_and_of_signals_and_of_words(tmp_path: Path) -> None:
    net = Net(
        lambda m, x: m.b(F.relu(m.a(F.pad(x, (0, 3))))),
        a=nn.Conv1d(3, 4, 5, stride=2), b=nn.Conv1d(4, 4, 4, padding="same"),
    )  # fmt: skip
    assert written(net, 3, 12, folder=tmp_path)["master"] == [[0, 3], [1, 2]]


def test_a_relu_between_is_fused_into_the_layer_in_front(tmp_path: Path) -> None:
    """As where the ReLU comes first."""
    written(
        Net(lambda m, x: m.b(F.relu(F.pad(m.a(x), (0, 1, 0, 1)))), a=conv(3, 4, 3), b=conv(4, 4, 3)),
        3, 11, 9, folder=tmp_path,
    )  # fmt: skip
    graph = onnx.load(tmp_path / "master.onnx").graph
    relu = next(node for node in graph.node if node.op_type == "Relu")
    assert next(node for node in graph.node if relu.input[0] in node.output).op_type == "Conv"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_any_numbers_of_zeros(data: st.DataObject) -> None:
    """On a graph of ONNX alone, sites included: nothing is left but the convolution, and no number changes."""
    sizes = st.lists(st.integers(0, 3), min_size=4, max_size=4)
    zeros, own = data.draw(sizes), data.draw(sizes)
    stride, dilation, sited = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2)), data.draw(st.booleans())
    with_axes = data.draw(st.booleans())
    random = np.random.default_rng(0)
    constants = {
        "w": random.standard_normal((4, 1, 3, 2)).astype(np.float32),
        "sizes": np.array(zeros if with_axes else [0, 0, *zeros[:2], 0, 0, *zeros[2:]]),
        "axes": np.array([2, -1]),
        "scale": np.array(0.05, np.float32),
        "zero": np.array(3, np.int8),
    }
    attributes = {"strides": [stride] * 2, "dilations": [dilation] * 2, "group": 2}
    nodes = [helper.make_node("Pad", ["x", "sizes", *(["", "axes"] if with_axes else [])], ["padded"])]
    if sited:
        nodes = [*site("x", "before"), *nodes, *site("padded", "after")]
        nodes[2].input[0] = "before"
    source = "after" if sited else "padded"
    nodes.append(helper.make_node("Conv", [source, "w"], ["y"], pads=own, kernel_shape=[3, 2], **attributes))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    values[0] = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 2, 7, 6])
    graph = helper.make_graph(
        nodes, "g", values[:1], values[1:], [numpy_helper.from_array(value, name) for name, value in constants.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    x = random.standard_normal((2, 2, 7, 6)).astype(np.float32)
    before = reference(model, x)
    fold_pads(model.graph)
    assert [node.op_type for node in model.graph.node] == [*["QuantizeLinear", "DequantizeLinear"] * sited, "Conv"]
    np.testing.assert_allclose(reference(model, x), before, atol=1e-6)


def test_a_site_with_other_numbers_keeps_its_pad() -> None:
    nodes = [
        *site("x", "before"), helper.make_node("Pad", ["before", "sizes"], ["padded"]), *site("padded", "after"),
        helper.make_node("Conv", ["after", "w"], ["y"], kernel_shape=[1, 1]),
    ]  # fmt: skip
    for node in nodes[3:5]:
        node.input[1] = "other"
    values = {
        "scale": np.float32(0.05),
        "other": np.float32(0.1),
        "zero": np.int8(0),
        "sizes": np.array([0, 0, 1, 1] * 2),
    }
    graph = helper.make_graph(
        nodes, "g", [], [], [numpy_helper.from_array(np.asarray(v), k) for k, v in values.items()]
    )
    fold_pads(graph)
    assert list(graph.node) == nodes


def site(name: str, out: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{out}_codes"]),
        helper.make_node("DequantizeLinear", [f"{out}_codes", "scale", "zero"], [out]),
    ]


def reference(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return onnx.reference.ReferenceEvaluator(model).run(None, {"x": x})[0]
