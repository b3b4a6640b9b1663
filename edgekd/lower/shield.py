"""ONNX Runtime turns float weights into integers by itself; what stops it.

Its WeightBiasQuantization (qdq_transformer/weight_bias_quantization.cc) quantizes the float weight of a Conv or Gemm
behind a DequantizeLinear with one scale for the whole tensor, which no accuracy was ever measured for. It leaves
layers alone whose input is dequantized per channel, so a layer that stays in float reads the same numbers through a
DequantizeLinear that repeats its scale for every channel.
"""

from __future__ import annotations

import numpy as np
from onnx import helper

from edgekd.lower.graph import PASSING, WEIGHTED, Graph, value_shapes


def shield_float_weights(graph: Graph) -> None:
    """In place: float layers behind a site get a DequantizeLinear of their own, per channel.

    Also where operators between them pass the numbers on (sites are carried through them), and MatMul, which becomes
    a Gemm together with the addition of its bias.
    """
    shapes = value_shapes(graph.model)
    for node in list(graph.model.graph.node):
        if node.op_type not in WEIGHTED or node.input[1] not in graph.constants:
            continue
        reader = node
        while (moved := graph.producer.get(reader.input[0])) is not None and moved.op_type in PASSING:
            reader = moved
        name = f"{reader.output[0]}_input"
        if not graph.is_site_output(reader.input[0]) or reader.input[0] == name:
            continue
        source = graph.producer[reader.input[0]]
        shape = shapes[reader.input[0]]
        axis = next((axis for axis in range(1, len(shape)) if shape[axis] > 1), None)
        if axis is None:
            continue
        parameters = [
            graph.set_constant(f"{name}_{kind}", np.full(shape[axis], graph.array(value)))
            for kind, value in zip(("scale", "zero_point"), source.input[1:], strict=True)
        ]
        dequantize = helper.make_node("DequantizeLinear", [source.input[0], *parameters], [name], name=name, axis=axis)
        graph.model.graph.node.insert(list(graph.model.graph.node).index(reader), dequantize)
        reader.input[0] = name
        graph.refresh()
