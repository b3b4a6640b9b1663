"""The exporter's graph in the spelling that every lowering starts from."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekd.quantize.folded_pads import fold_pads


def normalize(model: onnx.ModelProto) -> onnx.ModelProto:
    """In place: the spelling that lowering expects.

    No Clip between Q and DQ, weights as their products take them, GlobalAveragePool for means over images, scales of
    rank 0, no Pad that a convolution can do itself, no leftovers.
    """
    _drop_code_clips(model.graph)
    _turn_weights(model.graph)
    _global_average_pools(model.graph)
    _scalar_parameters(model.graph)
    fold_pads(model.graph)
    _drop_unused(model.graph)
    del model.graph.value_info[:]
    # Where each node came from in the user's files does not belong into what is handed on.
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    return onnx.shape_inference.infer_shapes(model)


def turned_weights(graph: onnx.GraphProto) -> set[str]:
    """The weights that `normalize` transposed, by name: torch has their channels first, here they are on axis 1."""
    return {
        node.input[0]
        for node in graph.node
        if node.op_type == "QuantizeLinear" and any(one.name == "axis" and one.i == 1 for one in node.attribute)
    }


def _drop_code_clips(graph: onnx.GraphProto) -> None:
    """Weights are held within ±127 codes by their values instead of a Clip behind their Q, which no backend fuses."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    quantized = {node.output[0]: node for node in graph.node if node.op_type == "QuantizeLinear"}
    renamed = {}
    for node in list(graph.node):
        if node.op_type == "Clip" and node.input[0] in quantized:
            quantize = quantized[node.input[0]]
            weight, scale = (numpy_helper.to_array(constants[name]) for name in quantize.input[:2])
            axis = next((a.i for a in quantize.attribute if a.name == "axis"), 0)
            highest = 127 * scale.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
            constants[quantize.input[0]].CopyFrom(
                numpy_helper.from_array(np.clip(weight, -highest, highest), quantize.input[0])
            )
            renamed[node.output[0]] = node.input[0]
            graph.node.remove(node)
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)


def _turn_weights(graph: onnx.GraphProto) -> None:
    """``MatMul(x, Transpose(DQ(Q(w))))`` becomes ``MatMul(x, DQ(Q(wᵀ)))``, channels on axis 1.

    A Gemm of the same weight reads it so too, and what takes the weight without a quantizer gets a copy of it.
    """
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)

    def readers(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
        return [reader for node in nodes for reader in consumers.get(node.output[0], [])]

    for weight in [tensor for tensor in graph.initializer if len(tensor.dims) == 2]:
        users = consumers.get(weight.name, [])
        quantize = [node for node in users if node.op_type == "QuantizeLinear"]
        dequantize = readers(quantize)
        layers = readers(dequantize)
        turns = [node for node in layers if node.op_type == "Transpose" and _feeds_products(readers([node]))]
        gemms = [
            node for node in layers if node.op_type == "Gemm" and any(one.name == "transB" for one in node.attribute)
        ]
        if not turns or len(turns) + len(gemms) < len(layers):
            continue
        value = numpy_helper.to_array(weight)
        plain = [node for node in users if node.op_type != "QuantizeLinear"]
        if plain:
            copy = numpy_helper.from_array(value, f"{weight.name}_unquantized")
            graph.initializer.append(copy)
            for node in plain:
                node.input[:] = [copy.name if name == weight.name else name for name in node.input]
        weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value.T), weight.name))
        for node in (*quantize, *dequantize, *gemms):
            for attribute in node.attribute:
                if attribute.name in ("axis", "transB"):
                    attribute.i = 1 - attribute.i
        for node in turns:
            for product in readers([node]):
                product.input[1] = node.input[0]
            graph.node.remove(node)


def _feeds_products(users: list[onnx.NodeProto]) -> bool:
    return bool(users) and all(user.op_type == "MatMul" for user in users)


def _global_average_pools(graph: onnx.GraphProto) -> None:
    """Of images alone: it is the mean over all dimensions but the first two, whatever their number."""
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in (*graph.input, *graph.value_info)}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in list(graph.node):
        if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in constants:
            continue
        axes = numpy_helper.to_array(constants[node.input[1]])
        if ranks.get(node.input[0]) != 4 or sorted(axes % 4) != [2, 3]:
            continue
        keep = next((a.i for a in node.attribute if a.name == "keepdims"), 1)
        place = list(graph.node).index(node)
        graph.node.remove(node)
        pooled = node.output[0] if keep else f"{node.output[0]}_pooled"
        graph.node.insert(
            place, helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], name=f"{node.name or pooled}_gap")
        )
        if not keep:
            shape = numpy_helper.from_array(np.array([0, -1], np.int64), f"{node.output[0]}_shape")
            graph.initializer.append(shape)
            graph.node.insert(
                place + 1,
                helper.make_node("Reshape", [pooled, shape.name], [node.output[0]], name=f"{node.output[0]}_flat"),
            )


def _scalar_parameters(graph: onnx.GraphProto) -> None:
    """Per-tensor scales and zero points get rank 0: with shape [1] ONNX Runtime absorbs no Clip."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        for name in node.input[1:]:
            tensor = constants.get(name)
            if tensor is not None and list(tensor.dims) == [1] and not any(a.name == "axis" for a in node.attribute):
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).reshape(()), name))


def _drop_unused(graph: onnx.GraphProto) -> None:
    wanted = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for tensor in list(graph.initializer):
        if tensor.name not in wanted:
            graph.initializer.remove(tensor)
