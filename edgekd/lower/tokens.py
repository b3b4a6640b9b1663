"""Linear layers on tokens, written so that ONNX Runtime computes them with their bias in one integer kernel.

Of a product of three dimensions it makes a kernel that writes floats, and adds the bias and rounds in two more. On rows
(N * tokens, features) the same layer is a Gemm whose int32 bias is added to the integer sums (QGemm): its kernel rounds
where a site follows, and needs none where a float operator does. So a layer becomes a Reshape, a Gemm, whose value has
the product's name, and a Reshape back; ONNX Runtime moves sites through both.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from edgekd.lower.graph import Graph
from edgekd.lower.int32_bias import ROWS, is_int32_bias


def added_bias(graph: Graph, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """The Add of the bias of a layer that can be computed on rows; None where it cannot, or a size is not known."""
    users = graph.consumers.get(node.output[0], [])
    if node.op_type != "MatMul" or len(users) != 1 or users[0].op_type != "Add":
        return None
    bias = bias_of(graph, users[0])
    if bias is None or len(graph.data_inputs(node)) != 1 or not graph.is_site_output(node.input[0]):
        return None
    shape = graph.shapes.get(users[0].output[0], [])
    return users[0] if len(shape) > 2 and all(shape[1:]) and graph.array(bias).shape == (shape[-1],) else None


def bias_of(graph: Graph, add: onnx.NodeProto) -> str | None:
    """The constant that a node adds."""
    return next((name for name in add.input if name in graph.constants), None)


def write_rows(graph: Graph) -> None:
    """In place: every such layer whose weight is integer."""
    nodes = graph.model.graph.node
    for node in list(nodes):
        add = added_bias(graph, node)
        weight = graph.producer.get(node.input[1]) if add is not None else None
        if add is None or weight is None or weight.op_type != "DequantizeLinear":
            continue
        bias = bias_of(graph, add)
        assert bias is not None
        written, constants = _written(graph, node, add, [*node.input, bias])
        for name, value in constants.items():
            graph.set_constant(name, value)
        for old, new in ((node, written[:2]), (add, written[2:])):
            place = list(nodes).index(old)
            nodes.remove(old)
            for offset, one in enumerate(new):
                nodes.insert(place + offset, one)
        graph.refresh()


def with_products(model: onnx.ModelProto, master: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a lowered file with the ``master``'s operators in place of exactly what `write_rows` makes of them.

    What differs from that in any node or number stays, for whoever compares the two.
    """
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    nodes, original = plain.graph.node, Graph(master)
    graph = Graph(plain)
    for node in master.graph.node:
        gemm, add = graph.producer.get(node.output[0]), added_bias(original, node)
        if gemm is None or gemm.op_type != "Gemm" or add is None:
            continue
        rows, tokens = graph.producer.get(gemm.input[0]), graph.producer.get(add.output[0])
        bias = bias_of(original, add)
        if rows is None or tokens is None or bias is None:
            continue
        written, constants = _written(original, node, add, [rows.input[0], *gemm.input[1:]])
        same = [rows, gemm, tokens] == written and all(_holds(graph, *one) for one in constants.items())
        if not same or not is_int32_bias(graph, gemm, original.array(bias)):
            continue
        product, addition = onnx.NodeProto(), onnx.NodeProto()
        product.CopyFrom(node)
        product.input[:] = [rows.input[0], gemm.input[1]]
        addition.CopyFrom(add)
        nodes.remove(rows)
        for old, new in ((gemm, product), (tokens, addition)):
            place = list(nodes).index(old)
            nodes.remove(old)
            nodes.insert(place, new)
        if bias not in graph.constants:
            plain.graph.initializer.append(original.constants[bias])
        graph.refresh()
    return plain


def _holds(graph: Graph, name: str, value: np.ndarray) -> bool:
    return name in graph.constants and np.array_equal(graph.array(name), value)


def _written(
    graph: Graph, node: onnx.NodeProto, add: onnx.NodeProto, inputs: list[str]
) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """The three nodes for a product and the addition of its bias, with their constants; ``inputs`` are the Gemm's."""
    name, out = node.output[0], add.output[0]
    data, *others = inputs
    tokens = graph.shapes[out]
    rows, shapes = f"{name}{ROWS}", (f"{name}{ROWS}_shape", f"{out}_tokens_shape")
    constants = {
        shapes[0]: np.array([-1, graph.shapes[node.input[0]][-1]], np.int64),
        shapes[1]: np.array([-1, *tokens[1:]], np.int64),
    }
    nodes = [
        helper.make_node("Reshape", [data, shapes[0]], [rows], name=rows),
        helper.make_node("Gemm", [rows, *others], [name], name=name),
        helper.make_node("Reshape", [name, shapes[1]], [out], name=f"{out}_tokens"),
    ]
    return nodes, constants
