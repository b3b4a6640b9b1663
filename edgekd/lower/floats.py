"""Half precision for what is not integer: strongly typed TensorRT runs float in the type written in the file."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgekd.errors import BadModel
from edgekd.lower.graph import Graph

HIGHEST = float(np.finfo(np.float16).max)
# Smaller constants save nothing; Clip's bounds and the like are read when a graph is optimized.
FEWEST_STORED = 64


def to_float16(graph: Graph) -> None:
    """Float constants become float16, with a Cast behind the network's input and in front of its output.

    The DequantizeLinear's type is that of its scale (opset 19 and later), so scales are cast too; those of a Resize are
    float32 whatever it resizes. Raises:
        BadModel: a constant does not fit float16.
    """
    resizing = {node.input[2] for node in graph.model.graph.node if node.op_type == "Resize" and len(node.input) > 2}
    for name, tensor in list(graph.constants.items()):
        if tensor.data_type == TensorProto.FLOAT and name not in resizing:
            graph.set_constant(name, _half(name, graph.array(name)))
    nodes = graph.model.graph.node
    for value in graph.model.graph.input:
        if value.type.tensor_type.elem_type != TensorProto.FLOAT:
            continue
        half = f"{value.name}_fp16"
        for node in graph.consumers.get(value.name, []):
            for index, name in enumerate(node.input):
                if name == value.name:
                    node.input[index] = half
        nodes.insert(0, helper.make_node("Cast", [value.name], [half], name=half, to=TensorProto.FLOAT16))
    for value in graph.model.graph.output:
        node = graph.producer[value.name]
        half = f"{value.name}_fp16"
        node.output[list(node.output).index(value.name)] = half
        nodes.append(helper.make_node("Cast", [half], [value.name], name=f"{half}_out", to=TensorProto.FLOAT))
    graph.refresh()
    _no_float32_left(graph.model)


def store_float16(graph: Graph) -> None:
    """Weights are stored in float16 and cast to float32, which runtimes do once when they load the file.

    Raises:
        BadModel: a constant does not fit float16.
    """
    nodes = graph.model.graph.node
    for name, tensor in list(graph.constants.items()):
        if tensor.data_type != TensorProto.FLOAT or graph.array(name).size < FEWEST_STORED:
            continue
        half = graph.set_constant(f"{name}_fp16", _half(name, graph.array(name)))
        graph.model.graph.initializer.remove(tensor)
        nodes.insert(0, helper.make_node("Cast", [half], [name], name=f"{name}_fp32", to=TensorProto.FLOAT))
    graph.refresh()


def _half(name: str, value: np.ndarray) -> np.ndarray:
    # Infinity, which masks hold, is a number of float16.
    highest = np.abs(value[np.isfinite(value)]).max(initial=0)
    if highest > HIGHEST:
        raise BadModel(f"{name} holds {highest:g}, which float16 cannot", where=name, remedy="use precision: fp32")
    return value.astype(np.float16)


def _no_float32_left(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for attribute in node.attribute:
            if (
                attribute.name == "to"
                and attribute.i == TensorProto.FLOAT
                and node.output[0] not in {value.name for value in model.graph.output}
            ):
                attribute.i = TensorProto.FLOAT16
