"""Operators that write into their input, made to give a new value: quantizers would hide what they wrote."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from edgekd.errors import BadModel
from edgekd.quantize.tracing import line_of

aten = torch.ops.aten
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
    aten.split.Tensor,
    aten.chunk.default,
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
    """All values in the memory of one, itself included."""
    base = node
    while base.target in VIEWS:
        base = base.args[0]  # type: ignore[assignment]
    found, pending = {base}, [base]
    while pending:
        views = [user for user in pending.pop().users if user.target in VIEWS and user not in found]
        found.update(views)
        pending += views
    return found
