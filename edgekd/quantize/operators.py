"""The operators of an exported graph by what quantization knows of them."""

from __future__ import annotations

import operator

import torch
from torch.fx import Node

aten = torch.ops.aten
WEIGHTED = {aten.conv2d.default, aten.conv1d.default, aten.linear.default}
# Fused into what comes before them by every backend.
CLIPS = {aten.relu.default, aten.relu6.default, aten.hardtanh.default}
ACTIVATIONS = {
    aten.hardswish.default,
    aten.hardsigmoid.default,
    aten.sigmoid.default,
    aten.silu.default,
    aten.gelu.default,
    aten.leaky_relu.default,
    aten.elu.default,
    aten.tanh.default,
    aten.softmax.int,
    aten.layer_norm.default,
}
ELEMENTWISE = {aten.add.Tensor, aten.mul.Tensor, aten.cat.default}
PRODUCTS = {aten.matmul.default, aten.bmm.default, aten.scaled_dot_product_attention.default}
AVERAGES = {aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default, aten.mean.dim}
# The numbers pass through, so the quantizer behind is the one in front.
PASSING = {
    aten.max_pool2d.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.view.default,
    aten.reshape.default,
    aten.permute.default,
    aten.transpose.int,
    aten.squeeze.dim,
    aten.unsqueeze.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.contiguous.default,
    aten.clone.default,
    aten.roll.default,
    aten.index_select.default,
    aten.pixel_shuffle.default,
    aten.upsample_nearest2d.vec,
}
# They give several values, each a part of the one that they take.
SPLITS = {aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default, aten.unbind.int}
# They compute nothing.
COPIES = {aten.alias.default, aten.detach.default, aten.to.dtype}
# The second operand with which they compute nothing.
NEUTRAL = {aten.add.Tensor: 0, aten.sub.Tensor: 0, aten.mul.Tensor: 1, aten.div.Tensor: 1}
DROPOUTS = {aten.dropout.default, aten.feature_dropout.default}
# Every operator that has a rule (`has_rule`). Another one is computed in float.
KNOWN = WEIGHTED | CLIPS | ACTIVATIONS | ELEMENTWISE | PRODUCTS | AVERAGES


def has_rule(node: Node) -> bool:
    """Whether quantization has a rule for a node; none for layers whose weight is computed from the network's input."""
    if node.target in WEIGHTED:
        weight = node.args[1]
        return isinstance(weight, Node) and weight.op == "get_attr"
    return node.target in KNOWN


def is_float(node: Node) -> bool:
    """Whether a node's value is one tensor of floats."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def passed_from(node: Node) -> Node | None:
    """The value that ``node`` moves or takes a part of; None where it computes."""
    if node.target in PASSING or pads_with_zero(node) or _copies(node):
        return node.all_input_nodes[0]
    if node.target is operator.getitem:
        (split,) = node.all_input_nodes
        return split.all_input_nodes[0] if split.target in SPLITS else None
    return None


def pads_with_zero(node: Node) -> bool:
    """Whether a node pads with zeros, which are a number of every quantizer."""
    if node.target != aten.pad.default or "constant" not in (*node.args[2:3], "constant")[:1]:
        return False
    return not (node.args[3] if len(node.args) > 3 else 0)


def _copies(node: Node) -> bool:
    """Another type has other numbers."""
    return node.target in COPIES and node.meta["val"].dtype == node.all_input_nodes[0].meta["val"].dtype


def varying_nodes(graph: torch.fx.Graph) -> set[Node]:
    """The nodes that depend on the network's input; all others are constant."""
    found: set[Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or any(one in found for one in node.all_input_nodes):
            found.add(node)
    return found
