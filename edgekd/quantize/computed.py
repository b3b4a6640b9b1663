"""Weights that a network computes anew at each call from its parameters alone: computed once.

Standardized ones (Qiao et al., "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization",
2019), normalized ones (`torch.nn.utils.parametrizations.weight_norm`, heads that compare directions).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node

from edgekd.quantize.attributes import add_parameter, attribute, set_attribute
from edgekd.quantize.operators import WEIGHTED, aten, is_float, varying_nodes

# Besides the layers that are quantized, those that torchao folds a BatchNorm into, and the BatchNorm.
_LAYERS = WEIGHTED | {
    aten.batch_norm.default,
    aten.conv3d.default,
    aten.conv3d.padding,
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
}


def compute_weights(model: GraphModule) -> None:
    """In place: computed weights, biases and statistics of layers become parameters, which hold what was computed.

    So do weights that are kept as buffers (fixed kernels of antialiasing). Quantization-aware training then trains
    these, as it trains weights that a BatchNorm was folded into. What depends on the network's input stays as it is.
    """
    varying = varying_nodes(model.graph)
    known: dict[Node, Any] = {}
    for node in list(model.graph.nodes):
        if node.target not in _LAYERS:
            continue
        kinds = [argument.name for argument in node.target._schema.arguments]
        if node.target in WEIGHTED and _is_buffer(model, node.args[1]):
            set_attribute(model, node.args[1], attribute(model, node.args[1]))
        for kind, source in zip(kinds, node.args, strict=False):
            computed = isinstance(source, Node) and source.op == "call_function" and source not in varying
            if not computed or not is_float(source):
                continue
            with torch.no_grad(), model.graph.inserting_before(source):
                own = add_parameter(model, f"{node.name}_{kind}", _value(model, source, known))
            own.meta = dict(source.meta)
            # Layers that share it go on sharing it.
            source.replace_all_uses_with(own)
    model.graph.eliminate_dead_code()


def _is_buffer(model: GraphModule, node: Node) -> bool:
    return node.op == "get_attr" and not isinstance(attribute(model, node), nn.Parameter)


def _value(model: GraphModule, node: Node, known: dict[Node, Any]) -> Any:
    """What a node computes that depends on no input; ``known`` keeps what was computed on the way."""
    if node.op == "get_attr":
        return attribute(model, node)
    if node not in known:
        inputs = (node.args, node.kwargs)
        arguments, options = torch.fx.node.map_arg(inputs, lambda one: _value(model, one, known))
        known[node] = node.target(*arguments, **options)  # type: ignore[operator]
    return known[node]
