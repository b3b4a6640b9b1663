"""Per-channel factors behind a weighted layer (LayerScale of ConvNeXt and its kin) folded into its weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgekd.quantize.attributes import attribute, set_attribute
from edgekd.quantize.operators import aten, varying_nodes

_FOLLOWED = {aten.permute.default, aten.transpose.int}


def fold_scales(model: GraphModule) -> None:
    """``layer(x) * factor`` becomes the layer with scaled weights, where the factor has one number a channel.

    Seen through a permutation; only where each value between has that one use, since others would see other numbers.
    """
    varying = varying_nodes(model.graph)
    for node in list(model.graph.nodes):
        if node.target != aten.mul.Tensor or len(node.all_input_nodes) != 2:
            continue
        data, factor = sorted(node.all_input_nodes, key=lambda one: one not in varying)
        layer = _layer_behind(data)
        if factor in varying or layer is None:
            continue
        values = _constant(model, factor)
        axis = _channel_axis(data, layer)
        if values is None or axis is None or not _is_per_channel(values, data, axis):
            continue
        _scale(model, layer, values.reshape(-1))
        node.replace_all_uses_with(data)
        model.graph.erase_node(node)


def _layer_behind(node: Node) -> Node | None:
    while node.target in _FOLLOWED and len(node.users) == 1:
        node = node.args[0]  # type: ignore[assignment]
    # A BatchNorm is scaled like the convolution that it is folded into later.
    layers = (aten.linear.default, aten.conv2d.default, aten.batch_norm.default)
    if node.target not in layers or len(node.users) != 1:
        return None
    parameters = [one for one in node.args[1:3] if one is not None]
    # What is computed, or read by another layer too, cannot be scaled for one.
    alone = all(isinstance(one, Node) and one.op == "get_attr" and len(one.users) == 1 for one in parameters)
    return node if alone and isinstance(node.args[1], Node) else None


def _channel_axis(node: Node, layer: Node) -> int | None:
    """Where the layer's output channels are in ``node``, behind permutations."""
    if node is layer:
        return len(layer.meta["val"].shape) - 1 if layer.target == aten.linear.default else 1
    before = _channel_axis(node.args[0], layer)  # type: ignore[arg-type]
    rank = len(node.meta["val"].shape)
    if before is None:
        return None
    if node.target == aten.permute.default:
        return [one % rank for one in node.args[1]].index(before)  # type: ignore[union-attr, operator]
    first, second = (int(one) % rank for one in node.args[1:3])  # type: ignore[arg-type]
    return {first: second, second: first}.get(before, before)


def _is_per_channel(values: Tensor, data: Node, axis: int) -> bool:
    rank = len(data.meta["val"].shape)
    if values.dim() > rank:
        return False
    shape = [1] * (rank - values.dim()) + list(values.shape)
    return all(size == 1 for place, size in enumerate(shape) if place != axis) and (
        shape[axis] == data.meta["val"].shape[axis]
    )


def _constant(model: GraphModule, node: Node) -> Tensor | None:
    """The value of a constant: an attribute, or a view of one."""
    if node.op == "get_attr":
        return attribute(model, node)
    if (
        node.target in (aten.view.default, aten.reshape.default, aten.unsqueeze.default)
        and len(node.all_input_nodes) == 1
    ):
        inner = _constant(model, node.all_input_nodes[0])
        return None if inner is None else node.target(inner, *node.args[1:])  # type: ignore[operator]
    return None


def _scale(model: GraphModule, layer: Node, factor: Tensor) -> None:
    weight: Node = layer.args[1]  # type: ignore[assignment]
    bias = layer.args[2] if len(layer.args) > 2 else None
    with torch.no_grad():
        old = attribute(model, weight)
        set_attribute(model, weight, old * factor.reshape(-1, *[1] * (old.dim() - 1)))
        if isinstance(bias, Node):
            set_attribute(model, bias, attribute(model, bias) * factor)
