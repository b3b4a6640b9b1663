"""The exported graph in a form that quantizes well: the same function in operators that every backend runs on integers.

Everything here is exact up to float rounding; the proof compares the outcome with the student.
"""

from __future__ import annotations

from torch.fx import GraphModule, Node

from edgekd.quantize.attention import make_masks_finite, spell_out_attention
from edgekd.quantize.branches import merge_branches
from edgekd.quantize.computed import compute_weights
from edgekd.quantize.constants import fold_constants
from edgekd.quantize.functional import out_of_place
from edgekd.quantize.norms import lone_norms_as_convolutions, part_shared_layers
from edgekd.quantize.operators import DROPOUTS, NEUTRAL, aten
from edgekd.quantize.padding import number_paddings, pads_behind_relus
from edgekd.quantize.pointwise import fuse_image_linears
from edgekd.quantize.scales import fold_scales
from edgekd.quantize.shuffle import gather_shuffles


def rewrite(model: GraphModule) -> GraphModule:
    """``model`` (exported in evaluation mode) rewritten in place.

    Raises:
        BadModel: it writes into shared memory (`edgekd.quantize.functional`).
    """
    fold_constants(model)
    out_of_place(model)
    drop_idle(model)
    number_paddings(model)
    pads_behind_relus(model)
    compute_weights(model)
    gather_shuffles(model)
    part_shared_layers(model)
    merge_branches(model, rounded=True)
    lone_norms_as_convolutions(model)
    fold_scales(model)
    fuse_image_linears(model)
    _global_pools_as_means(model)
    _spell_out_silu(model)
    spell_out_attention(model)
    make_masks_finite(model)
    model.graph.eliminate_dead_code()
    model.graph.lint()
    model.recompile()
    return model


def drop_idle(model: GraphModule) -> None:
    """What does nothing in evaluation: a site on both of its sides would quantize twice."""
    for node in list(model.graph.nodes):
        empty_pad = node.target == aten.pad.default and not any(node.args[1])
        if node.target in DROPOUTS or empty_pad or _is_neutral(node):
            node.replace_all_uses_with(node.args[0])
            model.graph.erase_node(node)


def _is_neutral(node: Node) -> bool:
    """Whether a number is added or multiplied with that changes nothing: sums often begin with 0."""
    if node.target not in NEUTRAL or node.args[1] != NEUTRAL[node.target] or not isinstance(node.args[0], Node):
        return False
    kinds = {getattr(one.meta.get("val"), "dtype", one) for one in (node, node.args[0])}
    return len(kinds) == 1


def _global_pools_as_means(model: GraphModule) -> None:
    """Pooling to one number is exported as it is stored in memory, with a Gather where channels come last."""
    for node in list(model.graph.nodes):
        if node.target != aten.adaptive_avg_pool2d.default or {*_as_list(node.args[1])} != {1}:
            continue
        with model.graph.inserting_before(node):
            mean = model.graph.call_function(aten.mean.dim, (node.args[0], [-1, -2], True))
        mean.meta = dict(node.meta)
        node.replace_all_uses_with(mean)
        model.graph.erase_node(node)


def _as_list(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _spell_out_silu(model: GraphModule) -> None:
    """``silu(x) = x * sigmoid(x)``, so that a site can stand at the sigmoid: ONNX Runtime has integers for both."""
    for node in list(model.graph.nodes):
        if node.target != aten.silu.default:
            continue
        with model.graph.inserting_before(node):
            gate = model.graph.call_function(aten.sigmoid.default, (node.args[0],))
            product = model.graph.call_function(aten.mul.Tensor, (node.args[0], gate))
        for new in (gate, product):
            new.meta = dict(node.meta)
        node.replace_all_uses_with(product)
        model.graph.erase_node(node)
