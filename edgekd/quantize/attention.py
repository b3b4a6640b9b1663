"""Attention as the products and the softmax that it is made of, so that sites can stand between them."""

from __future__ import annotations

import math
from typing import Any

from torch.fx import GraphModule, Node

from edgekd.quantize.operators import aten


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
