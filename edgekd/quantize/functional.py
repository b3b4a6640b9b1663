"""Operators that write into their input, made to give a new value: quantizers would hide what they wrote."""

from __future__ import annotations

import operator

import torch
from torch.fx import GraphModule, Node

from edgekd.errors import BadModel
from edgekd.quantize.operators import DROPOUTS, SPLITS, aten
from edgekd.quantize.tracing import line_of

# Besides the parts of a split.
VIEWS = {
    aten.view.default,
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.permute.default,
    aten.transpose.int,
    aten.squeeze.dim,
    aten.unsqueeze.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.unflatten.int,
    aten.expand.default,
    aten.alias.default,
    aten.detach.default,
    # In evaluation they hand on what they were given.
    *DROPOUTS,
}


def out_of_place(model: GraphModule) -> GraphModule:
    """``model`` with ``relu_`` and its like written as ``relu``, later users reading the new value.

    Raises:
        BadModel: one of them writes into memory of a value that is used afterwards under another name.
    """
    order = {node: place for place, node in enumerate(model.graph.nodes)}
    for node in model.graph.nodes:
        twin = _twin(node)
        if twin is None:
            continue
        written = node.args[0]
        others = _aliases(written) - {written}
        if any(order[user] > order[node] for other in others for user in other.users):
            raise BadModel(
                f"{node.name} writes into memory that other values share",
                where=line_of(node),
                remedy="write it out of place: y = torch.relu(x) for x.relu_()",
            )
        node.target = twin
        for user in [user for user in written.users if order[user] > order[node]]:
            user.replace_input_with(written, node)
    model.recompile()
    return model


def _twin(node: Node) -> torch._ops.OpOverload | None:
    """The operator that computes the same without writing; None where ``node`` writes nothing."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable:
        return None
    packet = getattr(aten, target._schema.name.removeprefix("aten::").removesuffix("_"), None)
    return getattr(packet, target._overloadname, None)


def _aliases(node: Node) -> set[Node]:
    """All values that share memory with one, itself included; not the other parts of a split."""
    beside: set[Node] = set()
    found = _views_of(node, beside)
    while (base := _base(node)) is not None:
        if node.target is operator.getitem:
            beside.update(node.all_input_nodes[0].users)
        found |= _views_of(base, beside)
        node = base
    return found


def _views_of(node: Node, beside: set[Node]) -> set[Node]:
    """A value and what shows it or parts of it."""
    found, pending = {node}, [node]
    while pending:
        one = pending.pop()
        users = [part for user in one.users for part in (user.users if user.target in SPLITS else [user])]
        views = [user for user in users if _base(user) is one and user not in found | beside]
        found.update(views)
        pending += views
    return found


def _base(node: Node) -> Node | None:
    """The value that a view shows, or that a part is split from."""
    if node.target in VIEWS:
        return node.args[0]  # type: ignore[return-value]
    if node.target is operator.getitem and node.all_input_nodes[0].target in SPLITS:
        return node.all_input_nodes[0].args[0]  # type: ignore[return-value]
    return None
