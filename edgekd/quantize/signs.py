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
# The least values of hardswish, GELU and SiLU, the latter with room for the rounding of its sigmoid.
SILU = -0.29
FLOORS = {"HardSwish": -0.375, "Gelu": -0.17}
INHERIT_ALL = {"Add", "Mul", "Concat", "Max"}


def nonnegative_values(model: onnx.ModelProto) -> set[str]:
    """Names of the values that cannot be negative, in one pass over the (sorted) nodes."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found: set[str] = set()
    for node in model.graph.node:
        if (
            node.op_type in ALWAYS
            or (node.op_type == "Clip" and _clip_floor(node, constants) >= 0)
            or (_inherits(node, constants) and node.input[0] in found)
            or (node.op_type in INHERIT_ALL and all(name in found for name in node.input))
        ):
            found.update(node.output)
    return found


def floors(model: onnx.ModelProto) -> dict[str, float]:
    """What the signed values of a master cannot fall below, where that is known, by their names.

    Not for what is concatenated: its parts share one form.
    """
    producer = {name: node for node in model.graph.node for name in node.output}

    def in_front(name: str) -> str:
        """A value's name in front of its site."""
        while (node := producer.get(name)) is not None and node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            name = node.input[0]
        return name

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found: dict[str, float] = {}
    for node in model.graph.node:
        floor = FLOORS.get(node.op_type)
        if _inherits(node, constants):
            floor = found.get(node.input[0])
        elif node.op_type == "Mul":
            for data, other in (node.input, node.input[::-1]):
                gate = producer.get(in_front(other))
                if gate is None or gate.op_type not in ("Sigmoid", "HardSigmoid"):
                    continue
                own = gate.op_type == "Sigmoid" and in_front(gate.input[0]) == in_front(data)
                # A factor of at most one brings a value nearer to zero.
                floor = SILU if own else found.get(data)
        if floor is not None:
            found.update(dict.fromkeys(node.output, floor))
    concatenated = _concatenated(model)
    return {name: floor for name, floor in found.items() if name not in concatenated}


def _concatenated(model: onnx.ModelProto) -> set[str]:
    """Inputs and outputs of all concatenations, and what only moves to or from them."""
    producer = {name: node for node in model.graph.node for name in node.output}
    found: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "Concat" or (node.op_type in INHERIT_FIRST and node.input[0] in found):
            found.update(node.output)
    pending = [name for node in model.graph.node if node.op_type == "Concat" for name in node.input]
    while pending:
        name = pending.pop()
        source = producer.get(name)
        found.add(name)
        if source is not None and source.op_type in INHERIT_FIRST:
            pending += source.input[:1]
    return found


def signed_by_concatenation(model: onnx.ModelProto, nonnegative: set[str]) -> set[str]:
    """Non-negative values that are concatenated with signed ones, and what moves them there and on.

    They share a scale with them, and are to share an integer type: the concatenation then moves codes. (OpenVINO
    2026.4 computes wrong numbers where a site of one type follows a concatenation of the other.)
    """
    found: set[str] = set()
    before = -1
    while len(found) > before:
        before = len(found)
        for node in model.graph.node:
            if node.op_type != "Concat" and node.op_type not in INHERIT_FIRST:
                continue
            moved = [*(node.input if node.op_type == "Concat" else node.input[:1]), *node.output]
            signed = found.intersection(moved) or (node.op_type == "Concat" and node.output[0] not in nonnegative)
            if signed:
                found.update(nonnegative.intersection(moved))
    return found


def _inherits(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    """Whether a node's values are at least the least of its input's, or zero."""
    if node.op_type == "Pad":
        value = node.input[2] if len(node.input) > 2 else ""
        return not value or (value in constants and float(numpy_helper.to_array(constants[value])) >= 0)
    # Cubic interpolation goes beyond what it is between.
    cubic = any(attribute.name == "mode" and attribute.s == b"cubic" for attribute in node.attribute)
    return node.op_type in INHERIT_FIRST and not (node.op_type == "Resize" and cubic)


def _clip_floor(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> float:
    if len(node.input) < 2 or node.input[1] not in constants:
        return float("-inf")
    return float(numpy_helper.to_array(constants[node.input[1]]))
