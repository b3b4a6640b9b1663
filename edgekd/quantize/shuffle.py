"""Channel shuffles (ShuffleNet, Zhang et al., CVPR 2018) as one gathering of channels.

Written out they are two changes of shape with a transposition between, for which engines that keep channels last turn
the whole image around and back.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch.fx import GraphModule, Node

from edgekd.quantize.attributes import add_buffer
from edgekd.quantize.operators import aten

_SHAPES = {aten.view.default, aten.reshape.default}
_COPIES = {aten.contiguous.default, aten.clone.default}


def gather_shuffles(model: GraphModule) -> None:
    """In place: (N, g * c, H, W) as (N, g, c, H, W), transposed, and back becomes ``index_select`` of channels."""
    for node in list(model.graph.nodes):
        found = _shuffle(node)
        if found is None:
            continue
        source, groups = found
        channels = source.meta["val"].shape[1]
        order = torch.arange(channels).reshape(groups, channels // groups).T.reshape(-1)
        with model.graph.inserting_before(node):
            index = add_buffer(model, f"{node.name}_order", order)
            index.meta["val"] = order
            gathered = model.graph.call_function(aten.index_select.default, (source, 1, index))
        gathered.meta = dict(node.meta)
        node.replace_all_uses_with(gathered)
        model.graph.erase_node(node)
    model.graph.eliminate_dead_code()


def _shuffle(node: Node) -> tuple[Node, int] | None:
    """The value that ``node`` is a shuffle of, and its number of groups."""
    if node.target == aten.channel_shuffle.default:
        return node.args[0], int(node.args[1])  # type: ignore[arg-type, return-value]
    turned = _only_user_of(node, _SHAPES)
    while turned is not None and turned.target in _COPIES:
        turned = _only_user_of(turned, _COPIES)
    if turned is None or turned.target != aten.transpose.int or {*turned.args[1:3]} != {1, 2}:
        return None
    split = _only_user_of(turned, {aten.transpose.int})
    if split is None or split.target not in _SHAPES:
        return None
    source: Node = split.args[0]  # type: ignore[assignment]
    before, between, after = (one.meta["val"].shape for one in (source, split, node))
    images = len(before) == len(after) == 4 and len(between) == 5
    # Channels alone are split: the batch keeps its size.
    same = images and before[1:] == after[1:] == (between[1] * between[2], *between[3:])
    return (source, int(between[1])) if same else None


def _only_user_of(node: Node, targets: Collection[object]) -> Node | None:
    """What ``node`` (one of ``targets``) reads, where nothing else does."""
    if node.target not in targets:
        return None
    source: Node = node.args[0]  # type: ignore[assignment]
    return source if len(source.users) == 1 else None
