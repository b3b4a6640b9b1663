"""The values inside an ONNX file: which there are, what they are for one input, and how a fused runtime shows some."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Inside = Callable[[np.ndarray], dict[str, np.ndarray]]

# Operators that pass numbers on as they are: no value of its own comes out of them.
MOVING = (
    "Cast",
    "DequantizeLinear",
    "Flatten",
    "Identity",
    "QuantizeLinear",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
HALF = "_fp16"
TAP = "_tap"


@dataclass(frozen=True)
class Value:
    """A float value that a network computes from its input.

    ``name`` is the graph's own, ``op`` what computes it, ``inputs`` the values that go into it (seen through operators
    that pass numbers on; the network's input is none), ``layer`` what its user knows it by: the module of its weights,
    or the operator behind the module before it.
    """

    name: str
    op: str
    layer: str
    inputs: tuple[str, ...]


def values_of(model: Any) -> list[Value]:
    """The values of an ``onnx.ModelProto`` in order; the graph's outputs are always among them."""
    kinds = _float_types(model)
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    # What a name stands for: the values that it is made of, empty for the network's input; constants have no entry.
    behind: dict[str, tuple[str, ...]] = {one.name: () for one in graph.input if one.name not in constants}
    found: dict[str, Value] = {}
    order: dict[str, int] = {}
    for node in graph.node:
        data = [name for name in node.input if name in behind]
        if not data:
            continue
        inputs = tuple(dict.fromkeys(one for name in data for one in behind[name]))
        for name in node.output:
            if name not in outputs and (node.op_type in MOVING or name not in kinds):
                behind[name] = inputs
                continue
            last = max((found[one] for one in inputs), key=lambda one: order[one.name], default=None)
            order[name] = len(order)
            found[name] = Value(name, node.op_type, _layer(node, constants, last), inputs)
            behind[name] = (name,)
    return list(found.values())


def open_inside(model: Any) -> Inside:
    """Every float value that a model computes for its one input, by name, in order; optimizations off.

    What QuantizeLinear and DequantizeLinear make is left out: it follows from what they take.
    """
    import onnx
    import onnxruntime

    kinds = _float_types(model)
    names = [
        name
        for node in model.graph.node
        for name in node.output
        if name in kinds and node.op_type not in ("QuantizeLinear", "DequantizeLinear")
    ]
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    known = {value.name for value in model.graph.output}
    shown.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, kinds[name], None) for name in names if name not in known
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    return lambda x: dict(zip(names, session.run(names, {source.name: x}), strict=True))


def with_taps(model: Any) -> Any:
    """A copy of a lowered model with every site's dequantized value as one more output, named after its tensor.

    Behind a site and not before it: a value that is read in float keeps its layer from running on integers.
    """
    import onnx

    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    graph = tapped.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in list(graph.node):
        if node.op_type != "QuantizeLinear" or node.input[0] in constants:
            continue
        codes, name = node.output[0], f"{node.input[0]}{TAP}"
        graph.node.append(onnx.helper.make_node("DequantizeLinear", [codes, *node.input[1:]], [name], name=name))
        kind = constants[node.input[1]].data_type
        graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    return tapped


def untapped(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of a tapped model under the names of the tensors."""
    return {name.removesuffix(TAP): value for name, value in outputs.items()}


def _float_types(model: Any) -> dict[str, int]:
    """The types of the values that are float."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in [*graph.value_info, *graph.output]}
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    return {name: kind for name, kind in kinds.items() if kind in floats}


def _layer(node: Any, constants: dict[str, Any], before: Value | None) -> str:
    """The module whose weights a node uses, else the operator and the module before it."""
    for name in node.input:
        if name in constants and len(constants[name].dims) > 1 and name.endswith(".weight"):
            return str(name.removesuffix(".weight"))
    place = before.layer.rpartition(" after ")[2] if before else "the input"
    return f"{node.op_type} after {place}"
