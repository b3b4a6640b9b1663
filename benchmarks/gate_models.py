"""The models that gate_rates.py compares: a chain of 3x3 convolutions of about 2 ms, and one with a layer more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS, SIDE, LAYERS = 32, 34, 19


def save_chain(path: Path, *, layers: int = LAYERS, last_kernel: tuple[int, int] | None = None) -> Path:
    """``layers`` convolutions, each with ReLU, pooled to logits (1, CHANNELS); ``last_kernel`` of one more layer.

    All layers cost the same, so that one more is a slow-down of one in ``layers``; a smaller kernel costs less.
    """
    random = np.random.default_rng(0)
    nodes, weights, value = [], [], "input"
    for index, kernel in enumerate([(3, 3)] * layers + ([last_kernel] if last_kernel else [])):
        weight = random.normal(size=(CHANNELS, CHANNELS, *kernel)) / (kernel[0] * kernel[1] * CHANNELS) ** 0.5
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"w{index}"))
        before = [(size - 1) // 2 for size in kernel]
        after = [size - 1 - first for size, first in zip(kernel, before, strict=True)]
        nodes += [
            helper.make_node("Conv", [value, f"w{index}"], [f"c{index}"], pads=[*before, *after]),
            helper.make_node("Relu", [f"c{index}"], [f"r{index}"]),
        ]
        value = f"r{index}"
    nodes += [helper.make_node("GlobalAveragePool", [value], ["p"]), helper.make_node("Flatten", ["p"], ["logits"])]
    shape = [1, CHANNELS, SIDE, SIDE]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CHANNELS])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def feeds() -> dict[str, np.ndarray]:
    """Normal noise for a chain, (1, CHANNELS, SIDE, SIDE) float32."""
    return {"input": np.random.default_rng(1).normal(size=(1, CHANNELS, SIDE, SIDE)).astype(np.float32)}
