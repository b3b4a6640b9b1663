"""Values that a network makes anew at each call although they never change: computed once (attention masks)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

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

    What is written into in place is computed in the graph's order, so that it is what a call would see. What depends
    on parameters stays: quantization-aware training still trains it.
    """
    made: dict[Node, Any] = {}
    for node in model.graph.nodes:
        if node.op == "call_function" and _is_constant(node, made):
            arguments, options = torch.fx.node.map_arg(
                (node.args, node.kwargs), lambda one: made.get(one, torch.empty(0))
            )
            made[node] = node.target(*arguments, **options)
    for node in [one for one in made if isinstance(made[one], Tensor)]:
        outside = [user for user in node.users if user not in made]
        if not outside:
            continue
        name = f"{node.name}_constant"
        value: Tensor = made[node]
        model.register_buffer(name, value.detach().clone())
        with model.graph.inserting_before(node):
            constant = model.graph.get_attr(name)
        constant.meta["val"] = node.meta["val"]
        for user in outside:
            user.replace_input_with(node, constant)
    for node in reversed(list(made)):
        model.graph.erase_node(node)


def _is_constant(node: Node, made: dict[Node, Any]) -> bool:
    inputs = node.all_input_nodes
    if node.target in _MAKERS:
        # The tensor that new_zeros and its kin are called on lends its type only.
        own = set(node.args[:1]) if "new_" in str(node.target) else set()
        return all(one in made for one in inputs if one not in own)
    return bool(inputs) and all(one in made for one in inputs)
