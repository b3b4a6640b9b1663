"""Values that a network makes anew at each call although they never change: computed once (attention masks)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from edgekd.quantize.attributes import add_buffer
from edgekd.quantize.operators import aten

_MAKERS = {
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
    aten.zeros.default,
    aten.ones.default,
    aten.full.default,
    aten.arange.default,
    aten.arange.start,
}


def fold_constants(model: GraphModule) -> None:
    """Everything computed from nothing but newly made tensors of fixed shapes becomes a buffer.

    What is written into in place is computed in the graph's order, and each user gets what it would see at its place.
    What depends on parameters stays: quantization-aware training still trains it.
    """
    constant = _constant_nodes(model.graph)
    made: dict[Node, Any] = {}
    for node in list(model.graph.nodes):
        if node in constant:
            arguments, options = torch.fx.node.map_arg(
                (node.args, node.kwargs), lambda one: made[one] if one in made else _like(one)
            )
            made[node] = node.target(*arguments, **options)
            continue
        for source in [one for one in node.all_input_nodes if isinstance(made.get(one), Tensor)]:
            if not _is_maker(node) or source is not node.args[0]:
                node.replace_input_with(source, _buffer(model, source, made[source]))
    for node in reversed(list(made)):
        if not node.users:
            model.graph.erase_node(node)


def _constant_nodes(graph: Graph) -> set[Node]:
    """The nodes that can be computed once: not what something that varies is written into."""
    varying: set[Node] = set()
    while True:
        found: set[Node] = set()
        for node in graph.nodes:
            if node.op == "call_function" and node not in varying and _is_constant(node, found):
                found.add(node)
        written = {node.args[0] for node in graph.nodes if node not in found and _writes(node)} & found
        if not written:
            return found
        for node in written:
            # Up to where its memory was made.
            while isinstance(node, Node) and node in found:
                varying.add(node)
                node = node.args[0] if node.args and not _is_maker(node) else None


def _is_constant(node: Node, made: set[Node]) -> bool:
    inputs = node.all_input_nodes
    if _is_maker(node):
        # The tensor that new_zeros and its kin are called on lends its type only.
        own = set(node.args[:1]) if "new_" in str(node.target) else set()
        return all(one in made for one in inputs if one not in own)
    return bool(inputs) and all(one in made for one in inputs)


def _is_maker(node: Node) -> bool:
    return node.target in _MAKERS


def _writes(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _like(node: Node) -> Tensor:
    """An empty tensor of a value's type."""
    return torch.empty(0, dtype=node.meta["val"].dtype)


def _buffer(model: GraphModule, source: Node, value: Tensor) -> Node:
    """What ``source`` is by now, kept with the network."""
    for user in source.graph.nodes:
        if user.op == "get_attr" and user.meta.get("constant_of") is source:
            held: Tensor = getattr(model, str(user.target))
            if torch.equal(held, value):
                return user
    with model.graph.inserting_before(source):
        constant = add_buffer(model, f"{source.name}_constant", value)
    constant.meta |= {"val": source.meta["val"], "constant_of": source}
    return constant
