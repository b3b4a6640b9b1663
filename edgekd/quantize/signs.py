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
    "Split",
    "Gather",
    "Pad",
    "Expand",
    "Resize",
    "DepthToSpace",
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


def signed_by_concatenation(model: onnx.ModelProto, nonnegative: set[str]) -> set[str]:
    """Non-negative values that are concatenated with signed ones, and what moves them there.

    They share a scale with them, and are to share an integer type: the concatenation then moves codes. (OpenVINO
    2026.4 computes wrong numbers where a site of one type follows a concatenation of the other.)
    """
    producer = {name: node for node in model.graph.node for name in node.output}
    found: set[str] = set()
    pending: list[str] = []
    for node in model.graph.node:
        if node.op_type == "Concat" and node.output[0] not in nonnegative:
            pending += [name for name in node.input if name in nonnegative]
    while pending:
        name = pending.pop()
        found.add(name)
        source = producer.get(name)
        if source is not None and source.op_type in (*INHERIT_FIRST, "Concat"):
            moved = source.input if source.op_type == "Concat" else source.input[:1]
            pending += [one for one in moved if one in nonnegative and one not in found]
    return found


def _clip_floor(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> float:
    if len(node.input) < 2 or node.input[1] not in constants:
        return float("-inf")
    return float(numpy_helper.to_array(constants[node.input[1]]))
