"""Weights stored in int8 per output channel, arithmetic in float: a quarter of float32's file.

TensorRT's parsers take a DequantizeLinear on a weight for weight-only quantization, the one use of int8 that
TensorRT for RTX documents. ONNX Runtime would run a DequantizeLinear anew in every inference; for CPUs it is written as
a Cast and a Mul of constants, which runtimes compute once, when they load the file.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgekd.forms import QuantForm
from edgekd.lower.graph import WEIGHTED, Graph
from edgekd.lower.numbers import quantize_weight, written_scale

# Smaller weights save nothing.
FEWEST = 64


def store_int8(graph: Graph, form: QuantForm) -> None:
    """In place: the constant weights of an all-float graph as int8 codes and float32 scales."""
    nodes = graph.model.graph.node
    made: set[str] = set()
    for node in list(nodes):
        if not is_stored(graph, node):
            continue
        weight, axis = node.input[1], output_axis(node, graph.array(node.input[1]).ndim)
        # A weight that two layers share may have its channels on other axes there.
        name = f"{weight}_int8_{axis}"
        node.input[1] = f"{name}_float"
        if name in made:
            continue
        made.add(name)
        codes, scale = stored_weight(graph.array(weight), axis, form)
        graph.set_constant(name, codes)
        if form.rules == "tensorrt":
            parts = [name, graph.set_constant(f"{name}_scale", scale)]
            parts.append(graph.set_constant(f"{name}_zero_point", np.zeros(scale.shape, np.int8)))
            read = [helper.make_node("DequantizeLinear", parts, [f"{name}_float"], name=f"{name}_float", axis=axis)]
        else:
            shape = [-1 if index == axis else 1 for index in range(codes.ndim)]
            factor = graph.set_constant(f"{name}_scale", scale.reshape(shape))
            read = [
                helper.make_node("Cast", [name], [f"{name}_codes"], name=f"{name}_codes", to=TensorProto.FLOAT),
                helper.make_node("Mul", [f"{name}_codes", factor], [f"{name}_float"], name=f"{name}_float"),
            ]
        for index, one in enumerate(read):
            nodes.insert(index, one)
    graph.refresh()


def is_stored(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a node of a float graph has a weight that `store_int8` writes."""
    if node.op_type not in WEIGHTED or node.input[1] not in graph.constants:
        return False
    weight = graph.array(node.input[1])
    return weight.dtype == np.float32 and weight.ndim > 1 and weight.size >= FEWEST


def stored_weight(weight: np.ndarray, axis: int, form: QuantForm) -> tuple[np.ndarray, np.ndarray]:
    """int8 codes of the weight's shape and float32 scales (channels,): a channel's largest weight is code 127."""
    largest = np.abs(weight).max(axis=tuple(index for index in range(weight.ndim) if index != axis))
    scale = written_scale(np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32), form)
    return quantize_weight(weight, scale, axis), scale


def output_axis(node: onnx.NodeProto, rank: int) -> int:
    """The axis of a weight that counts the node's output channels."""
    if node.op_type == "MatMul":
        return rank - 1
    if node.op_type == "Gemm":
        return 0 if any(one.name == "transB" and one.i for one in node.attribute) else 1
    return 1 if node.op_type == "ConvTranspose" else 0


def is_reading(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a Mul is half of what reads a stored weight on CPUs."""
    cast = graph.producer.get(node.input[0]) if node.op_type == "Mul" else None
    return cast is not None and cast.op_type == "Cast" and cast.input[0] in graph.constants


def reads_stored(graph: Graph, node: onnx.NodeProto, name: str, weight: np.ndarray, form: QuantForm) -> bool:
    """Whether the value ``name``, the weight of ``node``, is what `store_int8` writes for the float ``weight``."""
    axis = output_axis(node, weight.ndim)
    codes, scale = stored_weight(weight, axis, form)
    read = graph.producer.get(name)
    if read is not None and read.op_type == "DequantizeLinear":
        found, written, zero = (graph.array(one) for one in read.input)
        held = not zero.any() and {one.name: one.i for one in read.attribute} == {"axis": axis}
    elif read is not None and is_reading(graph, read):
        found, written = graph.array(graph.producer[read.input[0]].input[0]), graph.array(read.input[1])
        held = written.shape == tuple(len(scale) if index == axis else 1 for index in range(weight.ndim))
        written = written.reshape(-1)
    else:
        return False
    return held and np.array_equal(found, codes) and np.array_equal(written, scale.astype(written.dtype))
