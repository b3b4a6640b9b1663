"""Which values of an ONNX graph can never be negative: by structure, never by what was observed."""

from __future__ import annotations

import onnx
from onnx import numpy_helper

ALWAYS = {"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Abs"}
# Non-negative when every data input is.
INHERIT_FIRST = {
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "ReduceMean",
    "Reshape",
    "Flatten",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "Identity",
    "QuantizeLinear",
    "DequantizeLinear",
}
INHERIT_ALL = {"Add", "Mul", "Concat", "Max"}


def nonnegative_values(model: onnx.ModelProto) -> set[str]:
    """Names of the values that cannot be negative, in one pass over the (sorted) nodes."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found: set[str] = set()
    for node in model.graph.node:
        if (
            node.op_type in ALWAYS
            or (node.op_type == "Clip" and _clip_floor(node, constants) >= 0)
            or (node.op_type in INHERIT_FIRST and node.input[0] in found)
            or (node.op_type in INHERIT_ALL and all(name in found for name in node.input))
        ):
            found.update(node.output)
    return found


def _clip_floor(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> float:
    if len(node.input) < 2 or node.input[1] not in constants:
        return float("-inf")
    return float(numpy_helper.to_array(constants[node.input[1]]))
