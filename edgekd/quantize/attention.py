"""Attention as the products and the softmax that it is made of, with finite masks, so that sites can stand between."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from edgekd.quantize.attributes import add_buffer, attribute
from edgekd.quantize.operators import PASSING, aten, varying_nodes

# In front of a softmax as good as minus infinity, and a number of float16.
HIDDEN = -1e4
# No site holds both scores and a constant below it: the scores would get no codes.
LEAST_SCORE = -50


def spell_out_attention(model: GraphModule) -> None:
    """``softmax(q kᵀ / sqrt(d)) v`` in place of torch's one operator; with a causal mask or grouped heads it stays.

    The scale is applied to the scores, behind the product of q and k, whose inputs then come from sites as they are.
    """
    for node in list(model.graph.nodes):
        if node.target != aten.scaled_dot_product_attention.default:
            continue
        schema = [argument.name for argument in node.target._schema.arguments]
        given: dict[str, Any] = dict(zip(schema, node.args, strict=False)) | dict(node.kwargs)
        query, key, value = (given[name] for name in ("query", "key", "value"))
        mask, scale = given.get("attn_mask"), given.get("scale")
        if given.get("dropout_p") or given.get("is_causal") or given.get("enable_gqa"):
            continue
        if mask is not None and not mask.meta["val"].is_floating_point():
            continue
        depth = query.meta["val"].shape[-1]
        with model.graph.inserting_before(node):

            def call(target: Any, *args: Any) -> Node:
                new = model.graph.call_function(target, args)
                # Of the meta only that the value is one of floats is asked for.
                new.meta = dict(node.meta)  # noqa: B023 - called inside this turn of the loop
                return new

            turned = call(aten.transpose.int, key, -2, -1)
            scores = call(aten.matmul.default, query, turned)
            scaled = call(aten.mul.Tensor, scores, scale if scale is not None else 1 / math.sqrt(depth))
            if mask is not None:
                scaled = call(aten.add.Tensor, scaled, mask)
            weights = call(aten.softmax.int, scaled, -1)
            product = call(aten.matmul.default, weights, value)
        node.replace_all_uses_with(product)
        model.graph.erase_node(node)


def make_masks_finite(model: GraphModule) -> None:
    """Minus infinity in front of a softmax becomes `HIDDEN`: no range of a site holds it.

    The same wherever a row of scores has one that is not hidden, within a few thousand of the others.
    """
    varying = varying_nodes(model.graph)
    for node in [one for one in varying if only_for_softmax(one)]:
        if node.target in (aten.masked_fill.Scalar, aten.where.ScalarOther) and node.args[2] == -math.inf:
            node.update_arg(2, HIDDEN)
        if node.target != aten.add.Tensor:
            continue
        for mask in [one for one in node.all_input_nodes if one not in varying]:
            value = _fixed(model, mask)
            if value is None or not value.eq(-math.inf).any():
                continue
            with model.graph.inserting_before(node):
                finite = add_buffer(model, f"{node.name}_mask", value.clamp(min=HIDDEN))
            finite.meta = dict(mask.meta)
            node.replace_input_with(mask, finite)


def masked_scores(model: GraphModule) -> set[Node]:
    """The additions in front of a softmax that hide scores by a constant far below them."""
    found, varying = set(), varying_nodes(model.graph)
    for node in varying:
        if node.target == aten.add.Tensor and only_for_softmax(node):
            masks = [_fixed(model, one) for one in node.all_input_nodes if one not in varying]
            if any(one is not None and one.lt(LEAST_SCORE).any() for one in masks):
                found.add(node)
    return found


def _fixed(model: GraphModule, node: Node) -> Tensor | None:
    """The value of a constant that depends on no parameter; else None."""
    if node.op == "get_attr":
        value = attribute(model, node)
        return None if isinstance(value, nn.Parameter) else value
    if node.op != "call_function" or not node.all_input_nodes:
        return None
    inputs = {one: _fixed(model, one) for one in node.all_input_nodes}
    if any(value is None for value in inputs.values()):
        return None
    arguments, options = torch.fx.node.map_arg((node.args, node.kwargs), inputs.__getitem__)
    value = node.target(*arguments, **options)  # type: ignore[operator]
    return value if isinstance(value, Tensor) else None


def only_for_softmax(node: Node) -> bool:
    """Whether nothing but a softmax computes with a value."""
    users = list(node.users)
    return bool(users) and all(
        user.target == aten.softmax.int or (user.target in PASSING | {aten.add.Tensor} and only_for_softmax(user))
        for user in users
    )
