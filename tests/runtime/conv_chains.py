"""Real ONNX networks whose work is chosen: chains of 3x3 convolutions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def save_chain(path: Path, layers: int, *, channels: int = 16, side: int = 16, extra_mb: float = 0) -> Path:
    """``layers`` conv-relu, pooled to logits (N, channels); ``extra_mb`` of weights that a last product needs."""
    random = np.random.default_rng(0)
    nodes, values, x = [], [], "input"
    for i in range(layers):
        weight = random.normal(size=(channels, channels, 3, 3)).astype(np.float32) / (3 * channels**0.5)
        values.append(numpy_helper.from_array(weight, f"w{i}"))
        nodes += [
            helper.make_node("Conv", [x, f"w{i}"], [f"c{i}"], pads=[1] * 4),
            helper.make_node("Relu", [f"c{i}"], [f"r{i}"]),
        ]
        x = f"r{i}"
    nodes += [helper.make_node("GlobalAveragePool", [x], ["p"]), helper.make_node("Flatten", ["p"], ["logits"])]
    if extra_mb:
        wide = round(extra_mb * 1e6 / 4 / channels / 2)
        for name, shape in (("up", (channels, wide)), ("down", (wide, channels))):
            values.append(numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name))
        nodes[-1].output[0] = "f"
        nodes += [helper.make_node("MatMul", ["f", "up"], ["u"]), helper.make_node("MatMul", ["u", "down"], ["logits"])]
    return save(path, nodes, values, (channels, side, side), channels)


def save_nan(path: Path) -> Path:
    """A network that answers NaN: 0/0 of its own input."""
    nodes = [
        helper.make_node("Sub", ["input", "input"], ["zero"]),
        helper.make_node("Div", ["zero", "zero"], ["nan"]),
        helper.make_node("Flatten", ["nan"], ["logits"]),
    ]
    return save(path, nodes, [], (4, 1, 1), 4)


def save(path: Path, nodes: list, values: list, shape: tuple[int, ...], outputs: int) -> Path:
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", outputs])],
        values,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def feeds(batch: int = 1, channels: int = 16, side: int = 16) -> dict[str, np.ndarray]:
    """Normal noise for a chain."""
    return {"input": np.random.default_rng(1).normal(size=(batch, channels, side, side)).astype(np.float32)}
