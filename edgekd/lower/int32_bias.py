"""The biases of linear layers in units of input scale x weight scale.

With them ONNX Runtime makes a QGemm of a layer without a site behind it, whose output is float; with a float bias the
layer would stay float, and with another scale it would compute wrong numbers.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from edgekd.lower.graph import Graph

# Behind a layer's name: its data as rows (`edgekd.lower.tokens`).
ROWS = "_rows"


def write_int32_biases(graph: Graph) -> None:
    """In place: every Gemm of a site's values and an integer weight gets an int32 bias of exactly that scale."""
    for node in [node for node in graph.model.graph.node if node.op_type == "Gemm" and len(node.input) == 3]:
        weight, bias = (graph.producer.get(name) for name in node.input[1:])
        if weight is None or bias is not None or not _reads_site(graph, node):
            continue
        name, owner = node.input[2], node.output[0]
        scale = _scale(graph, node)
        codes = np.rint(graph.array(name) / scale).astype(np.int32)
        parts = [
            graph.add_constant(f"{name}_int32", codes, owner),
            graph.add_constant(f"{name}_scale", scale, owner),
            graph.add_constant(f"{name}_zero_point", np.zeros(scale.shape, np.int32), owner),
        ]
        # Linear layers may share a bias.
        node.input[2] = f"{name}_dequantized_for_{owner}"
        dequantize = helper.make_node("DequantizeLinear", parts, [node.input[2]], name=node.input[2], axis=0)
        graph.model.graph.node.insert(list(graph.model.graph.node).index(node), dequantize)
        graph.refresh()


def is_int32_bias(graph: Graph, node: onnx.NodeProto, wanted: np.ndarray) -> bool:
    """Whether a layer's bias is ``wanted`` in such units; with any other scale engines compute wrong numbers."""
    dequantize = graph.producer.get(node.input[2])
    if dequantize is None or dequantize.op_type != "DequantizeLinear" or not _reads_site(graph, node):
        return False
    codes, scale, zero = (graph.array(name) for name in dequantize.input)
    near = np.abs(codes.astype(np.float64) * scale - wanted) <= 0.51 * scale + 1e-6 * np.abs(wanted)
    return bool(near.all()) and np.array_equal(scale, _scale(graph, node)) and not zero.any()


def _reads_site(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether its data comes right out of a site, or through the Reshape that makes rows of it."""
    name = node.input[0]
    reshape = graph.producer.get(name)
    if reshape is not None and reshape.op_type == "Reshape" and reshape.output[0] == f"{node.output[0]}{ROWS}":
        name = reshape.input[0]
    return graph.is_site_output(name)


def _scale(graph: Graph, node: onnx.NodeProto) -> np.ndarray:
    site, weight = graph.site_of(node.input[0]), graph.producer[node.input[1]]
    assert site is not None
    scale: np.ndarray = (graph.array(site.input[1]) * graph.array(weight.input[1])).astype(np.float32)
    return scale
